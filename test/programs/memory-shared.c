/* R06: shared anonymous memory and memfd (seals, sizes, names, several mappings) are shared between the same processes again. */
#include <sys/mman.h>
#include "probe.h"

#define MIB (1UL << 20)
#ifndef MFD_HUGETLB
#define MFD_HUGETLB 4U
#endif

/* What one side writes after the restart the other must read: only then is it one memory. */
struct conversation {
  _Atomic int question, answer;
};

static void same_file(int fd, const void *expected_inode_of, const char *what) {
  char path[64], target[256];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(path, target, sizeof target - 1);
  target[length < 0 ? 0 : length] = 0;
  CHECK(strstr(target, expected_inode_of), "%s is '%s'", what, target);
}

int main(void) {
  char *anonymous = MUST(mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  probe_fill(anonymous + MIB, 7 * MIB, 1);
  struct conversation *talk = (void *)anonymous;
  /* Mapped twice by one process, at another protection. */
  int data = MUST(memfd_create("probe-data", MFD_CLOEXEC));
  MUST(ftruncate(data, 4 * MIB + 100));
  char *data_write = MUST(mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, data, 0));
  char *data_read = MUST(mmap(NULL, 2 * MIB, PROT_READ, MAP_SHARED, data, MIB));
  char *data_private = MUST(mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE, data, 0));
  probe_fill(data_write, 4 * MIB, 2);
  probe_fill(data_private + 4096, 4096, 3);
  MUST(lseek(data, 777, SEEK_SET));
  /* A second open file description of the same memory. */
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", data);
  int again = MUST(open(path, O_RDONLY));
  MUST(lseek(again, 999, SEEK_SET));
  int sealed = MUST(memfd_create("probe-sealed", MFD_ALLOW_SEALING));
  char content[8192];
  probe_fill(content, sizeof content, 4);
  MUST(write(sealed, content, sizeof content));
  MUST(fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
  int hole = MUST(memfd_create("probe-hole", 0));
  MUST(ftruncate(hole, 1UL << 30));
  MUST(pwrite(hole, "far", 3, 1000000000));

  pid_t child = MUST(fork());
  if (child == 0) {
    /* Only the child keeps this part: the parent unmaps it. */
    probe_wait_quietly();
    CHECK(probe_compare(anonymous + MIB, 7 * MIB, 1) < 0, "child: shared memory differs");
    for (int i = 0; i < 5000 && talk->question == 0; i++) probe_pause(2);
    talk->answer = talk->question * 2;
    CHECK(probe_compare(data_write, 4 * MIB, 2) < 0, "child: memfd differs");
    data_write[5] ^= 0x55;
    talk->answer++;
    probe_child_end();
  }
  MUST(munmap(anonymous + 6 * MIB, 2 * MIB));
  probe_wait();

  if (probe_broken()) anonymous[3 * MIB] ^= 1;
  CHECK(probe_compare(anonymous + MIB, 5 * MIB, 1) < 0, "shared anonymous memory differs");
  talk->question = 21;
  for (int i = 0; i < 5000 && talk->answer != 43; i++) probe_pause(2);
  CHECK(talk->answer == 43, "the child answered %d: not one shared memory any more", talk->answer);
  probe_reap(child, "child");
  data_write[5] ^= 0x55;
  CHECK(probe_compare(data_write, 4 * MIB, 2) < 0, "memfd mapping differs");
  CHECK(!memcmp(data_read, data_write + MIB, 2 * MIB), "second mapping of the memfd differs");
  CHECK(probe_compare(data_private + 4096, 4096, 3) < 0, "private page of the memfd mapping differs");
  CHECK(!memcmp(data_private + 8192, data_write + 8192, MIB - 8192), "unchanged part of the private mapping differs");
  CHECK(lseek(data, 0, SEEK_CUR) == 777 && lseek(again, 0, SEEK_CUR) == 999, "positions of the memfd");
  CHECK(lseek(data, 0, SEEK_END) == (off_t)(4 * MIB + 100), "size of the memfd");
  CHECK((fcntl(again, F_GETFL) & O_ACCMODE) == O_RDONLY, "access mode of the memfd opened again");
  char byte = data_write[100], found = 0;
  data_write[100] = ~byte;
  CHECK(pread(again, &found, 1, 100) == 1 && found == (char)~byte, "mapping and second description are not one memfd");
  same_file(data, "memfd:probe-data", "data");
  same_file(sealed, "memfd:probe-sealed", "sealed");
  CHECK(fcntl(sealed, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), "seals are 0x%x", fcntl(sealed, F_GET_SEALS));
  CHECK(pread(sealed, content, sizeof content, 0) == sizeof content && probe_compare(content, sizeof content, 4) < 0, "sealed content");
  CHECK(pwrite(sealed, "x", 1, 0) == -1 && errno == EPERM, "a sealed memfd could be written");
  CHECK(fcntl(data, F_GETFD) & FD_CLOEXEC && !(fcntl(sealed, F_GETFD) & FD_CLOEXEC), "close-on-exec of the memfds");
  struct stat status;
  MUST(fstat(hole, &status));
  CHECK(status.st_size == 1L << 30, "size of the sparse memfd is %ld", (long)status.st_size);
  CHECK(status.st_blocks < 2048, "the sparse memfd of one page now takes %ld KiB", (long)status.st_blocks / 2);
  CHECK(pread(hole, content, 5, 999999999) == 5 && !memcmp(content, "\0far\0", 5), "content of the sparse memfd");
  return probe_result();
}
