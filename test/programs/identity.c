/* R05: PID, TID, PGID, SID, parentage, credentials, groups, capabilities, cwd, umask, limits, name, nice. */
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include "probe.h"

struct identity {
  pid_t pid, tid, ppid, pgid, sid;
  uid_t uid[3];
  gid_t gid[3];
  gid_t groups[32];
  int group_count;
  uint32_t capabilities[6];
  uint64_t bounding, ambient;
  int securebits, no_new_privileges, dumpable, subreaper, death_signal, nice;
  char cwd[256], name[16], arguments[256], environment[16];
  mode_t umask;
  struct rlimit limits[RLIM_NLIMITS];
};

static void look(struct identity *found) {
  memset(found, 0, sizeof *found);
  found->pid = getpid();
  found->tid = syscall(SYS_gettid);
  found->ppid = getppid();
  found->pgid = getpgrp();
  found->sid = getsid(0);
  getresuid(&found->uid[0], &found->uid[1], &found->uid[2]);
  getresgid(&found->gid[0], &found->gid[1], &found->gid[2]);
  found->group_count = MUST(getgroups(32, found->groups));
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  MUST(syscall(SYS_capget, &header, found->capabilities));
  for (int c = 0; c < 64; c++) {
    if (prctl(PR_CAPBSET_READ, c) == 1) found->bounding |= 1ULL << c;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, c, 0, 0) == 1) found->ambient |= 1ULL << c;
  }
  found->securebits = prctl(PR_GET_SECUREBITS);
  found->no_new_privileges = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  found->dumpable = prctl(PR_GET_DUMPABLE);
  prctl(PR_GET_CHILD_SUBREAPER, &found->subreaper);
  prctl(PR_GET_PDEATHSIG, &found->death_signal);
  found->nice = getpriority(PRIO_PROCESS, 0);
  if (!getcwd(found->cwd, sizeof found->cwd)) probe_die("getcwd");
  prctl(PR_GET_NAME, found->name);
  int fd = MUST(open("/proc/self/cmdline", O_RDONLY));
  MUST(read(fd, found->arguments, sizeof found->arguments - 1));
  close(fd);
  snprintf(found->environment, sizeof found->environment, "%s", getenv("PROBE_MARK") ?: "");
  found->umask = umask(0);
  umask(found->umask);
  for (int l = 0; l < RLIM_NLIMITS; l++) MUST(getrlimit(l, &found->limits[l]));
}

static void compare(const char *who, const struct identity *was, const struct identity *is) {
#define SAME(field) CHECK(was->field == is->field, "%s: " #field " %ld instead of %ld", who, (long)is->field, (long)was->field)
  SAME(pid);
  SAME(tid);
  SAME(ppid);
  SAME(pgid);
  SAME(sid);
  SAME(group_count);
  SAME(bounding);
  SAME(ambient);
  SAME(securebits);
  SAME(no_new_privileges);
  SAME(dumpable);
  SAME(subreaper);
  SAME(death_signal);
  SAME(nice);
  SAME(umask);
  for (int i = 0; i < 3; i++) {
    SAME(uid[i]);
    SAME(gid[i]);
  }
  for (int i = 0; i < was->group_count; i++) SAME(groups[i]);
  for (int i = 0; i < 6; i++) SAME(capabilities[i]);
  for (int l = 0; l < RLIM_NLIMITS; l++) {
    SAME(limits[l].rlim_cur);
    SAME(limits[l].rlim_max);
  }
  CHECK(!strcmp(was->cwd, is->cwd), "%s: cwd '%s' instead of '%s'", who, is->cwd, was->cwd);
  CHECK(!strcmp(was->name, is->name), "%s: name '%s' instead of '%s'", who, is->name, was->name);
  CHECK(!memcmp(was->arguments, is->arguments, sizeof was->arguments), "%s: /proc/self/cmdline differs", who);
  CHECK(!strcmp(was->environment, is->environment), "%s: environment differs", who);
}

/* Ends every wait below: closed by the first process. Not all of them may look for the go file. */
static int go[2];

static void observe(const char *who, int ready_fd) {
  struct identity was, is;
  look(&was);
  char byte;
  close(go[1]);
  MUST(write(ready_fd, "x", 1));
  MUST(read(go[0], &byte, 1));
  look(&is);
  if (probe_broken()) is.umask ^= 1;
  compare(who, &was, &is);
}

int main(void) {
  int pipes[2];
  char byte;
  setenv("PROBE_MARK", "a mark", 1);
  char directory[] = "/tmp/identity-XXXXXX";
  if (!mkdtemp(directory)) probe_die("mkdtemp");
  MUST(chdir(directory));
  umask(0137);
  MUST(pipe2(pipes, O_CLOEXEC));
  MUST(pipe(go));
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = 321;
  MUST(setrlimit(RLIMIT_NOFILE, &limit));
  limit.rlim_cur = limit.rlim_max = 12345678;
  MUST(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}));
  MUST(setrlimit(RLIMIT_FSIZE, &limit));

  pid_t plain = MUST(fork());
  if (plain == 0) {
    prctl(PR_SET_NAME, "own name");
    MUST(setpriority(PRIO_PROCESS, 0, 7));
    MUST(setpgid(0, 0));
    observe("child with its own process group", pipes[1]);
    probe_child_end();
  }
  pid_t session = MUST(fork());
  if (session == 0) {
    MUST(setsid());
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    MUST(chdir("/"));
    /* A grandchild whose parent dies: it becomes the child of this subreaper. */
    pid_t middle = MUST(fork());
    if (middle == 0) {
      if (MUST(fork()) == 0) {
        while (getppid() != getsid(0)) probe_pause(1);
        observe("orphan below a subreaper", pipes[1]);
        probe_child_end();
      }
      _exit(0);
    }
    probe_reap(middle, "middle process");
    observe("session leader", pipes[1]);
    int status;
    CHECK(wait(&status) > 0 && status == 0, "the orphan ended with status 0x%x", status);
    probe_child_end();
  }
  pid_t changed = MUST(fork());
  if (changed == 0) {
    if (geteuid() == 0) {
      gid_t groups[] = {5, 4242, 70000};
      MUST(setgroups(3, groups));
      MUST(setresgid(1001, 1002, 1003));
      MUST(prctl(PR_SET_KEEPCAPS, 1));
      MUST(setresuid(1011, 1012, 1013));
      /* CAP_KILL effective and permitted, CAP_CHOWN permitted only. */
      struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
      struct __user_cap_data_struct data[2] = {{1 << CAP_KILL, 1 << CAP_KILL | 1 << CAP_CHOWN, 1 << CAP_KILL}, {0, 0, 0}};
      MUST(syscall(SYS_capset, &header, data));
      MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
      MUST(prctl(PR_SET_DUMPABLE, 1));
    }
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    observe("child with changed credentials", pipes[1]);
    probe_child_end();
  }
  struct identity was, is;
  look(&was);
  for (int i = 0; i < 4; i++) MUST(read(pipes[0], &byte, 1));
  probe_wait();
  close(go[1]);
  look(&is);
  compare("first process", &was, &is);
  probe_reap(plain, "child with its own process group");
  probe_reap(session, "session leader");
  probe_reap(changed, "child with changed credentials");
  MUST(rmdir(directory));
  return probe_result();
}
