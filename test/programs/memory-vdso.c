/* R06: calls into the vdso keep working: it is at its address, and agrees with the system calls. */
#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include "probe.h"

static int64_t by_system_call(clockid_t clock) {
  struct timespec now;
  MUST(syscall(SYS_clock_gettime, clock, &now));
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(void) {
  static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE};
  unsigned long vdso = getauxval(AT_SYSINFO_EHDR);
  unsigned cpu;
  probe_nanoseconds(CLOCK_MONOTONIC);
  probe_wait();
  CHECK(getauxval(AT_SYSINFO_EHDR) == vdso, "AT_SYSINFO_EHDR differs");
  if (vdso) CHECK(!memcmp((void *)vdso, "\177ELF", 4), "no ELF header where the vdso was");
  for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++) {
    int64_t before = by_system_call(clocks[i]), inside = probe_nanoseconds(clocks[i]), after = by_system_call(clocks[i]);
    if (probe_broken()) inside -= 1000000000;
    CHECK(before <= inside && inside <= after, "clock %d: vdso says %ld between %ld and %ld", clocks[i], (long)inside, (long)before,
          (long)after);
  }
  struct timeval tv;
  MUST(gettimeofday(&tv, NULL));
  CHECK(llabs(tv.tv_sec - by_system_call(CLOCK_REALTIME) / 1000000000) <= 1, "gettimeofday differs");
  CHECK(llabs(time(NULL) - tv.tv_sec) <= 1, "time differs");
  MUST(syscall(SYS_getcpu, &cpu, NULL, NULL));
  CHECK(sched_getcpu() >= 0, "getcpu through the vdso (or rseq) failed");
  return probe_result();
}
