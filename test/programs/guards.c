/* R06: guard pages that are no mappings of their own (MADV_GUARD_INSTALL) are still guards, and the pages around them still have their content. */
#include <setjmp.h>
#include <sys/mman.h>
#include "probe.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#define PAGES 4096
#define PAGE 4096

static sigjmp_buf back;

static void on_fault(int signal) {
  (void)signal;
  siglongjmp(back, 1);
}

static int is_guard(int page) { return page % 7 == 3; }

int main(void) {
  unsigned char *memory = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  for (int page = 0; page < PAGES; page++) probe_fill(memory + page * PAGE, PAGE, page + 1);
  for (int page = 0; page < PAGES; page++)
    if (is_guard(page) && madvise(memory + page * PAGE, PAGE, MADV_GUARD_INSTALL) != 0) {
      if (errno == EINVAL) probe_skip("this kernel has no guard pages (madvise: %s)", strerror(errno));
      probe_die("madvise(MADV_GUARD_INSTALL)");
    }
  probe_wait();
  signal(SIGSEGV, on_fault);
  if (probe_broken()) memory[5 * PAGE] ^= 1;
  static unsigned char expected[PAGE];
  for (volatile int page = 0; page < PAGES; page++) {
    if (is_guard(page)) {
      if (sigsetjmp(back, 1) == 0) {
        volatile unsigned char byte = memory[page * PAGE];
        probe_fail("page %d is no guard any more: it holds %d", page, byte);
      }
      continue;
    }
    probe_fill(expected, PAGE, page + 1);
    CHECK(memcmp(memory + page * PAGE, expected, PAGE) == 0, "page %d differs", page);
  }
  return probe_result();
}
