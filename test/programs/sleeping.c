/*
 * R14: who sleeps keeps the remaining time: nanosleep, sleep(3), the sleep program, poll and select with a timeout, a timed wait
 * for a condition. Each takes 3 s of its own monotonic time, and no call ends early. Late by as much as the program was not there to be
 * woken is not wrong: its clock already goes on while it is being restored. A ticker measures how long that was.
 *
 * CRIU ends nanosleep and poll that it interrupts with EINTR, as a signal would (docs/findings.md); who is told so goes on sleeping.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/select.h>
#include "probe.h"

static const char *const names[] = {"nanosleep", "nanosleep with a remainder", "sleep", "the sleep program", "poll", "select", "timed wait for a condition"};
#define KINDS 7

static void sleep_3_seconds(int kind) {
  struct timespec three = {3, 0}, left;
  struct timeval timeout = {3, 0};
  struct pollfd none = {-1, 0, 0};
  if (kind == 0) {
    int64_t end = probe_nanoseconds(CLOCK_MONOTONIC) + 3000000000;
    while (nanosleep(&three, NULL) != 0) {
      CHECK(errno == EINTR, "%s: %s", names[kind], strerror(errno));
      int64_t rest = end - probe_nanoseconds(CLOCK_MONOTONIC);
      if (rest <= 0) break;
      three.tv_sec = rest / 1000000000, three.tv_nsec = rest % 1000000000;
    }
  }
  if (kind == 1)
    while (nanosleep(&three, &left) != 0) {
      CHECK(errno == EINTR, "%s: %s", names[kind], strerror(errno));
      int64_t rest = left.tv_sec * 1000000000ll + left.tv_nsec;
      CHECK(rest > 0 && rest <= 3000000000, "%s: %ld ns left", names[kind], (long)rest);
      three = left;
    }
  if (kind == 2)
    for (unsigned rest = 3; rest > 0;) rest = sleep(rest);
  if (kind == 3) CHECK(system("exec sleep 3") == 0, "%s failed", names[kind]);
  if (kind == 4) {
    int64_t end = probe_nanoseconds(CLOCK_MONOTONIC) + 3000000000;
    int result;
    do {
      int64_t rest = end - probe_nanoseconds(CLOCK_MONOTONIC);
      /* A negative timeout would be none at all. */
      result = poll(&none, 1, rest > 0 ? (rest + 999999) / 1000000 : 0);
    } while (result < 0 && errno == EINTR);
    CHECK(result == 0, "%s: %d, %s", names[kind], result, strerror(errno));
  }
  if (kind == 5) {
    int result = select(0, NULL, NULL, NULL, &timeout);
    CHECK(result == 0, "%s: %d, %s", names[kind], result, strerror(errno));
  }
  if (kind == 6) {
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&condition, &attributes);
    clock_gettime(CLOCK_MONOTONIC, &three);
    three.tv_sec += 3;
    pthread_mutex_lock(&mutex);
    int result = pthread_cond_timedwait(&condition, &mutex, &three);
    CHECK(result == ETIMEDOUT, "%s: %s", names[kind], strerror(result));
  }
}

/* Adds up, in *absent, the milliseconds that lie between two ticks that should follow at once. */
static void tick(volatile long *absent) {
  struct timespec millisecond = {0, 1000000};
  for (int64_t last = probe_nanoseconds(CLOCK_MONOTONIC);;) {
    nanosleep(&millisecond, NULL);
    int64_t now = probe_nanoseconds(CLOCK_MONOTONIC);
    if (now - last > 20000000) *absent += (now - last) / 1000000;
    last = now;
  }
}

int main(void) {
  pid_t children[KINDS];
  volatile long *absent = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (absent == MAP_FAILED) return 2;
  pid_t ticker = MUST(fork());
  if (ticker == 0) tick(absent);
  for (int kind = 0; kind < KINDS; kind++) {
    children[kind] = MUST(fork());
    if (children[kind] == 0) {
      int64_t start = probe_nanoseconds(CLOCK_MONOTONIC);
      sleep_3_seconds(kind);
      long slept = (probe_nanoseconds(CLOCK_MONOTONIC) - start) / 1000000;
      if (probe_broken()) slept /= 2;
      /* 400 ms for the scheduler of a busy machine: less than half a second passes between the start and the checkpoint at the least. */
      /* sleep(3) tells whole seconds only: half of one is lost or won at each interruption. */
      long late = 400 + *absent + (kind == 2 ? 1200 : 0), early = kind == 2 ? 1200 : kind == 1 ? 1500 : 5;
      CHECK(slept >= 3000 - early && slept < 3000 + late, "%s: %ld ms instead of 3000, absent for %ld", names[kind], slept, *absent);
      probe_child_end();
    }
  }
  probe_pause(500);
  probe_wait();
  for (int kind = 0; kind < KINDS; kind++) probe_reap(children[kind], names[kind]);
  kill(ticker, SIGKILL);
  waitpid(ticker, NULL, 0);
  return probe_result();
}
