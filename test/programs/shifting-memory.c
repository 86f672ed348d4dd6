/*
 * R06: memory that comes, goes, moves and is written all the time, in between and while it is saved: mmap, munmap, mremap, mprotect, MADV_DONTNEED;
 * and children that have it, too.
 * Every page is at any time what the program last made it.
 */
#include <sys/mman.h>
#include "probe.h"

#define REGIONS 96
#define PAGES 256
#define PAGE 4096

static unsigned char *place[REGIONS];
/* Of each page: what it was filled with; 0 for zeros. */
static uint32_t seed[REGIONS][PAGES];
static uint64_t randomness;

static void write_page(int region, int page) {
  seed[region][page] = (uint32_t)probe_random(&randomness) | 1;
  probe_fill(place[region] + page * PAGE, PAGE, seed[region][page]);
}

static void map_region(int region) {
  place[region] = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  memset(seed[region], 0, sizeof seed[region]);
}

static void check_page(int region, int page) {
  static const unsigned char zeros[PAGE];
  const unsigned char *bytes = place[region] + page * PAGE;
  if (seed[region][page] == 0) CHECK(memcmp(bytes, zeros, PAGE) == 0, "page %d of region %d is not empty", page, region);
  else CHECK(probe_compare(bytes, PAGE, seed[region][page]) < 0, "page %d of region %d differs", page, region);
}

static void change(void) {
  int region = (int)(probe_random(&randomness) % REGIONS), first = (int)(probe_random(&randomness) % PAGES);
  int count = 1 + (int)(probe_random(&randomness) % 32);
  if (first + count > PAGES) count = PAGES - first;
  unsigned char *at = place[region] + first * PAGE;
  switch (probe_random(&randomness) % 8) {
    case 0: /* gone, and another one somewhere */
      MUST(munmap(place[region], PAGES * PAGE));
      map_region(region);
      for (int page = 0; page < PAGES; page += 2) write_page(region, page);
      break;
    case 1: /* moved */
      place[region] = MUST(mremap(place[region], PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
                                  MUST(mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))));
      break;
    case 2: /* emptied */
      MUST(madvise(at, (size_t)count * PAGE, MADV_DONTNEED));
      memset(&seed[region][first], 0, (size_t)count * sizeof seed[0][0]);
      break;
    case 3: /* read-only for a while; as a whole, because mappings that are two when they are saved stay two, and mremap refuses both at once */
      MUST(mprotect(place[region], PAGES * PAGE, PROT_READ));
      for (int page = first; page < first + count; page++) check_page(region, page);
      MUST(mprotect(place[region], PAGES * PAGE, PROT_READ | PROT_WRITE));
      break;
    default:
      for (int page = first; page < first + count; page++) write_page(region, page);
  }
}

static void check_region(int region) {
  for (int page = 0; page < PAGES; page++) check_page(region, page);
}

/* A child that looks at some of it, after the parent has gone on. */
static void fork_and_check(void) {
  int first = (int)(probe_random(&randomness) % REGIONS);
  pid_t child = MUST(fork());
  if (child == 0) {
    for (int i = 0; i < 8; i++) check_region((first + i * 11) % REGIONS);
    probe_child_end();
  }
  for (int i = 0; i < 20; i++) change();
  probe_reap(child, "a child");
}

int main(void) {
  randomness = (uint64_t)time(NULL) * 2 + 1;
  uint64_t first = randomness;
  for (int region = 0; region < REGIONS; region++) {
    map_region(region);
    for (int page = 0; page < PAGES; page++) write_page(region, page);
  }
  probe_ready();
  time_t end = time(NULL) + PROBE_PATIENCE;
  while (!probe_gone() && probe_failures == 0) {
    for (int i = 0; i < 50; i++) change();
    check_region((int)(probe_random(&randomness) % REGIONS));
    if (probe_random(&randomness) % 4 == 0) fork_and_check();
    if (time(NULL) > end) probe_fail("no go file within %d s", PROBE_PATIENCE);
  }
  if (probe_broken()) place[7][5 * PAGE] ^= 1;
  for (int region = 0; region < REGIONS && probe_failures < 10; region++) check_region(region);
  if (probe_failures) probe_fail("seed %llu", (unsigned long long)first);
  return probe_result();
}
