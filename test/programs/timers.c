/* R14: interval timers, POSIX timers, alarm and an absolute sleep keep their remaining time (the time between does not count). */
#include <sys/time.h>
#include "probe.h"

#define SECOND 1000000000LL

static volatile sig_atomic_t alarms, ticks;
static void on_alarm(int signal) { (void)signal, alarms++; }
static void on_tick(int signal, siginfo_t *info, void *context) {
  (void)signal, (void)context;
  ticks += info->si_value.sival_int == 77;
}

int main(void) {
  struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  MUST(sigaction(SIGALRM, &action, NULL));
  action.sa_sigaction = on_tick;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  MUST(sigaction(SIGRTMIN, &action, NULL));
  struct itimerval virtual_time = {{5, 0}, {500, 0}}, profile = {{0, 250000}, {600, 0}}, now;
  MUST(setitimer(ITIMER_VIRTUAL, &virtual_time, NULL));
  MUST(setitimer(ITIMER_PROF, &profile, NULL));
  struct itimerval real = {{0, 0}, {900, 0}};
  MUST(setitimer(ITIMER_REAL, &real, NULL));
  timer_t first, distant, silent, ticking;
  struct sigevent none = {.sigev_notify = SIGEV_NONE}, by_signal = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
  by_signal.sigev_value.sival_int = 77;
  MUST(timer_create(CLOCK_MONOTONIC, &none, &first)); /* its number shall not be reused */
  MUST(timer_create(CLOCK_MONOTONIC, &by_signal, &distant));
  MUST(timer_create(CLOCK_REALTIME, &none, &silent));
  MUST(timer_create(CLOCK_MONOTONIC, &by_signal, &ticking));
  MUST(timer_delete(first));
  struct itimerspec far = {.it_value = {1000, 0}, .it_interval = {3, 4}}, long_ago = {.it_value = {800, 0}}, left;
  struct itimerspec often = {.it_value = {0, 50000000}, .it_interval = {0, 50000000}};
  MUST(timer_settime(distant, 0, &far, NULL));
  MUST(timer_settime(silent, 0, &long_ago, NULL));
  MUST(timer_settime(ticking, 0, &often, NULL));
  pid_t absolute = MUST(fork());
  if (absolute == 0) {
    int64_t start = probe_nanoseconds(CLOCK_MONOTONIC);
    struct timespec until = {(start + 2 * SECOND) / SECOND, (start + 2 * SECOND) % SECOND};
    int result = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    int64_t slept = probe_nanoseconds(CLOCK_MONOTONIC) - start;
    CHECK(result == 0 && slept >= 2 * SECOND && slept < 4 * SECOND, "absolute sleep: %d, %ld ms", result, (long)(slept / 1000000));
    probe_child_end();
  }
  int64_t started = probe_nanoseconds(CLOCK_MONOTONIC);

  probe_wait();

  double passed = (probe_nanoseconds(CLOCK_MONOTONIC) - started) / 1e9;
  if (probe_broken()) passed += 50;
  MUST(getitimer(ITIMER_REAL, &now));
  CHECK(llabs(900 - (long)passed - now.it_value.tv_sec) <= 2, "ITIMER_REAL: %ld s left after %.1f s", (long)now.it_value.tv_sec, passed);
  MUST(getitimer(ITIMER_VIRTUAL, &now));
  CHECK(now.it_interval.tv_sec == 5 && now.it_value.tv_sec > 490, "ITIMER_VIRTUAL: %ld s left", (long)now.it_value.tv_sec);
  MUST(getitimer(ITIMER_PROF, &now));
  CHECK(now.it_interval.tv_usec == 250000 && now.it_value.tv_sec > 590, "ITIMER_PROF: %ld s left", (long)now.it_value.tv_sec);
  MUST(timer_gettime(distant, &left));
  CHECK(llabs(1000 - (long)passed - left.it_value.tv_sec) <= 2, "POSIX timer: %ld s left after %.1f s", (long)left.it_value.tv_sec, passed);
  CHECK(left.it_interval.tv_sec == 3 && left.it_interval.tv_nsec == 4, "POSIX timer: interval");
  MUST(timer_gettime(silent, &left));
  CHECK(llabs(800 - (long)passed - left.it_value.tv_sec) <= 2, "real-time POSIX timer: %ld s left after %.1f s", (long)left.it_value.tv_sec, passed);
  int before = ticks;
  CHECK(before > 0, "the ticking timer never fired with its value");
  for (int i = 0; i < 100 && ticks < before + 3; i++) probe_pause(20);
  CHECK(ticks >= before + 3, "the ticking timer has stopped");
  real.it_value = (struct timeval){0, 10000};
  MUST(setitimer(ITIMER_REAL, &real, NULL));
  for (int i = 0; i < 100 && !alarms; i++) probe_pause(20);
  CHECK(alarms == 1, "%d alarms instead of 1", (int)alarms);
  MUST(timer_delete(ticking));
  timer_t fresh;
  MUST(timer_create(CLOCK_MONOTONIC, &none, &fresh));
  probe_reap(absolute, "absolute sleeper");
  return probe_result();
}
