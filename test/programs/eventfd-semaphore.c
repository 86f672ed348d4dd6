/* R07, R18: an eventfd with EFD_SEMAPHORE: CRIU 4.2 brings it back as an ordinary one; Cairn must say so before freezing anything. */
#include <sys/eventfd.h>
#include "probe.h"

int main(void) {
  uint64_t value;
  int semaphore = MUST(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK));
  probe_wait();
  if (probe_broken()) MUST(read(semaphore, &value, 8));
  for (int i = 0; i < 3; i++) CHECK(read(semaphore, &value, 8) == 8 && value == 1, "read %d of the eventfd semaphore", i);
  CHECK(read(semaphore, &value, 8) < 0 && errno == EAGAIN, "the eventfd semaphore is not empty");
  return probe_result();
}
