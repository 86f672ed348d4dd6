/* R08: an unlinked file comes back unlinked, whole, at its position. Argument: its size in MiB. */
#include "probe.h"

#define BLOCK (1UL << 20)

static uint64_t sum(int fd, long blocks, char *buffer) {
  uint64_t total = 0;
  MUST(lseek(fd, 0, SEEK_SET));
  for (long b = 0; b < blocks; b++) {
    if (read(fd, buffer, BLOCK) != (ssize_t)BLOCK) probe_die("read");
    uint64_t *words = (void *)buffer;
    for (size_t i = 0; i < BLOCK / 8; i++) total = (total << 1 | total >> 63) ^ words[i];
  }
  return total;
}

int main(int argc, char **argv) {
  long blocks = argc > 1 ? atol(argv[1]) : 1;
  char path[] = "/var/tmp/unlinked-XXXXXX", *buffer = malloc(BLOCK), *block = malloc(BLOCK);
  uint64_t total = 0;
  int fd = MUST(mkstemp(path));
  MUST(unlink(path));
  probe_fill(block, BLOCK, blocks);
  for (long b = 0; b < blocks; b++) {
    /* Every page differs from every other one, at the price of 256 words for each block. */
    for (size_t page = 0; page < BLOCK; page += 4096) memcpy(block + page, &(uint64_t[]){b, page, blocks, b ^ page}, 32);
    if (write(fd, block, BLOCK) != (ssize_t)BLOCK) probe_die("write");
    uint64_t *words = (void *)block;
    for (size_t i = 0; i < BLOCK / 8; i++) total = (total << 1 | total >> 63) ^ words[i];
  }
  MUST(ftruncate(fd, blocks * BLOCK + 17));
  MUST(fchmod(fd, 0421));
  off_t position = MUST(lseek(fd, blocks * BLOCK / 2 + 13, SEEK_SET));
  int temporary = open("/var/tmp", O_TMPFILE | O_RDWR, 0600);
  if (temporary >= 0) MUST(write(temporary, "never had a name", 16));
  probe_wait();
  if (probe_broken()) MUST(pwrite(fd, "x", 1, (blocks - 1) * BLOCK + 77));
  CHECK(lseek(fd, 0, SEEK_CUR) == position, "position %ld instead of %ld", (long)lseek(fd, 0, SEEK_CUR), (long)position);
  struct stat status;
  MUST(fstat(fd, &status));
  CHECK(status.st_size == (off_t)(blocks * BLOCK + 17), "size %ld", (long)status.st_size);
  CHECK(status.st_nlink == 0, "the file has %d links", (int)status.st_nlink);
  CHECK((status.st_mode & 07777) == 0421, "mode 0%o", status.st_mode & 07777);
  CHECK(access(path, F_OK) < 0, "%s has a name again", path);
  CHECK(sum(fd, blocks, buffer) == total, "content differs");
  CHECK(pread(fd, buffer, 18, blocks * BLOCK) == 17 && buffer[16] == 0, "the hole at the end");
  MUST(pwrite(fd, "grown", 5, blocks * BLOCK + 4096));
  if (temporary >= 0) {
    CHECK(pread(temporary, buffer, 17, 0) == 16 && !memcmp(buffer, "never had a name", 16), "content of the O_TMPFILE file");
    MUST(fstat(temporary, &status));
    CHECK(status.st_nlink == 0, "the O_TMPFILE file has %d links", (int)status.st_nlink);
  }
  return probe_result();
}
