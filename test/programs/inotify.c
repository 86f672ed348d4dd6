/* R07: inotify watches (directory, file, one that was renamed), with an event that was not read yet. */
#include <sys/inotify.h>
#include "probe.h"

int main(void) {
  char directory[] = "/tmp/inotify-XXXXXX", buffer[4096];
  if (!mkdtemp(directory)) probe_die("mkdtemp");
  MUST(chdir(directory));
  int file = MUST(open("file", O_RDWR | O_CREAT, 0600)), notify = MUST(inotify_init1(IN_NONBLOCK));
  int unused = MUST(inotify_add_watch(notify, "/", IN_CREATE)); /* watch numbers need not be consecutive */
  int folder = MUST(inotify_add_watch(notify, ".", IN_CREATE | IN_DELETE)), changes = MUST(inotify_add_watch(notify, "file", IN_MODIFY));
  MUST(inotify_rm_watch(notify, unused));
  MUST(read(notify, buffer, sizeof buffer)); /* IN_IGNORED */
  MUST(rename("file", "renamed"));

  probe_wait();

  close(MUST(open("new", O_CREAT | O_WRONLY, 0600)));
  if (!probe_broken()) MUST(unlink("new"));
  MUST(write(file, "x", 1));
  ssize_t length = read(notify, buffer, sizeof buffer);
  struct {
    int watch;
    uint32_t mask;
    const char *name;
  } expected[] = {{folder, IN_CREATE, "new"}, {folder, IN_DELETE, "new"}, {changes, IN_MODIFY, ""}};
  ssize_t at = 0;
  for (int i = 0; i < 3; i++) {
    struct inotify_event *event = (void *)(buffer + at);
    if (at >= length) {
      probe_fail("event %d of 3 is missing (%s)", i, length < 0 ? strerror(errno) : "end");
      break;
    }
    CHECK(event->wd == expected[i].watch && event->mask == expected[i].mask && !strcmp(event->len ? event->name : "", expected[i].name),
          "event %d: watch %d, mask 0x%x, name '%s'", i, event->wd, event->mask, event->len ? event->name : "");
    at += sizeof *event + event->len;
  }
  return probe_result();
}
