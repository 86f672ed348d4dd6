/* R16: POSIX shared memory (named and unlinked), named and unnamed semaphores with waiting processes, process-shared mutexes. */
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include "probe.h"

#define SIZE (2UL << 20)

struct room {
  sem_t semaphore;
  pthread_mutex_t mutex;
  pthread_cond_t condition;
  int turn;
};

int main(void) {
  int named = MUST(shm_open("/probe-named", O_RDWR | O_CREAT, 0600)), gone = MUST(shm_open("/probe-gone", O_RDWR | O_CREAT, 0600));
  MUST(ftruncate(named, SIZE));
  MUST(ftruncate(gone, SIZE));
  char *memory = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, named, 0));
  char *unlinked = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, gone, 0));
  MUST(shm_unlink("/probe-gone"));
  probe_fill(memory, SIZE, 1);
  probe_fill(unlinked, SIZE, 2);
  int unmapped = MUST(shm_open("/probe-unmapped", O_RDWR | O_CREAT, 0640)); /* a file that nobody has open */
  if (write(unmapped, "still here", 10) != 10) probe_die("write");
  close(unmapped);
  sem_t *semaphore = sem_open("/probe-semaphore", O_CREAT, 0600, 2);
  if (semaphore == SEM_FAILED) probe_die("sem_open");
  MUST(sem_wait(semaphore));
  struct room *room = MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  MUST(sem_init(&room->semaphore, 1, 0));
  pthread_mutexattr_t mutex_attributes;
  pthread_condattr_t condition_attributes;
  pthread_mutexattr_init(&mutex_attributes);
  pthread_mutexattr_setpshared(&mutex_attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&room->mutex, &mutex_attributes);
  pthread_condattr_init(&condition_attributes);
  pthread_condattr_setpshared(&condition_attributes, PTHREAD_PROCESS_SHARED);
  pthread_cond_init(&room->condition, &condition_attributes);
  pthread_mutex_lock(&room->mutex);
  pid_t waiter = MUST(fork());
  if (waiter == 0) {
    MUST(sem_wait(&room->semaphore));
    pthread_mutex_lock(&room->mutex); /* held by the parent */
    while (room->turn != 2) pthread_cond_wait(&room->condition, &room->mutex);
    room->turn = 3;
    pthread_cond_broadcast(&room->condition);
    pthread_mutex_unlock(&room->mutex);
    unlinked[5] ^= 1;
    memory[5] ^= 1;
    probe_child_end();
  }
  probe_pause(50);

  probe_wait();

  if (probe_broken()) memory[77] ^= 1;
  CHECK(probe_compare(memory, SIZE, 1) < 0, "named shared memory differs");
  CHECK(probe_compare(unlinked, SIZE, 2) < 0, "unlinked shared memory differs");
  CHECK(shm_open("/probe-gone", O_RDWR, 0) < 0, "the unlinked shared memory has a name again");
  int again = MUST(shm_open("/probe-named", O_RDWR, 0));
  char byte = 0;
  CHECK(pread(again, &byte, 1, 4096) == 1 && byte == memory[4096], "the named shared memory is another one");
  memory[4096] = ~byte;
  char changed;
  CHECK(pread(again, &changed, 1, 4096) == 1 && changed == (char)~byte, "mapping and name are not one memory");
  memory[4096] = byte;
  char text[16] = "";
  unmapped = shm_open("/probe-unmapped", O_RDONLY, 0);
  CHECK(unmapped >= 0 && read(unmapped, text, 16) == 10 && !memcmp(text, "still here", 10), "shared memory that was not open is lost");
  struct stat status;
  CHECK(unmapped >= 0 && fstat(unmapped, &status) == 0 && (status.st_mode & 0777) == 0640, "mode of the shared memory");
  int value;
  MUST(sem_getvalue(semaphore, &value));
  CHECK(value == 1, "the named semaphore is %d", value);
  sem_t *same = sem_open("/probe-semaphore", 0);
  CHECK(same != SEM_FAILED && sem_post(same) == 0 && sem_getvalue(semaphore, &value) == 0 && value == 2, "the named semaphore is another one");
  CHECK(sem_getvalue(&room->semaphore, &value) == 0 && value <= 0, "nobody waits at the unnamed semaphore (%d)", value);
  MUST(sem_post(&room->semaphore));
  probe_pause(20);
  room->turn = 1;
  pthread_mutex_unlock(&room->mutex);
  probe_pause(20);
  pthread_mutex_lock(&room->mutex);
  room->turn = 2;
  pthread_cond_broadcast(&room->condition);
  while (room->turn != 3) pthread_cond_wait(&room->condition, &room->mutex);
  pthread_mutex_unlock(&room->mutex);
  probe_reap(waiter, "waiting process");
  unlinked[5] ^= 1;
  memory[5] ^= 1;
  CHECK(probe_compare(unlinked, SIZE, 2) < 0 && probe_compare(memory, SIZE, 1) < 0, "the other process does not share the memory");
  sem_unlink("/probe-semaphore");
  shm_unlink("/probe-named");
  shm_unlink("/probe-unmapped");
  return probe_result();
}
