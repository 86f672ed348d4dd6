/* R14: stopped children stay stopped, in their own process groups, and run on by SIGCONT; a program in pause, sigsuspend, select. */
#include <poll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include "probe.h"

static char state_of(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY);
  ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  if (length <= 0) return '?';
  text[length] = 0;
  return strrchr(text, ')')[2];
}

static int wait_state(pid_t pid, char state) {
  for (int i = 0; i < 2000; i++) {
    if (state_of(pid) == state) return 1;
    probe_pause(2);
  }
  return 0;
}

static volatile sig_atomic_t got;
static void handler(int signal) { got = signal; }

int main(void) {
  static const char *kinds[] = {"stopped by SIGSTOP", "stopped by itself", "in pause", "in sigsuspend", "in select", "in poll", "in waitid"};
  pid_t children[7];
  for (int kind = 0; kind < 7; kind++) {
    children[kind] = MUST(fork());
    if (children[kind] == 0) {
      struct sigaction action = {.sa_handler = handler};
      sigaction(SIGUSR1, &action, NULL);
      sigset_t mask;
      sigemptyset(&mask);
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      setpgid(0, 0);
      if (kind == 0) for (volatile long loops = 0; !got; loops++) if (loops > 100000) probe_pause(5);
      if (kind == 1) {
        raise(SIGTSTP);
        while (!got) probe_pause(5);
      }
      if (kind == 2) while (!got) pause();
      if (kind == 3) while (!got) sigsuspend(&mask);
      if (kind == 4) CHECK(select(0, NULL, NULL, NULL, NULL) < 0 && errno == EINTR, "select ended without a signal (%d)", errno);
      if (kind == 5) while (!got) CHECK(poll(NULL, 0, -1) < 0 && errno == EINTR, "poll ended with %d", errno);
      if (kind == 6) {
        pid_t grandchild = MUST(fork());
        if (grandchild == 0) {
          prctl(PR_SET_PDEATHSIG, SIGKILL);
          for (;;) pause();
        }
        siginfo_t dead;
        CHECK(waitid(P_PID, grandchild, &dead, WEXITED) < 0 && errno == EINTR, "waitid ended without a signal");
        kill(grandchild, SIGKILL);
        waitpid(grandchild, NULL, 0);
      }
      CHECK(got == SIGUSR1, "signal %d", got);
      probe_child_end();
    }
  }
  for (int kind = 2; kind < 7; kind++) CHECK(wait_state(children[kind], 'S'), "%s: state %c", kinds[kind], state_of(children[kind]));
  MUST(kill(children[0], SIGSTOP));
  siginfo_t info;
  for (int kind = 0; kind < 2; kind++) CHECK(wait_state(children[kind], 'T'), "%s: state %c", kinds[kind], state_of(children[kind]));

  probe_wait();

  if (probe_broken()) MUST(kill(children[0], SIGCONT));
  probe_pause(50);
  for (int kind = 0; kind < 2; kind++) CHECK(state_of(children[kind]) == 'T', "%s: state %c after the restart", kinds[kind], state_of(children[kind]));
  for (int kind = 2; kind < 7; kind++) CHECK(wait_state(children[kind], 'S'), "%s: state %c after the restart", kinds[kind], state_of(children[kind]));
  for (int kind = 0; kind < 2; kind++) {
    CHECK(getpgid(children[kind]) == children[kind], "%s: not in its process group", kinds[kind]);
    MUST(kill(children[kind], SIGUSR1));
    probe_pause(5);
    CHECK(probe_broken() || state_of(children[kind]) == 'T', "%s: ran without SIGCONT", kinds[kind]);
    MUST(kill(children[kind], SIGCONT));
    CHECK(waitid(P_PID, children[kind], &info, WEXITED) == 0 && info.si_status == 0, "%s: status %d", kinds[kind], info.si_status);
  }
  for (int kind = 2; kind < 7; kind++) {
    MUST(kill(children[kind], SIGUSR1));
    probe_reap(children[kind], kinds[kind]);
  }
  return probe_result();
}
