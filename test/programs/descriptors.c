/*
 * R07: descriptors: position, flags, dup relations and offsets shared with a child, close-on-exec, directories, O_PATH, a deleted
 * directory entry with another link, high numbers, gaps.
 */
#include <dirent.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include "probe.h"

static off_t position(int fd) { return lseek(fd, 0, SEEK_CUR); }

static void is_flag(int fd, int flags, const char *what) {
  int found = fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK | O_NOATIME | O_DSYNC | O_PATH);
  CHECK(found == flags, "%s: flags 0%o instead of 0%o", what, found, flags);
}

int main(void) {
  char directory[] = "/tmp/descriptors-XXXXXX", target[256], path[64];
  struct stat was, is;
  for (int fd = 3; fd < 1024; fd++) close(fd); /* whatever was inherited */
  if (!mkdtemp(directory)) probe_die("mkdtemp");
  MUST(chdir(directory));
  int file = MUST(open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0640));
  MUST(write(file, "0123456789abcdefghij", 20));
  MUST(lseek(file, 7, SEEK_SET));
  int duplicate = MUST(dup(file));
  int high = MUST(fcntl(file, F_DUPFD_CLOEXEC, 250));
  int again = MUST(open("file", O_RDONLY | O_NONBLOCK));
  MUST(lseek(again, 3, SEEK_SET));
  int append = MUST(open("file", O_WRONLY | O_APPEND | O_DSYNC));
  int folder = MUST(open(".", O_RDONLY | O_DIRECTORY));
  int path_only = MUST(open("file", O_PATH | O_CLOEXEC));
  int null = MUST(open("/dev/null", O_RDWR));
  int zero = MUST(open("/dev/zero", O_RDONLY));
  int proc = MUST(open("/proc/self/status", O_RDONLY));
  int linked = MUST(open("first", O_RDWR | O_CREAT, 0600));
  MUST(write(linked, "linked", 6));
  MUST(link("first", "second"));
  MUST(unlink("first"));
  int empty_past_end = MUST(open("sparse", O_RDWR | O_CREAT, 0600));
  MUST(lseek(empty_past_end, 1L << 40, SEEK_SET));
  int moved = MUST(open("before", O_RDWR | O_CREAT, 0600));
  MUST(write(moved, "moved", 5));
  MUST(rename("before", "after"));
  DIR *stream = opendir("/etc");
  char names[4][256];
  for (int i = 0; i < 2; i++) snprintf(names[i], 256, "%s", readdir(stream)->d_name);
  long tell = telldir(stream);
  for (int i = 2; i < 4; i++) snprintf(names[i], 256, "%s", readdir(stream)->d_name);
  seekdir(stream, tell);
  MUST(mkdir("doomed", 0700));
  int doomed = MUST(open("doomed", O_RDONLY | O_DIRECTORY));
  MUST(rmdir("doomed"));
  MUST(fstat(file, &was));

  pid_t child = MUST(fork());
  if (child == 0) {
    /* The offset is shared with the parent: what the child moves, the parent sees. */
    probe_wait_quietly();
    while (position(file) != 11) probe_pause(2);
    MUST(lseek(duplicate, 13, SEEK_SET));
    close(again);
    probe_child_end();
  }
  probe_wait();

  MUST(fstat(file, &is));
  CHECK(was.st_ino == is.st_ino && was.st_size == is.st_size && was.st_mode == is.st_mode, "the file is another one: ino %ld, %ld",
        (long)is.st_ino, (long)was.st_ino);
  CHECK(was.st_mtim.tv_sec == is.st_mtim.tv_sec && was.st_mtim.tv_nsec == is.st_mtim.tv_nsec, "mtime of the file differs");
  CHECK(position(file) == 7 && position(duplicate) == 7 && position(high) == 7, "position is %ld", (long)position(file));
  CHECK(position(again) == 3, "position of the second description is %ld", (long)position(again));
  MUST(lseek(high, probe_broken() ? 12 : 11, SEEK_SET));
  CHECK(position(file) == 11 && position(duplicate) == 11, "duplicates do not share their offset");
  for (int i = 0; i < 2500 && position(file) != 13; i++) probe_pause(2);
  CHECK(position(file) == 13, "the child does not share the offset");
  kill(child, position(file) == 13 ? 0 : SIGKILL);
  probe_reap(child, "child");
  is_flag(file, O_RDWR, "file");
  is_flag(again, O_RDONLY | O_NONBLOCK, "again");
  is_flag(append, O_WRONLY | O_APPEND | O_DSYNC, "append");
  is_flag(folder, O_RDONLY, "folder"); /* CRIU drops O_DIRECTORY from what F_GETFL says: of no consequence for a directory */
  is_flag(path_only, O_PATH, "path_only");
  CHECK(fcntl(file, F_GETFD) == FD_CLOEXEC && fcntl(duplicate, F_GETFD) == 0 && fcntl(high, F_GETFD) == FD_CLOEXEC, "close-on-exec");
  CHECK(high == 250 && fcntl(251, F_GETFD) < 0 && fcntl(100, F_GETFD) < 0, "descriptor numbers");
  MUST(lseek(append, 0, SEEK_SET));
  MUST(write(append, "END", 3));
  MUST(pread(file, target, 23, 0));
  CHECK(!memcmp(target, "0123456789abcdefghijEND", 23), "O_APPEND wrote elsewhere: %.23s", target);
  CHECK(fstatat(folder, "file", &is, 0) == 0 && is.st_size == 23, "the directory descriptor leads elsewhere");
  snprintf(path, sizeof path, "/proc/self/fd/%d", path_only);
  CHECK(stat(path, &is) == 0 && is.st_size == 23, "the O_PATH descriptor leads elsewhere");
  MUST(fstat(null, &is));
  CHECK(S_ISCHR(is.st_mode) && is.st_rdev == makedev(1, 3), "/dev/null is another device");
  memset(target, 1, 16);
  CHECK(read(zero, target, 16) == 16 && target[15] == 0, "/dev/zero");
  CHECK(read(proc, target, 5) == 5 && !memcmp(target, "Name:", 5), "/proc/self/status");
  memset(target, 0, sizeof target);
  CHECK(pread(linked, target, 16, 0) == 6 && !strcmp(target, "linked"), "file with another link: '%s'", target);
  MUST(fstat(linked, &is));
  MUST(stat("second", &was));
  CHECK(is.st_ino == was.st_ino, "the descriptor and its other link are two files now");
  CHECK(is.st_nlink == 1, "the file has %d links: the checkpoint left one behind", (int)is.st_nlink);
  CHECK(position(empty_past_end) == 1L << 40, "position past the end");
  CHECK(pread(moved, target, 5, 0) == 5 && !memcmp(target, "moved", 5) && access("before", F_OK) < 0, "renamed file");
  for (int i = 2; i < 4; i++) CHECK(!strcmp(names[i], readdir(stream)->d_name), "readdir goes on with another entry");
  MUST(fstat(doomed, &is));
  CHECK(is.st_nlink == 0 || access("doomed", F_OK) < 0, "the removed directory is back");
  int entries = 0;
  DIR *all = opendir(".");
  for (struct dirent *entry; (entry = readdir(all));) {
    if (entry->d_name[0] == '.') continue;
    entries++;
    CHECK(strstr("file second sparse after", entry->d_name), "left behind in the directory: %s", entry->d_name);
  }
  CHECK(entries == 4, "%d entries instead of 4", entries);
  return probe_result();
}
