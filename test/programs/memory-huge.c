/* R06: huge pages: private, shared with a child, and a memfd of them. */
#include <sys/mman.h>
#include "probe.h"

#define HUGE (2UL << 20)

int main(void) {
  char *own = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (own == MAP_FAILED) probe_skip("no huge pages on this host (%s); sysctl vm.nr_hugepages=16 gives some", strerror(errno));
  char *shared = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  int fd = memfd_create("probe-huge", MFD_HUGETLB);
  if (shared == MAP_FAILED || fd < 0 || ftruncate(fd, HUGE) < 0) probe_skip("fewer than 4 huge pages free");
  char *file = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (file == MAP_FAILED) probe_skip("fewer than 4 huge pages free");
  probe_fill(own, 2 * HUGE, 1);
  probe_fill(shared, HUGE, 2);
  probe_fill(file, HUGE, 3);
  pid_t child = MUST(fork());
  if (child == 0) {
    probe_wait_quietly();
    CHECK(probe_compare(own, 2 * HUGE, 1) < 0, "child: private huge pages differ");
    shared[17] ^= 1;
    probe_child_end();
  }
  probe_wait();
  if (probe_broken()) own[HUGE] ^= 1;
  probe_reap(child, "child");
  shared[17] ^= 1;
  CHECK(probe_compare(own, 2 * HUGE, 1) < 0, "private huge pages differ");
  CHECK(probe_compare(shared, HUGE, 2) < 0, "shared huge pages differ");
  CHECK(probe_compare(file, HUGE, 3) < 0, "memfd of huge pages differs");
  return probe_result();
}
