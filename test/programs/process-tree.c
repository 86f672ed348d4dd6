/*
 * G06, G08: a process tree (arguments: depth, width of the last level) with its parentage, sessions and process groups; all of
 * it is stopped at one moment: processes hand a token round in shared memory, and none may have missed or repeated a turn.
 */
#include <sched.h>
#include <sys/mman.h>
#include "probe.h"

#define MOST 1024

static struct shared {
  _Atomic long token; /* whose turn it is: token % processes */
  _Atomic int started, ending;
  struct {
    _Atomic long turns;
    pid_t pid, parent, group, session;
  } process[MOST];
} *shared;
static int processes;

/* The turns that a process made and the token are changed by the one process whose turn it is: no snapshot may tear them apart. */
static void play(int me) {
  shared->process[me].pid = getpid();
  shared->process[me].parent = getppid();
  shared->process[me].group = getpgrp();
  shared->process[me].session = getsid(0);
  shared->started++;
  while (!shared->ending) {
    long token = shared->token;
    if (token % processes == me) {
      long turns = shared->process[me].turns;
      if (turns != token / processes) probe_fail("process %d: turn %ld at token %ld", me, turns, token);
      shared->process[me].turns = turns + 1;
      shared->token = token + 1;
    }
    /* Whoever is far from its turn sleeps: 100 processes that spin would measure the scheduler. */
    long distance = (me - shared->token % processes + processes) % processes;
    if (distance > 2) probe_pause(1 + distance / 4);
    else sched_yield();
  }
  CHECK(getpid() == shared->process[me].pid, "process %d: PID %d instead of %d", me, getpid(), shared->process[me].pid);
  CHECK(getppid() == shared->process[me].parent, "process %d: parent %d instead of %d", me, getppid(), shared->process[me].parent);
  CHECK(getpgrp() == shared->process[me].group, "process %d: process group %d", me, getpgrp());
  CHECK(getsid(0) == shared->process[me].session, "process %d: session %d", me, getsid(0));
}

/* Process `me` at `level`; makes the next level below itself, plays, and ends with its children. */
static void grow(int me, int level, int depth, int width) {
  pid_t children[MOST];
  int count = level + 1 < depth ? 1 : level + 1 == depth ? width : 0;
  if (level % 7 == 3) setpgid(0, 0);
  if (level % 7 == 5) setsid();
  for (int c = 0; c < count; c++) {
    children[c] = MUST(fork());
    if (children[c] == 0) {
      grow(me + 1 + c, level + 1, depth, width);
      probe_child_end();
    }
  }
  if (level) play(me);
  else {
    shared->started++;
    shared->process[0].pid = getpid();
    for (int i = 0; i < 3000 && shared->started < processes; i++) probe_pause(10);
    CHECK(shared->started == processes, "%d of %d processes started", shared->started, processes);
    probe_ready();
    while (!probe_gone()) {
      if (shared->token % processes == 0) {
        shared->process[0].turns++;
        shared->token++;
      }
      probe_pause(2);
    }
    if (probe_broken()) shared->process[1].turns--;
    /* Two more rounds: everybody is alive and goes on from where it was. */
    long goal = shared->token + 2 * processes;
    int64_t start = probe_nanoseconds(CLOCK_MONOTONIC);
    while (shared->token < goal && probe_nanoseconds(CLOCK_MONOTONIC) - start < 30000000000LL) {
      if (shared->token % processes == 0) {
        shared->process[0].turns++;
        shared->token++;
      }
      probe_pause(1);
    }
    CHECK(shared->token >= goal, "the token is stuck at process %ld", shared->token % processes);
    shared->ending = 1;
  }
  for (int c = 0; c < count; c++) probe_reap(children[c], "child process");
}

int main(int argc, char **argv) {
  int depth = argc > 1 ? atoi(argv[1]) : 20, width = argc > 2 ? atoi(argv[2]) : 100;
  processes = depth + width;
  if (processes > MOST || depth < 1 || width < 0) return 2;
  shared = MUST(mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  grow(0, 0, depth, width);
  long total = 0;
  for (int i = 0; i < processes; i++) total += shared->process[i].turns;
  CHECK(total == shared->token, "%ld turns were made, the token says %ld", total, (long)shared->token);
  return probe_result();
}
