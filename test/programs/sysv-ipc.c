/* R16: System V shared memory, semaphores (values, waiting process) and message queues (types, order) with their keys and IDs. */
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include "probe.h"

#define SIZE (3UL << 20)

struct message {
  long type;
  char text[64];
};

static void put(int queue, long type, const char *text) {
  struct message message = {.type = type};
  snprintf(message.text, sizeof message.text, "%s", text);
  MUST(msgsnd(queue, &message, strlen(text) + 1, 0));
}

static void take(int queue, long type, const char *expected) {
  struct message message = {0};
  ssize_t length = msgrcv(queue, &message, sizeof message.text, type, IPC_NOWAIT);
  CHECK(length >= 0 && !strcmp(message.text, expected), "message of type %ld: '%s' instead of '%s'", type, message.text, expected);
}

static void change(int set, int index, int by) {
  struct sembuf operation = {index, by, 0};
  /* semop(2) ends with EINTR after any stop, even one by SIGSTOP and SIGCONT: signal(7). */
  while (semop(set, &operation, 1) < 0) {
    if (errno != EINTR) probe_die("semop");
  }
}

int main(void) {
  int used = MUST(shmget(0x4a1, 4096, IPC_CREAT | 0600)); /* shifts the IDs */
  int shared = MUST(shmget(0x4a2, SIZE, IPC_CREAT | 0640));
  int private = MUST(shmget(IPC_PRIVATE, 8192, 0600));
  MUST(shmctl(used, IPC_RMID, NULL));
  char *memory = MUST(shmat(shared, NULL, 0)), *read_only = MUST(shmat(shared, NULL, SHM_RDONLY));
  char *removed = MUST(shmat(private, NULL, 0));
  probe_fill(memory, SIZE, 1);
  probe_fill(removed, 8192, 2);
  int set = MUST(semget(0x4a3, 5, IPC_CREAT | 0600));
  unsigned short values[5] = {7, 0, 3, 0, 32000}, values_now[5];
  MUST(semctl(set, 0, SETALL, values));
  int queue = MUST(msgget(0x4a4, IPC_CREAT | 0600));
  put(queue, 3, "first of three");
  put(queue, 1, "one");
  put(queue, 3, "second of three");
  put(queue, 7, "");
  pid_t child = MUST(fork());
  if (child == 0) {
    change(set, 1, -1); /* blocks until the parent lets it go, after the restart */
    struct message message;
    CHECK(msgrcv(queue, &message, sizeof message.text, 99, 0) == 6 && !strcmp(message.text, "hello"), "child: message");
    memory[SIZE - 1] ^= 1;
    probe_child_end();
  }
  for (int i = 0; i < 2000 && semctl(set, 1, GETNCNT) != 1; i++) probe_pause(2);

  probe_wait();

  CHECK(shmget(0x4a2, 0, 0) == shared, "the key leads to another segment");
  struct shmid_ds segment;
  MUST(shmctl(shared, IPC_STAT, &segment));
  CHECK(segment.shm_segsz == SIZE && (segment.shm_perm.mode & 0777) == 0640, "segment: size %zu, mode 0%o", segment.shm_segsz, segment.shm_perm.mode);
  CHECK(segment.shm_nattch == 4, "%d attachments instead of 4", (int)segment.shm_nattch);
  if (probe_broken()) memory[100] ^= 1;
  CHECK(probe_compare(memory, SIZE, 1) < 0, "shared memory differs");
  memory[4096] ^= 1;
  CHECK(read_only[4096] == memory[4096], "the two attachments are not one memory");
  memory[4096] ^= 1;
  CHECK(probe_compare(removed, 8192, 2) < 0, "private segment differs");
  char *third = MUST(shmat(shared, NULL, 0));
  CHECK(!memcmp(third, memory, SIZE), "a new attachment sees something else");
  CHECK(semget(0x4a3, 0, 0) == set, "the key leads to another semaphore set");
  MUST(semctl(set, 0, GETALL, values_now));
  CHECK(!memcmp(values, values_now, sizeof values), "semaphore values differ: %d %d %d %d %d", values_now[0], values_now[1], values_now[2],
        values_now[3], values_now[4]);
  for (int i = 0; i < 2000 && semctl(set, 1, GETNCNT) != 1; i++) probe_pause(2);
  CHECK(semctl(set, 1, GETNCNT) == 1, "%d processes wait for the semaphore instead of 1", semctl(set, 1, GETNCNT));
  change(set, 1, 1);
  put(queue, 99, "hello");
  probe_reap(child, "child");
  memory[SIZE - 1] ^= 1;
  CHECK(probe_compare(memory, SIZE, 1) < 0, "the child did not write to the same memory");
  CHECK(msgget(0x4a4, 0) == queue, "the key leads to another queue");
  take(queue, 3, "first of three");
  take(queue, 0, "one");
  take(queue, 0, "second of three");
  take(queue, 7, "");
  struct msqid_ds status;
  MUST(msgctl(queue, IPC_STAT, &status));
  CHECK(status.msg_qnum == 0, "%d messages left", (int)status.msg_qnum);
  MUST(shmctl(shared, IPC_RMID, NULL));
  MUST(shmctl(private, IPC_RMID, NULL));
  MUST(semctl(set, 0, IPC_RMID));
  MUST(msgctl(queue, IPC_RMID, NULL));
  return probe_result();
}
