/* R09 R18: requests of asynchronous I/O (io_setup) are under way all the time; each completes, once, with what it should have done. */
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include "probe.h"

#define REQUESTS 16
#define BLOCK (256 * 1024)

static aio_context_t context;
static unsigned char *buffers[REQUESTS];
static struct iocb requests[REQUESTS];
static uint64_t round_of[REQUESTS];
static int under_way, file;

static void submit(int i) {
  probe_fill(buffers[i], BLOCK, ++round_of[i] * REQUESTS + i);
  memset(&requests[i], 0, sizeof requests[i]);
  requests[i].aio_lio_opcode = IOCB_CMD_PWRITE;
  requests[i].aio_fildes = file;
  requests[i].aio_buf = (uintptr_t)buffers[i];
  requests[i].aio_nbytes = BLOCK;
  requests[i].aio_offset = (int64_t)i * BLOCK;
  requests[i].aio_data = i;
  struct iocb *one = &requests[i];
  if (syscall(SYS_io_submit, context, 1, &one) != 1) probe_die("io_submit");
  under_way++;
}

/* Takes completions; submits anew if `on`. False if none came within 10 s. */
static int collect(int on) {
  static unsigned char *check;
  if (check == NULL && posix_memalign((void **)&check, 4096, BLOCK) != 0) probe_die("posix_memalign");
  struct io_event events[REQUESTS];
  struct timespec patience = {10, 0};
  long count;
  do count = syscall(SYS_io_getevents, context, 1, REQUESTS, events, &patience);
  while (count < 0 && errno == EINTR);
  if (count <= 0) return 0;
  for (long e = 0; e < count; e++) {
    int i = (int)events[e].data;
    under_way--;
    CHECK(events[e].res == BLOCK, "request %d: result %lld", i, (long long)events[e].res);
    CHECK(pread(file, check, BLOCK, (off_t)i * BLOCK) == BLOCK, "request %d: read: %s", i, strerror(errno));
    long differs = probe_compare(check, BLOCK, round_of[i] * REQUESTS + i);
    CHECK(differs < 0, "request %d of round %llu: the file differs at %ld", i, (unsigned long long)round_of[i], differs);
    if (on) submit(i);
  }
  return 1;
}

int main(void) {
  if (syscall(SYS_io_setup, REQUESTS, &context) < 0) probe_skip("io_setup: %s", strerror(errno));
  file = open("/var/tmp/asynchronous-io", O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600);
  if (file < 0) probe_skip("O_DIRECT: %s", strerror(errno));
  for (int i = 0; i < REQUESTS; i++) {
    if (posix_memalign((void **)&buffers[i], 4096, BLOCK) != 0) probe_die("posix_memalign");
    submit(i);
  }
  probe_ready();
  time_t end = time(NULL) + PROBE_PATIENCE;
  while (!probe_gone())
    if (time(NULL) > end || !collect(1)) {
      probe_fail("%d requests never complete", under_way);
      return probe_result();
    }
  if (probe_broken()) under_way++;
  while (under_way > 0)
    if (!collect(0)) {
      probe_fail("%d requests never complete", under_way);
      break;
    }
  return probe_result();
}
