/* R13: pipes and FIFOs with data in flight, sizes, closed ends, a full pipe with a blocked writer. */
#include "probe.h"

int main(void) {
  static char buffer[2 << 20], expected[2 << 20];
  int plain[2], full[2], closed[2], broken[2], large[2];
  MUST(pipe(plain));
  MUST(write(plain[1], "data in ", 8));
  MUST(write(plain[1], "flight", 6));
  /* An end without a partner: end of file after the data; SIGPIPE or EPIPE on the other one. */
  MUST(pipe(closed));
  MUST(write(closed[1], "last words", 10));
  MUST(close(closed[1]));
  MUST(pipe(broken));
  MUST(close(broken[0]));
  signal(SIGPIPE, SIG_IGN);
  /* 1 MiB that does not fit the usual 64 KiB. */
  MUST(pipe(large));
  int resized = fcntl(large[1], F_SETPIPE_SZ, 1 << 20) >= 1 << 20;
  probe_fill(expected, 1 << 20, 1);
  size_t large_bytes = resized ? 1 << 20 : 60000;
  MUST(write(large[1], expected, large_bytes));
  /* A blocked writer: 200,000 bytes into a pipe that nobody reads. */
  MUST(pipe(full));
  pid_t writer = MUST(fork());
  if (writer == 0) {
    close(full[0]);
    probe_fill(buffer, 200000, 2);
    /* Any stop, even one by SIGSTOP and SIGCONT, may cut a blocked write short; then it goes on behind what was written. */
    for (size_t done = 0; done < 200000;) done += MUST(write(full[1], buffer + done, 200000 - done));
    probe_child_end();
  }
  close(full[1]);
  char path[] = "/tmp/fifo-XXXXXX";
  if (!mkdtemp(path)) probe_die("mkdtemp");
  MUST(chdir(path));
  MUST(mkfifo("fifo", 0600));
  int fifo = MUST(open("fifo", O_RDWR | O_NONBLOCK));
  int fifo_reader = MUST(open("fifo", O_RDONLY));
  MUST(write(fifo, "through a fifo", 14));
  MUST(mkfifo("unlinked", 0600));
  int unlinked = MUST(open("unlinked", O_RDWR));
  MUST(write(unlinked, "no name", 7));
  MUST(unlink("unlinked"));
  MUST(fcntl(plain[0], F_SETFL, O_NONBLOCK));
  probe_pause(30);

  probe_wait();

  if (probe_broken()) MUST(write(plain[1], "!", 1));
  CHECK(read(plain[0], buffer, 100) == 14 && !memcmp(buffer, "data in flight", 14), "data in the pipe differs");
  CHECK(read(plain[0], buffer, 100) < 0 && errno == EAGAIN, "the pipe is not empty or not O_NONBLOCK");
  CHECK(!(fcntl(plain[1], F_GETFL) & O_NONBLOCK), "O_NONBLOCK has spread to the other end");
  MUST(write(plain[1], "on", 2));
  CHECK(read(plain[0], buffer, 100) == 2, "the ends of the pipe are not connected");
  CHECK(read(closed[0], buffer, 100) == 10 && read(closed[0], buffer, 100) == 0, "closed pipe: no end of file after the data");
  CHECK(write(broken[1], "x", 1) < 0 && errno == EPIPE, "a pipe without reader can be written");
  CHECK(!resized || fcntl(large[0], F_GETPIPE_SZ) >= 1 << 20, "size of the large pipe is %d", fcntl(large[0], F_GETPIPE_SZ));
  size_t total = 0;
  for (ssize_t n; total < large_bytes && (n = read(large[0], buffer + total, large_bytes - total)) > 0;) total += n;
  CHECK(total == large_bytes && !memcmp(buffer, expected, large_bytes), "content of the large pipe differs");
  total = 0;
  for (ssize_t n; (n = read(full[0], buffer + total, sizeof buffer - total)) > 0;) total += n;
  CHECK(total == 200000 && probe_compare(buffer, 200000, 2) < 0, "%zu bytes came from the blocked writer", total);
  probe_reap(writer, "blocked writer");
  CHECK(read(fifo_reader, buffer, 100) == 14 && !memcmp(buffer, "through a fifo", 14), "data in the FIFO differs");
  int again = MUST(open("fifo", O_WRONLY | O_NONBLOCK));
  MUST(write(again, "new", 3));
  CHECK(read(fifo_reader, buffer, 100) == 3, "the FIFO opened by name is another one");
  CHECK(read(unlinked, buffer, 100) == 7 && !memcmp(buffer, "no name", 7), "data in the unlinked FIFO differs");
  CHECK(access("unlinked", F_OK) < 0, "the unlinked FIFO has a name again");
  return probe_result();
}
