/* R14: handlers, masks, pending signals (standard, queued real-time ones with values, for one thread), alternate stack. */
#include <pthread.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include "probe.h"

static volatile int seen[64], order[64], values[64], count, on_stack, code[64];
static volatile pid_t sender[64];
static char *stack;

static void handler(int signal, siginfo_t *info, void *context) {
  (void)context;
  char here;
  on_stack = &here >= stack && &here < stack + 65536;
  seen[signal]++;
  order[count] = signal;
  values[count] = info->si_value.sival_int;
  code[count] = info->si_code;
  sender[count++] = info->si_pid;
}

/* The C library reports SI_TKILL as SI_USER in sigtimedwait(). */
static int by_tgkill(const siginfo_t *info) { return (info->si_code == SI_TKILL || info->si_code == SI_USER) && info->si_pid == getpid(); }

static void *blocked_thread(void *argument) {
  sigset_t mask, pending;
  sigfillset(&mask);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  MUST(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR2));
  *(volatile int *)argument = 1;
  probe_wait_quietly();
  sigpending(&pending);
  CHECK(sigismember(&pending, SIGUSR2), "thread: its own pending signal is lost");
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  siginfo_t info;
  struct timespec now = {0, 0};
  CHECK(sigtimedwait(&mask, &info, &now) == SIGUSR2 && by_tgkill(&info), "thread: pending signal differs");
  return NULL;
}

int main(void) {
  const int rt = SIGRTMIN + 5;
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART}, found;
  sigaddset(&action.sa_mask, SIGINT);
  sigaddset(&action.sa_mask, SIGRTMIN + 9);
  stack = malloc(65536);
  stack_t alternate = {.ss_sp = stack, .ss_size = 65536}, alternate_now;
  MUST(sigaltstack(&alternate, NULL));
  MUST(sigaction(SIGUSR1, &action, NULL));
  MUST(sigaction(SIGUSR2, &action, NULL));
  MUST(sigaction(rt, &action, NULL));
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESETHAND;
  MUST(sigaction(SIGHUP, &action, NULL));
  signal(SIGWINCH, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  sigset_t mask, mask_now, pending;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  sigaddset(&mask, rt);
  sigaddset(&mask, SIGALRM);
  MUST(sigprocmask(SIG_SETMASK, &mask, NULL));
  MUST(kill(getpid(), SIGUSR1));
  for (int i = 0; i < 5; i++) MUST(sigqueue(getpid(), rt, (union sigval){.sival_int = 100 + i}));
  MUST(syscall(SYS_tgkill, getpid(), getpid(), SIGALRM));
  pthread_t thread;
  volatile int thread_ready = 0;
  pthread_create(&thread, NULL, blocked_thread, (void *)&thread_ready);
  while (!thread_ready) probe_pause(1);
  /* A child's death that nobody has waited for: SIGCHLD is pending too, and the zombie stays. */
  pid_t zombie = MUST(fork());
  if (zombie == 0) _exit(42);
  siginfo_t dead;
  MUST(waitid(P_PID, zombie, &dead, WEXITED | WNOWAIT));
  pid_t killed = MUST(fork());
  if (killed == 0) for (;;) pause();
  MUST(kill(killed, SIGKILL));
  MUST(waitid(P_PID, killed, &dead, WEXITED | WNOWAIT));

  probe_wait();

  MUST(sigaction(SIGUSR1, NULL, &found));
  CHECK(found.sa_sigaction == handler && (found.sa_flags & (SA_SIGINFO | SA_ONSTACK | SA_RESTART)) == (SA_SIGINFO | SA_ONSTACK | SA_RESTART),
        "handler or flags of SIGUSR1: 0x%x", found.sa_flags);
  CHECK(sigismember(&found.sa_mask, SIGINT) && sigismember(&found.sa_mask, SIGRTMIN + 9) && !sigismember(&found.sa_mask, SIGQUIT),
        "mask of the handler");
  MUST(sigaction(SIGHUP, NULL, &found));
  CHECK((found.sa_flags & ((int)SA_NODEFER | (int)SA_RESETHAND)) == (int)(SA_NODEFER | SA_RESETHAND), "flags of SIGHUP: 0x%x", found.sa_flags);
  MUST(sigaction(SIGWINCH, NULL, &found));
  CHECK(found.sa_handler == SIG_IGN, "SIGWINCH is no longer ignored");
  MUST(sigaction(SIGQUIT, NULL, &found));
  CHECK(found.sa_handler == SIG_DFL, "SIGQUIT has no longer its default action");
  MUST(sigaltstack(NULL, &alternate_now));
  CHECK(alternate_now.ss_sp == stack && alternate_now.ss_size == 65536, "alternate stack differs");
  sigprocmask(SIG_SETMASK, NULL, &mask_now);
  for (int s = 1; s < 64; s++) CHECK(sigismember(&mask, s) == sigismember(&mask_now, s), "signal %d in the mask", s);
  sigpending(&pending);
  CHECK(sigismember(&pending, SIGUSR1) && sigismember(&pending, rt) && sigismember(&pending, SIGALRM), "pending signals are lost");
  CHECK(count == 0, "a blocked signal was delivered");
  if (probe_broken()) MUST(sigqueue(getpid(), rt, (union sigval){.sival_int = 999}));
  sigdelset(&mask, SIGUSR1);
  sigdelset(&mask, rt);
  MUST(sigprocmask(SIG_SETMASK, &mask, NULL));
  CHECK(count == 6 && seen[SIGUSR1] == 1 && seen[rt] == 5, "%d signals instead of 6 came after unblocking", count);
  CHECK(on_stack, "the handler did not run on the alternate stack");
  int next = 100;
  for (int i = 0; i < count; i++) {
    if (order[i] == rt) {
      CHECK(values[i] == next && code[i] == SI_QUEUE && sender[i] == getpid(), "queued signal %d: value %d, code %d, sender %d", i,
            values[i], code[i], sender[i]);
      next++;
    } else {
      CHECK(code[i] == SI_USER && sender[i] == getpid(), "SIGUSR1: code %d, sender %d", code[i], sender[i]);
    }
  }
  siginfo_t info;
  struct timespec now = {0, 0};
  CHECK(sigtimedwait(&mask, &info, &now) == SIGALRM && by_tgkill(&info), "the thread-directed signal differs");
  MUST(kill(getpid(), SIGHUP));
  CHECK(seen[SIGHUP] == 1, "SIGHUP was not handled");
  MUST(sigaction(SIGHUP, NULL, &found));
  CHECK(found.sa_handler == SIG_DFL, "SA_RESETHAND has no effect");
  pthread_join(thread, NULL);
  int status;
  CHECK(waitpid(zombie, &status, 0) == zombie && WIFEXITED(status) && WEXITSTATUS(status) == 42, "zombie: status 0x%x", status);
  CHECK(waitpid(killed, &status, 0) == killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "killed zombie: 0x%x", status);
  return probe_result();
}
