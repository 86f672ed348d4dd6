/*
 * R14: who sleeps keeps the remaining time: nanosleep, sleep(3), the sleep program, poll and select with a timeout, a timed wait
 * for a condition. Each takes 3 s of its own monotonic time, and no call ends early.
 */
#include <poll.h>
#include <pthread.h>
#include <sys/select.h>
#include "probe.h"

static const char *const names[] = {"nanosleep", "nanosleep with a remainder", "sleep", "the sleep program", "poll", "select", "timed wait for a condition"};
#define KINDS 7

static void sleep_3_seconds(int kind) {
  struct timespec three = {3, 0}, left;
  struct timeval timeout = {3, 0};
  struct pollfd none = {-1, 0, 0};
  if (kind == 0) CHECK(nanosleep(&three, NULL) == 0, "%s: %s", names[kind], strerror(errno));
  if (kind == 1) CHECK(nanosleep(&three, &left) == 0, "%s: %s", names[kind], strerror(errno));
  if (kind == 2) {
    unsigned rest = sleep(3);
    CHECK(rest == 0, "%s: %u s left", names[kind], rest);
  }
  if (kind == 3) CHECK(system("exec sleep 3") == 0, "%s failed", names[kind]);
  if (kind == 4) {
    int result = poll(&none, 1, 3000);
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

int main(void) {
  pid_t children[KINDS];
  for (int kind = 0; kind < KINDS; kind++) {
    children[kind] = MUST(fork());
    if (children[kind] == 0) {
      int64_t start = probe_nanoseconds(CLOCK_MONOTONIC);
      sleep_3_seconds(kind);
      long slept = (probe_nanoseconds(CLOCK_MONOTONIC) - start) / 1000000;
      if (probe_broken()) slept /= 2;
      /* 400 ms for the scheduler of a busy machine: less than half a second passes between the start and the checkpoint at the least. */
      CHECK(slept >= 2995 && slept < 3400, "%s: %ld ms instead of 3000", names[kind], slept);
      probe_child_end();
    }
  }
  probe_pause(500);
  probe_wait();
  for (int kind = 0; kind < KINDS; kind++) probe_reap(children[kind], names[kind]);
  return probe_result();
}
