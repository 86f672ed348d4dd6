/* R13: socket pairs (stream, datagram, sequenced packets) with data and descriptors in flight, half-closed, with credentials. */
#include <sys/socket.h>
#include <sys/un.h>
#include "probe.h"

static void send_fd(int socket, int fd, const char *text) {
  union {
    char space[CMSG_SPACE(sizeof fd)];
    struct cmsghdr align;
  } control = {0};
  struct iovec part = {(char *)text, strlen(text)};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  MUST(sendmsg(socket, &message, 0));
}

static int receive_fd(int socket, char *text, size_t size) {
  char space[CMSG_SPACE(4 * sizeof(int))];
  struct iovec part = {text, size - 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
  ssize_t length = recvmsg(socket, &message, MSG_DONTWAIT);
  text[length < 0 ? 0 : length] = 0;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  int fd = -1;
  if (length >= 0 && header && header->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

int main(void) {
  static char buffer[100000], expected[100000];
  int stream[2], datagram[2], packets[2], half[2], passing[2], dead[2];
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
  probe_fill(expected, sizeof expected, 1);
  MUST(write(stream[0], expected, 60000));
  MUST(write(stream[1], "backwards", 9));
  MUST(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, datagram));
  MUST(write(datagram[0], "one", 3));
  MUST(write(datagram[0], "three", 5));
  MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, packets));
  MUST(write(packets[0], "alpha", 5));
  MUST(write(packets[0], "beta", 4));
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, half));
  MUST(write(half[0], "the end", 7));
  MUST(shutdown(half[0], SHUT_WR));
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, dead));
  MUST(write(dead[0], "last will", 9));
  close(dead[0]);
  int size = 300000;
  MUST(setsockopt(stream[0], SOL_SOCKET, SO_RCVBUF, &size, sizeof size));
  socklen_t length = sizeof size;
  MUST(getsockopt(stream[0], SOL_SOCKET, SO_RCVBUF, &size, &length));
  /* A pipe end and a file that exist only inside the socket. */
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, passing));
  int pipes[2];
  MUST(pipe(pipes));
  MUST(write(pipes[1], "in a passed pipe", 16));
  send_fd(passing[0], pipes[0], "pipe");
  close(pipes[0]);
  char path[] = "/tmp/passed-XXXXXX";
  int file = MUST(mkstemp(path));
  MUST(write(file, "passed file", 11));
  MUST(lseek(file, 7, SEEK_SET));
  int datagrams[2];
  MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams));
  send_fd(datagrams[0], file, "file");
  close(file);

  probe_wait();

  if (probe_broken()) MUST(write(datagram[0], "four", 4));
  CHECK(recv(stream[1], buffer, sizeof buffer, MSG_DONTWAIT) == 60000 && !memcmp(buffer, expected, 60000), "stream: data differs");
  CHECK(recv(stream[0], buffer, sizeof buffer, MSG_DONTWAIT) == 9 && !memcmp(buffer, "backwards", 9), "stream: data the other way");
  MUST(write(stream[0], "more", 4));
  CHECK(recv(stream[1], buffer, sizeof buffer, MSG_DONTWAIT) == 4, "stream: not connected");
  CHECK(recv(datagram[1], buffer, 100, MSG_DONTWAIT) == 3 && !memcmp(buffer, "one", 3), "first datagram differs");
  CHECK(recv(datagram[1], buffer, 100, MSG_DONTWAIT) == 5 && !memcmp(buffer, "three", 5), "second datagram differs");
  CHECK(recv(datagram[1], buffer, 100, MSG_DONTWAIT) < 0, "a datagram too many");
  CHECK(fcntl(datagram[0], F_GETFD) == FD_CLOEXEC, "close-on-exec of the datagram socket");
  CHECK(read(packets[1], buffer, 100) == 5 && read(packets[1], buffer, 100) == 4 && !memcmp(buffer, "beta", 4), "packets differ");
  CHECK(read(packets[1], buffer, 100) < 0 && errno == EAGAIN, "packet socket is not empty or not O_NONBLOCK");
  CHECK(read(half[1], buffer, 100) == 7 && read(half[1], buffer, 100) == 0, "half-closed: no end of file after the data");
  MUST(write(half[1], "answer", 6));
  CHECK(recv(half[0], buffer, 100, MSG_DONTWAIT) == 6, "half-closed: the open direction does not work");
  CHECK(send(half[0], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "half-closed: the closed direction is open again");
  CHECK(read(dead[1], buffer, 100) == 9 && read(dead[1], buffer, 100) == 0, "partner closed: data or end of file lost");
  int size_now = 0;
  MUST(getsockopt(stream[0], SOL_SOCKET, SO_RCVBUF, &size_now, &length));
  CHECK(size_now == size, "SO_RCVBUF is %d instead of %d", size_now, size);
  int passed = receive_fd(passing[1], buffer, sizeof buffer);
  CHECK(passed >= 0 && !strcmp(buffer, "pipe"), "the passed pipe is lost (text '%s')", buffer);
  CHECK(read(passed, buffer, 100) == 16 && !memcmp(buffer, "in a passed pipe", 16), "data in the passed pipe differs");
  MUST(write(pipes[1], "new", 3));
  CHECK(read(passed, buffer, 100) == 3, "the passed pipe is another one");
  passed = receive_fd(datagrams[1], buffer, sizeof buffer);
  CHECK(passed >= 0 && !strcmp(buffer, "file"), "the passed file is lost (text '%s')", buffer);
  CHECK(read(passed, buffer, 100) == 4 && !memcmp(buffer, "file", 4), "the passed file has lost its position");
  MUST(unlink(path));
  return probe_result();
}
