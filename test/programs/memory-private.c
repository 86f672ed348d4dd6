/*
 * R06: private memory: random, zero and untouched pages, protections, guard pages, a deep stack, madvise flags, a grow-down
 * mapping, memory locked and shared between parent and children by copy-on-write.
 */
#include <setjmp.h>
#include <sys/mman.h>
#include "probe.h"

#define MIB (1UL << 20)

static sigjmp_buf escape;
static void on_fault(int signal) { siglongjmp(escape, signal); }

/* 'r' readable, 'w' writable, by trying. */
static int allowed(volatile char *address, int write) {
  if (sigsetjmp(escape, 1)) return 0;
  char value = *address;
  if (write) *address = value;
  return 1;
}

/* Uses 4 MiB of stack in frames of 16 KiB, waits at the bottom, and looks at every frame on the way back. */
static void deep(int depth, void (*at_the_bottom)(void)) {
  uint64_t frame[2048];
  probe_fill(frame, sizeof frame, depth);
  if (depth == 0) {
    at_the_bottom();
  } else {
    deep(depth - 1, at_the_bottom);
  }
  CHECK(probe_compare(frame, sizeof frame, depth) < 0, "stack frame at depth %d differs", depth);
}

static const char *smaps_flags(const void *address) {
  static char line[512], flags[512];
  FILE *file = fopen("/proc/self/smaps", "r");
  char start[32];
  int found = 0;
  flags[0] = 0;
  snprintf(start, sizeof start, "%lx-", (unsigned long)address);
  while (file && fgets(line, sizeof line, file)) {
    if (!strncmp(line, start, strlen(start))) found = 1;
    if (found && !strncmp(line, "VmFlags:", 8)) {
      strcpy(flags, line);
      break;
    }
  }
  if (file) fclose(file);
  return flags;
}

static size_t resident(void *address, size_t bytes) {
  unsigned char *pages = calloc(1, bytes / 4096);
  size_t count = 0;
  MUST(mincore(address, bytes, pages));
  for (size_t i = 0; i < bytes / 4096; i++) count += pages[i] & 1;
  free(pages);
  return count;
}

static char *map(size_t bytes, int flags) {
  return MUST(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0));
}

static pid_t children[3];
static char *cow;

static void wait_with_children(void) {
  /* Three children share 8 MiB with the parent and each changes its own 16 pages. */
  for (int c = 0; c < 3; c++) {
    children[c] = MUST(fork());
    if (children[c] == 0) {
      for (int page = 0; page < 16; page++) probe_fill(cow + (c * 100 + page * 3) * 4096, 4096, 7000 + c);
      probe_wait_quietly();
      for (size_t page = 0; page < 8 * MIB / 4096; page++) {
        int own = 0;
        for (int mine = 0; mine < 16; mine++) own |= page == (size_t)(c * 100 + mine * 3);
        CHECK(probe_compare(cow + page * 4096, 4096, own ? 7000UL + c : 5000 + page) < 0, "child %d: page %zu differs", c, page);
      }
      probe_child_end();
    }
  }
  probe_pause(50);
  char *heap_end = sbrk(0);
  probe_wait();
  CHECK(sbrk(4096) == heap_end, "the break is not where it was");
}

int main(void) {
  signal(SIGSEGV, on_fault);
  signal(SIGBUS, on_fault);
  char *random = map(16 * MIB, 0);
  probe_fill(random, 16 * MIB, 1);
  /* Every second page is zero although it was written; the last MiB was never touched. */
  char *zeros = map(4 * MIB, 0);
  for (size_t page = 0; page < 3 * MIB / 4096; page++) {
    if (page % 2) probe_fill(zeros + page * 4096, 4096, page);
    else memset(zeros + page * 4096, 0, 4096);
  }
  char *protected = map(16 * 4096, 0);
  probe_fill(protected, 16 * 4096, 2);
  MUST(mprotect(protected + 4096, 4096, PROT_READ));
  MUST(mprotect(protected + 3 * 4096, 4096, PROT_NONE));
  MUST(mprotect(protected + 5 * 4096, 4096, PROT_READ | PROT_EXEC));
  char *advised = map(4 * MIB, 0);
  MUST(madvise(advised, 4 * MIB, MADV_DONTFORK));
  MUST(madvise(advised, 4 * MIB, MADV_DONTDUMP));
  probe_fill(advised, 4 * MIB, 3);
  char *wiped = map(MIB, 0);
  MUST(madvise(wiped, MIB, MADV_WIPEONFORK));
  probe_fill(wiped, MIB, 4);
  char *huge = map(8 * MIB, 0);
  int has_thp = madvise(huge, 8 * MIB, MADV_HUGEPAGE) == 0;
  probe_fill(huge, 8 * MIB, 5);
  char *dropped = map(4 * MIB, 0);
  probe_fill(dropped, 4 * MIB, 6);
  MUST(madvise(dropped + MIB, MIB, MADV_DONTNEED));
  char *grows = map(MIB, MAP_GROWSDOWN | MAP_STACK);
  probe_fill(grows, MIB, 8);
  char *locked = map(64 * 4096, 0);
  int is_locked = mlock(locked, 64 * 4096) == 0;
  probe_fill(locked, 64 * 4096, 9);
  char *no_reserve = map(1UL << 32, MAP_NORESERVE);
  probe_fill(no_reserve + (3UL << 30), 4096, 10);
  char *moved = mremap(map(2 * MIB, 0), 2 * MIB, 3 * MIB, MREMAP_MAYMOVE);
  probe_fill(moved, 3 * MIB, 11);
  char *heap = sbrk(MIB);
  probe_fill(heap, MIB, 12);
  cow = map(8 * MIB, 0);
  for (size_t page = 0; page < 8 * MIB / 4096; page++) probe_fill(cow + page * 4096, 4096, 5000 + page);

  deep(256, wait_with_children);

  if (probe_broken()) random[12345678] ^= 1;
  CHECK(probe_compare(random, 16 * MIB, 1) < 0, "random memory differs at %ld", probe_compare(random, 16 * MIB, 1));
  for (size_t page = 0; page < 3 * MIB / 4096; page++) {
    if (page % 2) CHECK(probe_compare(zeros + page * 4096, 4096, page) < 0, "page %zu between zero pages differs", page);
  }
  CHECK(resident(zeros + 3 * MIB, MIB) == 0, "untouched pages have become resident");
  for (size_t i = 0; i < 4 * MIB; i++) {
    if ((i / 4096 % 2 == 0 || i >= 3 * MIB) && zeros[i]) {
      probe_fail("zero page has %d at %zu", zeros[i], i);
      break;
    }
  }
  CHECK(allowed(protected, 1) && allowed(protected + 4096, 0) && !allowed(protected + 4096, 1), "read-only page");
  CHECK(!allowed(protected + 3 * 4096, 0) && allowed(protected + 2 * 4096, 1), "page without access");
  MUST(mprotect(protected, 16 * 4096, PROT_READ | PROT_WRITE));
  CHECK(probe_compare(protected, 16 * 4096, 2) < 0, "protected pages differ");
  CHECK(probe_compare(advised, 4 * MIB, 3) < 0, "MADV_DONTFORK, MADV_DONTDUMP pages differ");
  CHECK(strstr(smaps_flags(advised), " dc") && strstr(smaps_flags(advised), " dd"), "flags lost: %s", smaps_flags(advised));
  CHECK(probe_compare(wiped, MIB, 4) < 0, "MADV_WIPEONFORK pages differ");
  CHECK(strstr(smaps_flags(wiped), " wf"), "MADV_WIPEONFORK lost: %s", smaps_flags(wiped));
  CHECK(probe_compare(huge, 8 * MIB, 5) < 0, "MADV_HUGEPAGE pages differ");
  CHECK(!has_thp || strstr(smaps_flags(huge), " hg"), "MADV_HUGEPAGE lost: %s", smaps_flags(huge));
  CHECK(probe_compare(dropped, MIB, 6) < 0, "pages before the dropped ones differ");
  for (size_t i = MIB; i < 2 * MIB; i++) {
    if (dropped[i]) {
      probe_fail("dropped page came back at %zu", i);
      break;
    }
  }
  CHECK(probe_compare(grows, MIB, 8) < 0, "grow-down pages differ");
  CHECK(strstr(smaps_flags(grows), " gd"), "MAP_GROWSDOWN lost: %s", smaps_flags(grows));
  CHECK(probe_compare(locked, 64 * 4096, 9) < 0, "locked pages differ");
  CHECK(!is_locked || strstr(smaps_flags(locked), " lo"), "mlock lost: %s", smaps_flags(locked));
  CHECK(probe_compare(no_reserve + (3UL << 30), 4096, 10) < 0, "page in a sparse mapping of 4 GiB differs");
  CHECK(no_reserve[0] == 0 && no_reserve[(1UL << 32) - 1] == 0, "sparse mapping");
  CHECK(probe_compare(moved, 3 * MIB, 11) < 0, "remapped memory differs");
  CHECK(probe_compare(heap, MIB, 12) < 0, "heap differs");
  for (int c = 0; c < 3; c++) probe_reap(children[c], "child with copy-on-write memory");
  for (size_t page = 0; page < 8 * MIB / 4096; page++) {
    CHECK(probe_compare(cow + page * 4096, 4096, 5000 + page) < 0, "parent: copy-on-write page %zu differs", page);
  }
  return probe_result();
}
