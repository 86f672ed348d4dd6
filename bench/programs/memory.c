// A program with MIB mebibytes of random memory that notices when it is stopped.
//
//   memory MIB
//
// Every millisecond it looks at the wall clock (which goes on while it is stopped, or gone until a restart); a gap of more than 20 ms is written to standard output as "gap MILLISECONDS".
// SIGUSR1: all memory is filled anew, then "filled". SIGUSR2: one page in a hundred is changed, then "changed WINDOWS", the
// number of 64 KiB windows with at least one changed page. A filled memory has no two equal pages.
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static volatile sig_atomic_t wanted;
static uint64_t state = 88172645463325252ull;

static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void on_signal(int signal) { wanted = signal; }

int main(int argc, char **argv) {
  size_t bytes = (size_t)atoi(argc > 1 ? argv[1] : "64") << 20;
  size_t pages = bytes / 4096, windows = bytes / 65536;
  uint64_t *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  unsigned char *touched = calloc(windows, 1);
  if (memory == MAP_FAILED || touched == 0) return 1;
  setvbuf(stdout, 0, _IOLBF, 0);
  signal(SIGUSR1, on_signal);
  signal(SIGUSR2, on_signal);
  state ^= (uint64_t)time(0) << 20;
  for (size_t i = 0; i < bytes / 8; i++) memory[i] = next();
  puts("ready");
  double last = now();
  for (;;) {
    struct timespec millisecond = {0, 1000000};
    nanosleep(&millisecond, 0);
    double t = now();
    if (t - last > 20) printf("gap %.1f\n", t - last);
    if (wanted == SIGUSR1) {
      wanted = 0;
      for (size_t i = 0; i < bytes / 8; i++) memory[i] = next();
      puts("filled");
      t = now();
    } else if (wanted == SIGUSR2) {
      wanted = 0;
      size_t count = 0;
      for (size_t i = 0; i < windows; i++) touched[i] = 0;
      for (size_t i = 0; i < pages / 100; i++) {
        size_t page = next() % pages;
        memory[page * 512 + next() % 512] = next();
        count += !touched[page / 16];
        touched[page / 16] = 1;
      }
      printf("changed %zu\n", count);
      t = now();
    }
    last = t;
  }
}
