/* One clock for all: CLOCK_MONOTONIC in ns, which no adjustment of the time of day moves. */
#pragma once

#include <stdint.h>

enum { MICROSECOND = 1000, MILLISECOND = 1000 * 1000, SECOND = 1000 * 1000 * 1000 };

uint64_t now_ns(void);

void sleep_until(uint64_t ns);

/** Lets timers of this thread, and of those it starts, fire when they are due and not up to 50 µs later. */
void want_exact_timers(void);
