/* R06: file mappings: private with changed pages, shared written back to the file, of an unlinked file, shared between processes. */
#include <sys/mman.h>
#include "probe.h"

#define SIZE (1UL << 20)

static int make(char *path, uint64_t seed) {
  char *content = malloc(SIZE);
  int fd = MUST(mkstemp(path));
  probe_fill(content, SIZE, seed);
  if (write(fd, content, SIZE) != (ssize_t)SIZE) probe_die("write");
  free(content);
  return fd;
}

int main(void) {
  char private_path[] = "/tmp/private-XXXXXX", shared_path[] = "/tmp/shared-XXXXXX", gone_path[] = "/tmp/gone-XXXXXX";
  int private_fd = make(private_path, 1), shared_fd = make(shared_path, 2), gone_fd = make(gone_path, 3);
  char *private = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, private_fd, 0));
  probe_fill(private + 8192, 8192, 11);
  char *shared = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0));
  probe_fill(shared + 4096, 4096, 12);
  char *shared_offset = MUST(mmap(NULL, 8192, PROT_READ, MAP_SHARED, shared_fd, 4096));
  char *gone = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, gone_fd, 0));
  /* Program text of another program, which must come back by reference. */
  int text_fd = MUST(open("/bin/sh", O_RDONLY));
  char *text = MUST(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, text_fd, 0));
  char text_was[4096];
  memcpy(text_was, text, sizeof text_was);
  close(private_fd);
  close(gone_fd);
  close(text_fd);
  MUST(unlink(gone_path));
  pid_t child = MUST(fork());
  if (child == 0) {
    probe_wait_quietly();
    CHECK(probe_compare(shared + 4096, 4096, 12) < 0, "child: shared file mapping differs");
    shared[0] ^= 1;
    gone[0] ^= 1;
    probe_child_end();
  }
  probe_wait();
  probe_reap(child, "child");
  shared[0] ^= 1;
  gone[0] ^= 1;
  if (probe_broken()) private[9000] ^= 1;
  CHECK(probe_compare(private + 8192, 8192, 11) < 0, "changed pages of the private mapping differ");
  char *whole = malloc(SIZE);
  int fd = MUST(open(private_path, O_RDONLY));
  CHECK(read(fd, whole, SIZE) == (ssize_t)SIZE && probe_compare(whole, SIZE, 1) < 0, "the privately mapped file was changed");
  CHECK(!memcmp(private, whole, 8192) && !memcmp(private + 16384, whole + 16384, SIZE - 16384), "unchanged pages differ");
  CHECK(probe_compare(shared + 4096, 4096, 12) < 0 && !memcmp(shared_offset, shared + 4096, 8192), "shared mapping differs");
  probe_fill(shared + 20480, 4096, 13);
  MUST(msync(shared, SIZE, MS_SYNC));
  CHECK(pread(shared_fd, whole, SIZE, 0) == (ssize_t)SIZE && !memcmp(whole, shared, SIZE), "file and shared mapping are not one");
  CHECK(probe_compare(gone, SIZE, 3) < 0, "mapping of the unlinked file differs");
  CHECK(!memcmp(text, text_was, sizeof text_was), "program text differs");
  CHECK(access(gone_path, F_OK) < 0, "the unlinked file has a name again");
  MUST(unlink(private_path));
  MUST(unlink(shared_path));
  return probe_result();
}
