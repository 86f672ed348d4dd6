/* R13, R18: a pipe in packet mode (O_DIRECT): CRIU does not save it; Cairn must say so before freezing anything. */
#include "probe.h"

int main(void) {
  int packets[2];
  char buffer[100];
  MUST(pipe2(packets, O_DIRECT));
  MUST(write(packets[1], "first", 5));
  MUST(write(packets[1], "second", 6));
  probe_wait();
  CHECK(read(packets[0], buffer, 100) == (probe_broken() ? 6 : 5) && !memcmp(buffer, "first", 5), "first packet differs");
  CHECK(read(packets[0], buffer, 100) == 6 && !memcmp(buffer, "second", 6), "second packet differs");
  return probe_result();
}
