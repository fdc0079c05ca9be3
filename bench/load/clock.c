/*
 * Generators sleep until something is due instead of watching the clock: on two cores a spinning generator
 * would take one away from what it measures. What a sleep costs is lateness, which the generators report.
 */
#define _GNU_SOURCE
#include "clock.h"

#include <errno.h>
#include <sys/prctl.h>
#include <time.h>

#include "failure.h"

uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

void sleep_until(uint64_t ns)
{
	struct timespec until = { .tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND) };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

void want_exact_timers(void)
{
	must(prctl(PR_SET_TIMERSLACK, 1UL), "prctl(PR_SET_TIMERSLACK)");
}
