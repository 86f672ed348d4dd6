/* R07: eventfd, epoll (nested, edge-triggered, one-shot), signalfd, timerfd, pidfd keep their state. */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include "probe.h"

static void add(int epoll, int fd, uint32_t events, uint64_t data) {
  struct epoll_event event = {.events = events, .data.u64 = data};
  MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

static int wait_events(int epoll, struct epoll_event *events) { return MUST(epoll_wait(epoll, events, 8, 0)); }

int main(void) {
  uint64_t value;
  struct epoll_event events[8];
  int counter = MUST(eventfd(41, EFD_NONBLOCK)), second = MUST(eventfd(7, EFD_CLOEXEC));
  value = 1;
  MUST(write(counter, &value, 8));
  int pipes[2];
  MUST(pipe(pipes));
  int epoll = MUST(epoll_create1(EPOLL_CLOEXEC)), outer = MUST(epoll_create1(0));
  add(epoll, counter, EPOLLIN, 0x1122334455667788);
  add(epoll, pipes[0], EPOLLIN | EPOLLET, 2);
  add(epoll, pipes[1], EPOLLOUT | EPOLLONESHOT, 3);
  add(outer, epoll, EPOLLIN, 4);
  MUST(wait_events(epoll, events)); /* uses up the one-shot */
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  sigaddset(&mask, SIGRTMIN + 3);
  MUST(sigprocmask(SIG_BLOCK, &mask, NULL));
  int signals = MUST(signalfd(-1, &mask, SFD_NONBLOCK));
  MUST(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 12345}));
  /* Fires after 0.4 s, then every hour: one expiry at the latest when it is read. */
  int timer = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  struct itimerspec times = {.it_value = {0, 400000000}, .it_interval = {3600, 0}}, left;
  MUST(timerfd_settime(timer, 0, &times, NULL));
  int distant = MUST(timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK));
  struct itimerspec far = {.it_value = {1000, 0}, .it_interval = {7, 5}};
  MUST(timerfd_settime(distant, 0, &far, NULL));
  int ticked = MUST(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
  struct itimerspec soon = {.it_value = {0, 1000}};
  MUST(timerfd_settime(ticked, 0, &soon, NULL));
  /* Periodic, its expiry not read: the kernel lets it go on only with the read. */
  int waiting = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  struct itimerspec often = {.it_value = {0, 1000}, .it_interval = {0, 30000000}};
  MUST(timerfd_settime(waiting, 0, &often, NULL));
  /* Set to points in time: one has passed and was read, the other is far. */
  int past = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)), absolute = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  struct itimerspec point = {.it_value = {0, 1}};
  MUST(timerfd_settime(past, TFD_TIMER_ABSTIME, &point, NULL));
  MUST(clock_gettime(CLOCK_MONOTONIC, &point.it_value));
  point.it_value.tv_sec += 1000;
  MUST(timerfd_settime(absolute, TFD_TIMER_ABSTIME, &point, NULL));
  probe_pause(5);
  MUST(read(past, &value, 8));
  pid_t child = MUST(fork());
  if (child == 0) {
    probe_wait_quietly();
    probe_pause(300);
    _exit(9);
  }
  int pidfd = syscall(SYS_pidfd_open, child, 0);
  int64_t started = probe_nanoseconds(CLOCK_MONOTONIC);

  probe_wait();

  if (probe_broken()) MUST(read(counter, &value, 8));
  CHECK(wait_events(outer, events) == 1 && events[0].data.u64 == 4, "the outer epoll does not see the inner one");
  int count = wait_events(epoll, events);
  CHECK(count == 1 && events[0].data.u64 == 0x1122334455667788, "epoll: %d events, data %lx", count, (long)events[0].data.u64);
  MUST(write(pipes[1], "x", 1));
  count = wait_events(epoll, events);
  CHECK(count == 2, "epoll: %d events after a write to the pipe", count);
  count = wait_events(epoll, events);
  CHECK(count == 1, "epoll: the edge-triggered event came twice");
  CHECK(read(counter, &value, 8) == 8 && value == 42, "the eventfd holds %ld", (long)value);
  CHECK(read(second, &value, 8) == 8 && value == 7, "the second eventfd holds %ld", (long)value);
  CHECK(fcntl(second, F_GETFD) == FD_CLOEXEC && fcntl(counter, F_GETFD) == 0, "close-on-exec of the eventfds");
  struct signalfd_siginfo info;
  CHECK(read(signals, &info, sizeof info) == sizeof info && info.ssi_signo == (uint32_t)SIGRTMIN + 3 && info.ssi_int == 12345,
        "signalfd: queued signal lost");
  MUST(kill(getpid(), SIGUSR1));
  CHECK(read(signals, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1, "signalfd: new signal not seen");
  while (probe_nanoseconds(CLOCK_MONOTONIC) - started < 500000000) probe_pause(10);
  CHECK(read(timer, &value, 8) == 8 && value == 1, "timerfd: %ld expirations", (long)value);
  MUST(timerfd_gettime(timer, &left));
  CHECK(left.it_interval.tv_sec == 3600 && left.it_value.tv_sec > 3300, "timerfd: interval %ld, left %ld", (long)left.it_interval.tv_sec,
        (long)left.it_value.tv_sec);
  MUST(timerfd_gettime(distant, &left));
  int64_t passed = (probe_nanoseconds(CLOCK_MONOTONIC) - started) / 1000000000;
  CHECK(llabs(1000 - passed - left.it_value.tv_sec) <= 2, "boottime timerfd: %ld s left after %ld s", (long)left.it_value.tv_sec, (long)passed);
  CHECK(left.it_interval.tv_sec == 7 && left.it_interval.tv_nsec == 5, "boottime timerfd: interval");
  CHECK(read(ticked, &value, 8) == 8 && value == 1, "the expired timerfd has lost its expiration");
  CHECK(read(waiting, &value, 8) == 8 && value >= 1, "the periodic timerfd has lost its expiration");
  int ticks = 0;
  for (int i = 0; i < 100 && ticks < 2; i++) {
    probe_pause(20);
    ticks += read(waiting, &value, 8) == 8;
  }
  CHECK(ticks == 2, "the periodic timerfd has stopped");
  CHECK(read(past, &value, 8) < 0 && errno == EAGAIN, "a timerfd that had expired and was read fires again");
  MUST(timerfd_gettime(absolute, &left));
  passed = probe_nanoseconds(CLOCK_MONOTONIC) - started;
  /* Never early; late by what the restores took, during which the clock already goes. */
  int64_t late = left.it_value.tv_sec * 1000000000 + left.it_value.tv_nsec + passed - 1000000000000;
  CHECK(late > -50000000 && late < 5000000000, "absolute timerfd: %ld ms late after %ld ms", (long)(late / 1000000),
        (long)(passed / 1000000));
  if (pidfd >= 0) {
    siginfo_t dead;
    CHECK(waitid(P_PIDFD, pidfd, &dead, WEXITED) == 0 && dead.si_pid == child && dead.si_status == 9, "the pidfd has lost its child");
  }
  return probe_result();
}
