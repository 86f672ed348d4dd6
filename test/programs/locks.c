/* R07: flock, POSIX and open-file-description locks are held by the same owners again. */
#include <sys/file.h>
#include "probe.h"

static struct flock range(short type, off_t start, off_t length) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
  return lock;
}

/* Who keeps this process from a write lock on the byte: a PID, -1 for an open file description, 0 for nobody. */
static pid_t owner(int fd, off_t byte) {
  struct flock lock = range(F_WRLCK, byte, 1);
  MUST(fcntl(fd, F_GETLK, &lock));
  return lock.l_type == F_UNLCK ? 0 : lock.l_pid;
}

int main(void) {
  char path[] = "/tmp/locks-XXXXXX", flock_path[] = "/tmp/flock-XXXXXX", shared_path[] = "/tmp/shared-lock-XXXXXX";
  int fd = MUST(mkstemp(path)), whole = MUST(mkstemp(flock_path)), shared = MUST(mkstemp(shared_path));
  int pipes[2];
  char byte;
  MUST(pipe(pipes));
  struct flock lock = range(F_WRLCK, 0, 10);
  MUST(fcntl(fd, F_SETLK, &lock));
  lock = range(F_RDLCK, 100, 50);
  MUST(fcntl(fd, F_SETLK, &lock));
  MUST(flock(whole, LOCK_EX));
  MUST(flock(shared, LOCK_SH));
  int description = MUST(open(path, O_RDWR));
  lock = range(F_WRLCK, 1000, 10);
  MUST(fcntl(description, F_OFD_SETLK, &lock));
  pid_t parent = getpid();
  pid_t child = MUST(fork());
  if (child == 0) {
    int own = MUST(open(path, O_RDWR));
    lock = range(F_WRLCK, 500, 10);
    MUST(fcntl(own, F_SETLK, &lock));
    MUST(write(pipes[1], "x", 1));
    probe_wait_quietly();
    CHECK(owner(own, 5) == parent, "child: byte 5 is locked by %d instead of %d", owner(own, 5), parent);
    CHECK(owner(own, 120) == parent, "child: byte 120 is locked by %d", owner(own, 120));
    CHECK(owner(own, 1005) == -1, "child: the open-file-description lock is owned by %d", owner(own, 1005));
    CHECK(owner(own, 300) == 0, "child: byte 300 is locked");
    lock = range(F_RDLCK, 120, 1);
    CHECK(fcntl(own, F_SETLK, &lock) == 0, "child: a second read lock is refused");
    int again = MUST(open(flock_path, O_RDWR));
    CHECK(flock(again, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "child: the flock is gone");
    /* The inherited descriptor is the same description: it holds the lock. */
    CHECK(flock(whole, LOCK_EX | LOCK_NB) == 0, "child: the inherited descriptor has lost the flock");
    again = MUST(open(shared_path, O_RDWR));
    CHECK(flock(again, LOCK_SH | LOCK_NB) == 0 && flock(again, LOCK_EX | LOCK_NB) < 0, "child: the shared flock is not one");
    MUST(write(pipes[1], "y", 1));
    probe_pause(50);
    probe_child_end();
  }
  MUST(read(pipes[0], &byte, 1));
  if (probe_broken()) {
    lock = range(F_UNLCK, 0, 10);
    MUST(fcntl(fd, F_SETLK, &lock));
  }
  probe_wait();
  MUST(read(pipes[0], &byte, 1));
  CHECK(owner(fd, 505) == child, "byte 505 is locked by %d instead of %d", owner(fd, 505), child);
  CHECK(owner(fd, 300) == 0, "byte 300 is locked");
  probe_reap(child, "child");
  CHECK(owner(fd, 505) == 0, "the lock of the dead child is still there");
  close(description);
  return probe_result();
}
