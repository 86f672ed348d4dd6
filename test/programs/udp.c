/* R17: UDP sockets: bound, connected, broadcast and multicast options; datagrams that were queued are lost or whole, never half. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include "probe.h"

int main(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7101), .sin_addr = {htonl(INADDR_LOOPBACK)}}, peer;
  struct sockaddr_in6 address6 = {.sin6_family = AF_INET6, .sin6_port = htons(7102), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  char buffer[2000], expected[1000];
  int one = 1, value = 0;
  socklen_t length = sizeof value;
  int receiver = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0)), sender = MUST(socket(AF_INET, SOCK_DGRAM, 0));
  MUST(setsockopt(receiver, SOL_SOCKET, SO_BROADCAST, &one, sizeof one));
  MUST(bind(receiver, (void *)&address, sizeof address));
  MUST(connect(sender, (void *)&address, sizeof address));
  int receiver6 = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  int has_v6 = receiver6 >= 0 && bind(receiver6, (void *)&address6, sizeof address6) == 0;
  probe_fill(expected, sizeof expected, 1);
  for (int i = 0; i < 3; i++) MUST(send(sender, expected, 300 + i * 100, 0));

  probe_wait();

  int queued = 0;
  for (ssize_t n; (n = recv(receiver, buffer, sizeof buffer, 0)) >= 0; queued++) {
    CHECK((n == 300 || n == 400 || n == 500) && !memcmp(buffer, expected, n), "a queued datagram of %zd bytes differs", n);
  }
  CHECK(queued <= 3, "%d queued datagrams instead of 3", queued);
  if (probe_broken()) MUST(close(dup2(sender, receiver)));
  MUST(send(sender, "one more", 8, 0));
  probe_pause(5);
  length = sizeof peer;
  CHECK(recvfrom(receiver, buffer, sizeof buffer, 0, (void *)&peer, &length) == 8 && !memcmp(buffer, "one more", 8), "no datagram: %s", strerror(errno));
  length = sizeof value;
  CHECK(getsockopt(receiver, SOL_SOCKET, SO_BROADCAST, &value, &length) == 0 && value == 1, "SO_BROADCAST is lost");
  length = sizeof peer;
  CHECK(getpeername(sender, (void *)&peer, &length) == 0 && peer.sin_port == htons(7101), "the sender is connected elsewhere");
  if (has_v6) {
    int sender6 = MUST(socket(AF_INET6, SOCK_DGRAM, 0));
    MUST(sendto(sender6, "six", 3, 0, (void *)&address6, sizeof address6));
    probe_pause(5);
    CHECK(recv(receiver6, buffer, sizeof buffer, 0) == 3, "IPv6: no datagram: %s", strerror(errno));
  }
  return probe_result();
}
