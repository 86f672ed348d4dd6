/*
 * R06: memory that comes, goes, moves and is written all the time, in between and while it is saved: mmap, munmap, mremap, mprotect, MADV_DONTNEED;
 * and children that have it, too. With an argument so many threads do it at once, each with regions of its own.
 * Every page is at any time what the program last made it.
 */
#include <pthread.h>
#include <sys/mman.h>
#include "probe.h"

#define MOST_REGIONS 96
#define PAGES 256
#define PAGE 4096

static int REGIONS = MOST_REGIONS;
static __thread unsigned char *place[MOST_REGIONS];
/* Of each page: what it was filled with; 0 for zeros. */
static __thread uint32_t seed[MOST_REGIONS][PAGES];
static __thread uint64_t randomness;
static uint64_t first_seed;
static int readers_ready;

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

/* One thread's life; the first of them is `main`. */
static void *live(void *number) {
  randomness = first_seed + 2 * (uintptr_t)number;
  for (int region = 0; region < REGIONS; region++) {
    map_region(region);
    for (int page = 0; page < PAGES; page++) write_page(region, page);
  }
  __atomic_add_fetch(&readers_ready, 1, __ATOMIC_SEQ_CST);
  time_t end = time(NULL) + PROBE_PATIENCE;
  while (!probe_gone() && probe_failures == 0) {
    for (int i = 0; i < 50; i++) change();
    check_region((int)(probe_random(&randomness) % REGIONS));
    if (number == NULL && probe_random(&randomness) % 4 == 0) fork_and_check();
    if (time(NULL) > end) probe_fail("no go file within %d s", PROBE_PATIENCE);
  }
  if (number == NULL && probe_broken()) place[7][5 * PAGE] ^= 1;
  for (int region = 0; region < REGIONS && probe_failures < 10; region++) check_region(region);
  return NULL;
}

static void *say_ready(void *threads) {
  while (__atomic_load_n(&readers_ready, __ATOMIC_SEQ_CST) < (int)(uintptr_t)threads) probe_pause(10);
  probe_ready();
  return NULL;
}

int main(int count, char **arguments) {
  uintptr_t threads = count > 1 ? (uintptr_t)atoi(arguments[1]) : 1;
  pthread_t others[16], speaker;
  REGIONS = MOST_REGIONS / (int)threads;
  first_seed = (uint64_t)time(NULL) * 64 + 1;
  if (pthread_create(&speaker, NULL, say_ready, (void *)threads) != 0) probe_die("pthread_create");
  for (uintptr_t i = 1; i < threads; i++)
    if (pthread_create(&others[i], NULL, live, (void *)i) != 0) probe_die("pthread_create");
  live(NULL);
  for (uintptr_t i = 1; i < threads; i++) pthread_join(others[i], NULL);
  pthread_join(speaker, NULL);
  if (probe_failures) probe_fail("seed %llu", (unsigned long long)first_seed);
  return probe_result();
}
