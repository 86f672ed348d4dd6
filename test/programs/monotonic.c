/* G10: CLOCK_MONOTONIC and CLOCK_BOOTTIME never jump back, and by how far they jump forward the wall clock explains. */
#include "probe.h"

#define SECOND 1000000000LL

int main(void) {
  int64_t monotonic = 0, boot = 0, raw = 0, steps = 0;
  int64_t wall_offset_was = probe_nanoseconds(CLOCK_REALTIME) - probe_nanoseconds(CLOCK_MONOTONIC);
  int64_t cpu = probe_nanoseconds(CLOCK_PROCESS_CPUTIME_ID), started = probe_nanoseconds(CLOCK_MONOTONIC);
  probe_ready();
  while (!probe_gone()) {
    int64_t now = probe_nanoseconds(CLOCK_MONOTONIC);
    if (now < monotonic) probe_fail("CLOCK_MONOTONIC went back by %ld ms", (long)((monotonic - now) / 1000000));
    if (monotonic && now - monotonic > 600 * SECOND) probe_fail("CLOCK_MONOTONIC jumped forward by %ld s", (long)((now - monotonic) / SECOND));
    monotonic = now;
    now = probe_nanoseconds(CLOCK_BOOTTIME);
    if (now < boot) probe_fail("CLOCK_BOOTTIME went back by %ld ms", (long)((boot - now) / 1000000));
    boot = now;
    now = probe_nanoseconds(CLOCK_MONOTONIC_RAW);
    if (now < raw) probe_fail("CLOCK_MONOTONIC_RAW went back by %ld ms", (long)((raw - now) / 1000000));
    raw = now;
    steps++;
    probe_pause(1);
  }
  if (probe_broken()) monotonic += 100 * SECOND;
  int64_t now = probe_nanoseconds(CLOCK_MONOTONIC);
  CHECK(now >= monotonic, "CLOCK_MONOTONIC went back");
  CHECK(now - started < 600 * SECOND, "CLOCK_MONOTONIC says that %ld s have passed", (long)((now - started) / SECOND));
  CHECK(steps > 10, "the loop made %ld steps only", (long)steps);
  CHECK(probe_nanoseconds(CLOCK_PROCESS_CPUTIME_ID) >= 0 && cpu >= 0, "CPU time");
  /* The wall clock may have moved on while the program was not running, never back. */
  int64_t wall_offset = probe_nanoseconds(CLOCK_REALTIME) - now;
  CHECK(wall_offset - wall_offset_was > -SECOND, "the wall clock fell behind by %ld ms", (long)((wall_offset_was - wall_offset) / 1000000));
  return probe_result();
}
