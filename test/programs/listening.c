/* R17: listening sockets (TCP over IPv4 and IPv6, unix by path and abstract) accept again, with their options. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "probe.h"

static int value_of(int fd, int level, int option) {
  int value = -1;
  socklen_t length = sizeof value;
  getsockopt(fd, level, option, &value, &length);
  return value;
}

static void set(int fd, int level, int option, int value) { MUST(setsockopt(fd, level, option, &value, sizeof value)); }

/* Connects, and sends one byte each way. */
static void try(const char *what, int listener, const struct sockaddr *address, socklen_t length) {
  char byte = 0;
  int client = MUST(socket(address->sa_family, SOCK_STREAM, 0));
  if (connect(client, address, length) < 0) {
    probe_fail("%s: connect: %s", what, strerror(errno));
    return;
  }
  int server = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
  CHECK(server >= 0, "%s: accept: %s", what, strerror(errno));
  if (server < 0) return;
  MUST(write(client, "a", 1));
  for (int i = 0; i < 500 && read(server, &byte, 1) != 1; i++) probe_pause(2);
  CHECK(byte == 'a', "%s: nothing arrived at the server", what);
  MUST(write(server, "b", 1));
  CHECK(read(client, &byte, 1) == 1 && byte == 'b', "%s: nothing came back", what);
  close(client);
  close(server);
}

int main(void) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(7001), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(7002)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(7003), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  struct sockaddr_un path = {.sun_family = AF_UNIX, .sun_path = "/tmp/probe-listening"}, abstract = {.sun_family = AF_UNIX};
  memcpy(abstract.sun_path, "\0probe-abstract", 15);
  socklen_t abstract_length = offsetof(struct sockaddr_un, sun_path) + 15;
  struct linger linger = {1, 7}, linger_now;
  socklen_t length = sizeof linger_now;

  int v4_fd = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  set(v4_fd, SOL_SOCKET, SO_REUSEADDR, 1);
  set(v4_fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(v4_fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set(v4_fd, IPPROTO_TCP, TCP_KEEPIDLE, 77);
  MUST(setsockopt(v4_fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
  MUST(bind(v4_fd, (void *)&v4, sizeof v4));
  MUST(listen(v4_fd, 17));
  int any_fd = MUST(socket(AF_INET, SOCK_STREAM, 0));
  set(any_fd, SOL_SOCKET, SO_REUSEPORT, 1);
  MUST(bind(any_fd, (void *)&any, sizeof any));
  MUST(listen(any_fd, 5));
  int v6_fd = socket(AF_INET6, SOCK_STREAM, 0), has_v6;
  if (v6_fd >= 0) set(v6_fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  has_v6 = v6_fd >= 0 && bind(v6_fd, (void *)&v6, sizeof v6) == 0 && listen(v6_fd, 5) == 0;
  if (!has_v6) printf("note: no IPv6 here\n");
  unlink(path.sun_path);
  int path_fd = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
  MUST(bind(path_fd, (void *)&path, sizeof path));
  MUST(chmod(path.sun_path, 0623));
  MUST(listen(path_fd, 5));
  int abstract_fd = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
  MUST(bind(abstract_fd, (void *)&abstract, abstract_length));
  MUST(listen(abstract_fd, 5));
  int bound = MUST(socket(AF_INET, SOCK_STREAM, 0)); /* neither connected nor listening */
  struct sockaddr_in free_port = {.sin_family = AF_INET, .sin_port = htons(7009)};
  MUST(bind(bound, (void *)&free_port, sizeof free_port));

  probe_wait();

  if (probe_broken()) MUST(shutdown(v4_fd, SHUT_RDWR));
  CHECK(value_of(v4_fd, SOL_SOCKET, SO_ACCEPTCONN) == 1, "v4: not listening");
  CHECK(value_of(v4_fd, SOL_SOCKET, SO_REUSEADDR) == 1 && value_of(v4_fd, SOL_SOCKET, SO_KEEPALIVE) == 1 &&
            value_of(v4_fd, IPPROTO_TCP, TCP_NODELAY) == 1 && value_of(v4_fd, IPPROTO_TCP, TCP_KEEPIDLE) == 77, "v4: socket options differ");
  MUST(getsockopt(v4_fd, SOL_SOCKET, SO_LINGER, &linger_now, &length));
  CHECK(linger_now.l_onoff == 1 && linger_now.l_linger == 7, "v4: SO_LINGER is %d, %d", linger_now.l_onoff, linger_now.l_linger);
  CHECK(value_of(any_fd, SOL_SOCKET, SO_REUSEPORT) == 1, "SO_REUSEPORT is lost");
  CHECK(fcntl(v4_fd, F_GETFD) == FD_CLOEXEC, "v4: close-on-exec is lost");
  try("v4", v4_fd, (void *)&v4, sizeof v4);
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  try("v4 any", any_fd, (void *)&any, sizeof any);
  if (has_v6) {
    try("v6", v6_fd, (void *)&v6, sizeof v6);
    CHECK(value_of(v6_fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1, "IPV6_V6ONLY is lost");
  }
  try("unix path", path_fd, (void *)&path, sizeof path);
  struct stat status;
  CHECK(stat(path.sun_path, &status) == 0 && S_ISSOCK(status.st_mode) && (status.st_mode & 0777) == 0623, "mode of the socket file");
  try("unix abstract", abstract_fd, (void *)&abstract, abstract_length);
  struct sockaddr_in name;
  length = sizeof name;
  CHECK(getsockname(bound, (void *)&name, &length) == 0 && ntohs(name.sin_port) == 7009, "the bound socket has port %d", ntohs(name.sin_port));
  MUST(listen(bound, 1));
  return probe_result();
}
