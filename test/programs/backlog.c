/*
 * R17: what CRIU drops with a warning or not at all: datagrams queued in a UDP socket and connections nobody has accepted yet.
 * The client's end of the latter must not hang for ever: it gets an error or end of file, or goes on.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include "probe.h"

int main(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof address;
  char buffer[100] = "";
  int listener = MUST(socket(AF_INET, SOCK_STREAM, 0)), client = MUST(socket(AF_INET, SOCK_STREAM, 0));
  MUST(bind(listener, (void *)&address, sizeof address));
  MUST(listen(listener, 5));
  MUST(getsockname(listener, (void *)&address, &length));
  MUST(connect(client, (void *)&address, length));
  MUST(write(client, "early", 5));
  probe_wait();
  MUST(fcntl(listener, F_SETFL, O_NONBLOCK));
  int server = accept(listener, NULL, NULL);
  if (server >= 0) {
    CHECK(read(server, buffer, 100) == 5 && !memcmp(buffer, probe_broken() ? "later" : "early", 5), "the waiting connection has other data");
  } else {
    if (probe_broken()) probe_fail("on purpose");
    struct pollfd waiting = {client, POLLIN, 0};
    if (write(client, "more", 4) >= 0) CHECK(poll(&waiting, 1, 10000) == 1, "the client hangs");
  }
  return probe_result();
}
