/*
 * A log-linear histogram, as HdrHistogram has it: 128 linear steps between each power of two and the next. A
 * value is known to half a step, at most 1/256 of it (0.4 %), from 1 ns to 36 minutes, in 35 KiB that do not
 * grow; recording is a shift and an increment. The greatest value is kept exactly, and no percentile exceeds it.
 *
 * What could make it lie: averaging percentiles of several runs (print each run's), and values that were never
 * recorded, which is the caller's duty (tcp-open.c counts them as failed).
 */
#include "histogram.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "failure.h"

enum { STEP_BITS = 7, STEPS = 1 << STEP_BITS, OCTAVES = 41 - STEP_BITS, SLOTS = (OCTAVES + 1) * STEPS };

static const uint64_t most = (UINT64_C(1) << 41) - 1;

struct histogram make_histogram(void)
{
	struct histogram histogram = { .counts = calloc(SLOTS, sizeof *histogram.counts) };
	if (!histogram.counts)
		failure("no memory for a histogram");
	return histogram;
}

/* Below 2 × STEPS each value has its own slot; above, the leading 8 bits are kept. */
static unsigned slot_of(uint64_t value)
{
	if (value > most)
		value = most;
	unsigned bits = 64 - (unsigned)__builtin_clzll(value | 1);
	unsigned dropped = bits > STEP_BITS + 1 ? bits - (STEP_BITS + 1) : 0;
	return dropped * STEPS + (unsigned)(value >> dropped);
}

static uint64_t middle_of(unsigned slot)
{
	if (slot < 2 * STEPS)
		return slot;
	unsigned dropped = slot / STEPS - 1;
	uint64_t leading = slot - dropped * STEPS;
	return (leading << dropped) + (UINT64_C(1) << dropped) / 2;
}

void record(struct histogram *histogram, uint64_t ns)
{
	histogram->counts[slot_of(ns)]++;
	histogram->total++;
	if (ns > histogram->greatest)
		histogram->greatest = ns;
}

uint64_t value_at(const struct histogram *histogram, double percentile)
{
	/* 99.9 % of 1000 is 999.0000000000001 in floating point, and is the 999th value all the same. */
	double rank = ceil(percentile / 100 * (double)histogram->total - 1e-6);
	uint64_t wanted = rank < 1 ? 1 : (uint64_t)rank;
	if (wanted >= histogram->total)
		return histogram->greatest;
	uint64_t seen = 0;
	unsigned slot = 0;
	while ((seen += histogram->counts[slot]) < wanted)
		slot++;
	uint64_t value = middle_of(slot);
	return value < histogram->greatest ? value : histogram->greatest;
}

static void print_value(const struct histogram *histogram, double percentile)
{
	if (histogram->total == 0)
		printf("null");
	else
		printf("%.1f", (double)value_at(histogram, percentile) / 1000);
}

static void print_named(const struct histogram *histogram, const char *name, double percentile)
{
	printf("\"%s\":", name);
	print_value(histogram, percentile);
	printf(",");
}

void print_latency(const struct histogram *histogram)
{
	static const double percentiles[] = { 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 100 };
	print_named(histogram, "p50", 50);
	print_named(histogram, "p99", 99);
	print_named(histogram, "p99.9", 99.9);
	print_named(histogram, "max", 100);
	printf("\"percentiles\":[");
	for (unsigned i = 0; histogram->total > 0 && i < sizeof percentiles / sizeof *percentiles; i++) {
		printf("%s[%g,", i > 0 ? "," : "", percentiles[i]);
		print_value(histogram, percentiles[i]);
		printf("]");
	}
	printf("]");
}
