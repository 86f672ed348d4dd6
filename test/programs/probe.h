/*
 * Every probe has one shape: set up, probe_wait() (the checkpoint happens here), verify everything, return probe_result().
 *
 *   stdout   "ready" once set up; at the end "PASS", "FAIL: what differed" (one line for each) or "SKIP: reason"
 *   exit     0 passed, 1 failed, 77 skipped
 *   PROBE_GO     the file whose appearance ends the wait
 *   PROBE_BREAK  set: the probe spoils what it is about to check, and must fail (shows that it can)
 *   PROBE_BALLAST  MiB of memory that the probe has besides, and checks at the end: large processes are saved in another way
 */
#ifndef PROBE_H
#define PROBE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Seconds after which a probe gives up waiting for its go file, so that none is left behind. */
#define PROBE_PATIENCE 180

static int probe_failures;

/* One write(2) for each line, so that lines of several processes do not mix. */
static inline void probe_say(const char *prefix, const char *format, va_list arguments) {
  char line[1024];
  int length = snprintf(line, sizeof line, "%s", prefix);
  length += vsnprintf(line + length, sizeof line - length - 1, format, arguments);
  if (length > (int)sizeof line - 2) length = sizeof line - 2;
  line[length++] = '\n';
  if (write(1, line, length) < 0) _exit(3);
}

__attribute__((format(printf, 1, 2))) static inline void probe_fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  __atomic_add_fetch(&probe_failures, 1, __ATOMIC_SEQ_CST);
  probe_say("FAIL: ", format, arguments);
  va_end(arguments);
}

__attribute__((format(printf, 1, 2), noreturn)) static inline void probe_skip(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  probe_say("SKIP: ", format, arguments);
  va_end(arguments);
  exit(77);
}

/* A failure of the set-up is a failure of the probe: it never counts as passed or skipped. */
__attribute__((noreturn)) static inline void probe_die(const char *what) {
  probe_fail("%s: %s (errno %d)", what, strerror(errno), errno);
  _exit(1);
}

#define CHECK(condition, ...) ((condition) ? (void)0 : probe_fail(__VA_ARGS__))

/* Evaluates a call once; ends the probe where it returns -1. */
#define MUST(call) \
  ({ \
    __typeof__(call) probe_value = (call); \
    if ((long)probe_value == -1) probe_die(#call); \
    probe_value; \
  })

static inline int probe_broken(void) { return getenv("PROBE_BREAK") != NULL; }

static inline void probe_pause(long milliseconds) {
  struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  while (nanosleep(&left, &left) < 0 && errno == EINTR) {
  }
}

static inline int probe_gone(void) {
  const char *go = getenv("PROBE_GO");
  return access(go ? go : "/probe/go", F_OK) == 0;
}

/* For the other processes of a probe: waits as probe_wait() does, without a word. */
static inline void probe_wait_quietly(void) {
  for (int i = 0; i < PROBE_PATIENCE * 50; i++) {
    if (probe_gone()) return;
    probe_pause(20);
  }
  probe_fail("no go file within %d s", PROBE_PATIENCE);
  _exit(1);
}

static inline void probe_ready(void) {
  fflush(stdout);
  if (write(1, "ready\n", 6) != 6) probe_die("write to stdout");
}

/* The checkpoint happens here. */
static inline void probe_wait(void) {
  probe_ready();
  probe_wait_quietly();
}

/* Ends a child process of a probe; the parent adds it up with probe_reap(). */
__attribute__((noreturn)) static inline void probe_child_end(void) { _exit(probe_failures ? 1 : 0); }

static inline void probe_reap(pid_t pid, const char *what) {
  int status;
  if (waitpid(pid, &status, 0) != pid) {
    probe_fail("%s: waitpid: %s", what, strerror(errno));
  } else if (status != 0) {
    probe_fail("%s: wait status 0x%x instead of 0", what, status);
  }
}

/* xorshift64*: cheap content that does not compress and that a seed reproduces. */
static inline uint64_t probe_random(uint64_t *state) {
  uint64_t x = *state;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  *state = x;
  return x * 0x2545F4914F6CDD1DULL;
}

static inline void probe_fill(void *memory, size_t bytes, uint64_t seed) {
  uint64_t state = seed * 2 + 1, *words = memory;
  for (size_t i = 0; i < bytes / 8; i++) words[i] = probe_random(&state);
}

/* The offset of the first difference to what probe_fill() wrote, or -1. */
static inline long probe_compare(const void *memory, size_t bytes, uint64_t seed) {
  uint64_t state = seed * 2 + 1;
  const uint64_t *words = memory;
  for (size_t i = 0; i < bytes / 8; i++) {
    if (words[i] != probe_random(&state)) return (long)(i * 8);
  }
  return -1;
}

static unsigned char *probe_ballast;
static size_t probe_ballast_bytes;

__attribute__((constructor)) static void probe_take_ballast(void) {
  const char *mebibytes = getenv("PROBE_BALLAST");
  if (mebibytes == NULL) return;
  probe_ballast_bytes = (size_t)atoi(mebibytes) << 20;
  probe_ballast = malloc(probe_ballast_bytes);
  if (probe_ballast == NULL) probe_die("ballast");
  probe_fill(probe_ballast, probe_ballast_bytes, 4711);
}

static inline int probe_result(void) {
  if (probe_ballast != NULL) {
    if (probe_broken()) probe_ballast[probe_ballast_bytes / 2] ^= 1;
    long offset = probe_compare(probe_ballast, probe_ballast_bytes, 4711);
    CHECK(offset < 0, "the ballast differs at byte %ld", offset);
  }
  if (probe_failures) return 1;
  if (write(1, "PASS\n", 5) != 5) return 1;
  return 0;
}

static inline int64_t probe_nanoseconds(clockid_t clock) {
  struct timespec now;
  MUST(clock_gettime(clock, &now));
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

#endif
