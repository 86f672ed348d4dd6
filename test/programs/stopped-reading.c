/*
 * R15, R18: a job that was stopped because it read from its terminal in the background (SIGTTIN): CRIU 4.2 knows SIGSTOP and SIGTSTP
 * only; Cairn must say so before freezing anything.
 */
#include <pty.h>
#include <sys/ioctl.h>
#include "probe.h"

int main(void) {
  int master, slave, status;
  char byte;
  MUST(openpty(&master, &slave, NULL, NULL, NULL));
  pid_t session = MUST(fork());
  if (session == 0) {
    MUST(setsid());
    MUST(ioctl(slave, TIOCSCTTY, 0));
    pid_t job = MUST(fork());
    if (job == 0) {
      MUST(setpgid(0, 0));
      MUST(read(slave, &byte, 1));
      _exit(byte);
    }
    CHECK(waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTIN, "status 0x%x", status);
    probe_wait();
    signal(SIGTTOU, SIG_IGN);
    MUST(tcsetpgrp(slave, job));
    MUST(kill(job, SIGCONT));
    MUST(write(master, probe_broken() ? "b\n" : "a\n", 2));
    CHECK(waitpid(job, &status, 0) == job && WIFEXITED(status) && WEXITSTATUS(status) == 'a', "status 0x%x", status);
    probe_child_end();
  }
  probe_reap(session, "session");
  return probe_result();
}
