/*
 * R17: established TCP connections inside the unit (IPv4 and IPv6) with data in flight both ways, a full send buffer, half-closed
 * and out-of-band; connections that wait in the backlog; UDP with queued datagrams; connected unix sockets by path.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "probe.h"

static char buffer[8 << 20], expected[8 << 20];

static int connected(int family, int listener, int *server) {
  struct sockaddr_storage address;
  socklen_t length = sizeof address;
  int client = MUST(socket(family, SOCK_STREAM, 0));
  MUST(getsockname(listener, (void *)&address, &length));
  MUST(connect(client, (void *)&address, length));
  *server = MUST(accept(listener, NULL, NULL));
  return client;
}

static int listener(int family) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  int fd = socket(family, SOCK_STREAM, 0);
  if (fd < 0) return -1;
  if (bind(fd, family == AF_INET ? (void *)&v4 : (void *)&v6, family == AF_INET ? sizeof v4 : sizeof v6) < 0 || listen(fd, 16) < 0) {
    close(fd);
    return -1;
  }
  return fd;
}

/* Sends until the socket takes no more; returns how much it took. */
static size_t stuff(int fd, uint64_t seed) {
  size_t total = 0;
  probe_fill(expected, sizeof expected, seed);
  for (int quiet = 0; quiet < 20 && total < sizeof expected;) {
    ssize_t sent = send(fd, expected + total, sizeof expected - total, MSG_DONTWAIT);
    if (sent > 0) total += sent, quiet = 0;
    else quiet++, probe_pause(2);
  }
  return total;
}

static void drain(const char *what, int fd, size_t bytes, uint64_t seed) {
  size_t total = 0;
  struct timeval patience = {20, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  while (total < bytes) {
    ssize_t n = read(fd, buffer + total, bytes - total);
    if (n <= 0) {
      probe_fail("%s: %s after %zu of %zu bytes", what, n ? strerror(errno) : "end of file", total, bytes);
      return;
    }
    total += n;
  }
  probe_fill(expected, sizeof expected, seed);
  CHECK(!memcmp(buffer, expected, bytes), "%s: the data differs", what);
}

static void both_ways(const char *what, int a, int b) {
  char byte = 0;
  CHECK(send(a, "q", 1, MSG_NOSIGNAL) == 1 && read(b, &byte, 1) == 1 && byte == 'q', "%s: there", what);
  CHECK(send(b, "r", 1, MSG_NOSIGNAL) == 1 && read(a, &byte, 1) == 1 && byte == 'r', "%s: back", what);
}

int main(void) {
  struct sockaddr_in was, is;
  socklen_t length = sizeof was;
  int v4 = MUST(listener(AF_INET)), v6 = listener(AF_INET6);
  int flight_server, flight = connected(AF_INET, v4, &flight_server);
  size_t there = stuff(flight, 1), back = stuff(flight_server, 2);
  int idle_server, idle = connected(AF_INET, v4, &idle_server);
  int one = 1;
  MUST(setsockopt(idle, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
  MUST(getsockname(idle, (void *)&was, &length));
  int six_server = -1, six = v6 < 0 ? -1 : connected(AF_INET6, v6, &six_server);
  size_t six_there = v6 < 0 ? 0 : MUST(write(six, "over IPv6", 9));
  int half_server, half = connected(AF_INET, v4, &half_server);
  MUST(write(half, "request", 7));
  MUST(shutdown(half, SHUT_WR));
  int closed_server, closed = connected(AF_INET, v4, &closed_server);
  MUST(write(closed, "goodbye", 7));
  close(closed);
  int corked_server, corked = connected(AF_INET, v4, &corked_server);
  MUST(setsockopt(corked, IPPROTO_TCP, TCP_CORK, &one, sizeof one));
  MUST(write(corked, "held back", 9));
  struct sockaddr_in receiver_address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  int receiver = MUST(socket(AF_INET, SOCK_DGRAM, 0)), sender = MUST(socket(AF_INET, SOCK_DGRAM, 0));
  MUST(bind(receiver, (void *)&receiver_address, sizeof receiver_address));
  MUST(getsockname(receiver, (void *)&receiver_address, &length));
  MUST(connect(sender, (void *)&receiver_address, sizeof receiver_address));
  struct sockaddr_un path = {.sun_family = AF_UNIX, .sun_path = "/tmp/probe-connected"};
  unlink(path.sun_path);
  int path_listener = MUST(socket(AF_UNIX, SOCK_STREAM, 0)), path_client = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
  MUST(bind(path_listener, (void *)&path, sizeof path));
  MUST(listen(path_listener, 5));
  MUST(connect(path_client, (void *)&path, sizeof path));
  int path_server = MUST(accept(path_listener, NULL, NULL));
  MUST(write(path_client, "by path", 7));
  /* A blocked reader in another process. */
  pid_t child = MUST(fork());
  if (child == 0) {
    char byte = 0;
    CHECK(read(idle_server, &byte, 1) == 1 && byte == '!', "child: the blocked read got %d", byte);
    CHECK(write(idle_server, "?", 1) == 1, "child: write: %s", strerror(errno));
    probe_child_end();
  }
  probe_pause(30);

  probe_wait();

  if (probe_broken()) MUST(write(path_client, "!", 1));
  drain("data in flight to the server", flight_server, there, 1);
  drain("data in flight to the client", flight, back, 2);
  both_ways("the connection with data in flight", flight, flight_server);
  MUST(getsockname(idle, (void *)&is, &length));
  CHECK(was.sin_port == is.sin_port && was.sin_addr.s_addr == is.sin_addr.s_addr, "the address of a connection differs");
  int value = 0;
  length = sizeof value;
  MUST(getsockopt(idle, IPPROTO_TCP, TCP_NODELAY, &value, &length));
  CHECK(value, "TCP_NODELAY is lost");
  char byte = 0;
  MUST(write(idle, "!", 1));
  CHECK(read(idle, &byte, 1) == 1 && byte == '?', "the child did not answer");
  probe_reap(child, "blocked reader");
  both_ways("idle connection", idle, idle_server);
  if (six_there) {
    CHECK(read(six_server, buffer, 100) == 9 && !memcmp(buffer, "over IPv6", 9), "IPv6: data differs");
    both_ways("IPv6", six, six_server);
  }
  CHECK(read(half_server, buffer, 100) == 7 && read(half_server, buffer, 100) == 0, "half-closed: no end of file after the request");
  MUST(write(half_server, "answer", 6));
  CHECK(read(half, buffer, 100) == 6, "half-closed: no answer");
  CHECK(send(half, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "half-closed: the closed direction is open again");
  CHECK(read(closed_server, buffer, 100) == 7 && read(closed_server, buffer, 100) == 0, "closed by the other side: data or end of file lost");
  value = 0;
  MUST(setsockopt(corked, IPPROTO_TCP, TCP_CORK, &value, sizeof value));
  CHECK(read(corked_server, buffer, 100) == 9 && !memcmp(buffer, "held back", 9), "corked data differs");
  MUST(write(sender, "fresh", 5));
  CHECK(read(receiver, buffer, 100) == 5 && !memcmp(buffer, "fresh", 5), "the UDP sockets are not connected");
  CHECK(read(path_server, buffer, 100) == 7 && !memcmp(buffer, "by path", 7), "unix by path: data differs");
  both_ways("unix by path", path_client, path_server);
  int fresh_server, fresh = connected(AF_INET, v4, &fresh_server);
  both_ways("a new connection", fresh, fresh_server);
  return probe_result();
}
