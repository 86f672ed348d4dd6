/*
 * R09: files opened for append and for write have the content of the moment of the checkpoint, although the program went on
 * writing after it: a journal (append), a record rewritten in place, a file that shrinks, new, renamed and removed files.
 */
#include "probe.h"

static void line_of(long number, char line[48]) { snprintf(line, 48, "line %010ld of many\n", number); }

int main(void) {
  char directory[] = "/var/tmp/written-XXXXXX", line[48], expected[48], name[48];
  if (!mkdtemp(directory)) probe_die("mkdtemp");
  MUST(chdir(directory));
  int journal = MUST(open("journal", O_WRONLY | O_APPEND | O_CREAT, 0644));
  int record = MUST(open("record", O_RDWR | O_CREAT, 0644));
  int shrinking = MUST(open("shrinking", O_RDWR | O_CREAT, 0644));
  volatile long count = 0;
  probe_ready();
  /* Every step changes the files first and the counter in memory last, so that both may differ by one step at most. */
  while (!probe_gone()) {
    line_of(count, line);
    if (write(journal, line, strlen(line)) < 0) probe_die("write");
    MUST(pwrite(record, line, strlen(line), 4096 * (count % 8)));
    MUST(ftruncate(shrinking, 1000000 - count));
    snprintf(name, sizeof name, "new-%ld", count);
    close(MUST(open(name, O_WRONLY | O_CREAT | O_EXCL, 0600)));
    snprintf(expected, sizeof expected, "new-%ld", count - 1);
    snprintf(name, sizeof name, "old-%ld", count - 1);
    if (count > 0) MUST(rename(expected, name));
    snprintf(name, sizeof name, "old-%ld", count - 5);
    if (count > 5) MUST(unlink(name));
    count = count + 1;
    probe_pause(2);
  }
  if (probe_broken()) MUST(write(journal, "more\n", 5));
  FILE *file = fopen("journal", "r");
  long lines = 0;
  while (fgets(line, sizeof line, file)) {
    line_of(lines, expected);
    if (strcmp(line, expected)) {
      probe_fail("line %ld of the journal is '%.24s'", lines, line);
      break;
    }
    lines++;
  }
  CHECK(lines == count, "the journal has %ld lines, memory says %ld", lines, count);
  for (long i = count - 8 < 0 ? 0 : count - 8; i < count; i++) {
    line_of(i, expected);
    MUST(pread(record, line, strlen(expected), 4096 * (i % 8)));
    CHECK(!memcmp(line, expected, strlen(expected)), "record %ld differs: %.24s", i, line);
  }
  CHECK(lseek(shrinking, 0, SEEK_END) == 1000000 - count + 1, "the shrinking file has %ld bytes", (long)lseek(shrinking, 0, SEEK_END));
  for (long i = 0; i < count; i++) {
    snprintf(name, sizeof name, "new-%ld", i);
    CHECK((access(name, F_OK) == 0) == (i == count - 1), "%s should %sbe there", name, i == count - 1 ? "" : "not ");
    snprintf(name, sizeof name, "old-%ld", i);
    int expected_there = i < count - 1 && i >= count - 5;
    CHECK((access(name, F_OK) == 0) == (expected_there || (i == 0 && count > 1)), "%s should %sbe there", name, expected_there ? "" : "not ");
  }
  return probe_result();
}
