/* R04: 64 threads keep their thread-local storage, TID, name, signal mask, robust mutex and place on a condition variable. */
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "probe.h"

#define THREADS 64

static __thread uint64_t local[64];
static __thread char initialised[16] = "initial value";
static pthread_key_t key;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, robust;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static int released, awake;

static void *run(void *argument) {
  long index = (long)argument;
  char name[16], found[16] = "";
  snprintf(name, sizeof name, "probe-%ld", index);
  probe_fill(local, sizeof local, index);
  initialised[0] = 'a' + index % 26;
  pthread_setspecific(key, (void *)(index * 7 + 1));
  prctl(PR_SET_NAME, name);
  pid_t tid = syscall(SYS_gettid);
  sigset_t mask, mask_now;
  sigemptyset(&mask);
  sigaddset(&mask, SIGRTMIN + index % 20);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  void *address = local;
  errno = (int)index;
  pthread_barrier_wait(&barrier);

  pthread_mutex_lock(&mutex);
  while (!released) pthread_cond_wait(&condition, &mutex);
  awake++;
  pthread_mutex_unlock(&mutex);

  if (probe_broken() && index == 5) local[7] ^= 1;
  CHECK((void *)local == address, "thread %ld: its thread-local storage moved", index);
  CHECK(probe_compare(local, sizeof local, index) < 0, "thread %ld: its thread-local storage differs", index);
  CHECK(initialised[0] == 'a' + index % 26 && !strcmp(initialised + 1, "nitial value"), "thread %ld: '%s'", index, initialised);
  CHECK(pthread_getspecific(key) == (void *)(index * 7 + 1), "thread %ld: pthread_getspecific differs", index);
  CHECK(syscall(SYS_gettid) == tid, "thread %ld: TID %ld instead of %d", index, syscall(SYS_gettid), tid);
  prctl(PR_GET_NAME, found);
  CHECK(!strcmp(name, found), "thread %ld: name '%s' instead of '%s'", index, found, name);
  pthread_sigmask(SIG_SETMASK, NULL, &mask_now);
  for (int signal = 1; signal < 64; signal++) {
    CHECK(sigismember(&mask, signal) == sigismember(&mask_now, signal), "thread %ld: mask of signal %d", index, signal);
  }
  /* The holder of the robust mutex is alive; its list of them is found through a pointer in the thread (set_robust_list). */
  if (index == 0) CHECK(pthread_mutex_trylock(&robust) == EBUSY, "the robust mutex was not locked");
  return NULL;
}

static void *hold_robust(void *argument) {
  pthread_mutex_lock(&robust);
  pthread_barrier_wait(&barrier);
  probe_wait_quietly();
  while (!__atomic_load_n((int *)argument, __ATOMIC_SEQ_CST)) probe_pause(5);
  return NULL; /* without unlocking */
}

int main(void) {
  pthread_t threads[THREADS], holder;
  pthread_mutexattr_t attributes;
  int end_holder = 0;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&robust, &attributes);
  pthread_key_create(&key, NULL);
  pthread_barrier_init(&barrier, NULL, THREADS + 2);
  pthread_create(&holder, NULL, hold_robust, &end_holder);
  for (long i = 0; i < THREADS; i++) MUST(-(pthread_create(&threads[i], NULL, run, (void *)i) != 0));
  pthread_barrier_wait(&barrier);
  probe_wait();
  pthread_mutex_lock(&mutex);
  released = 1;
  pthread_cond_broadcast(&condition);
  pthread_mutex_unlock(&mutex);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  CHECK(awake == THREADS, "%d threads woke up instead of %d", awake, THREADS);
  __atomic_store_n(&end_holder, 1, __ATOMIC_SEQ_CST);
  pthread_join(holder, NULL);
  CHECK(pthread_mutex_lock(&robust) == EOWNERDEAD, "the death of the owner of a robust mutex went unnoticed");
  return probe_result();
}
