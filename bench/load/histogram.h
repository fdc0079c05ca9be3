/* How often each latency was seen, within 1 % of the value. */
#pragma once

#include <stdint.h>

struct histogram {
	uint64_t *counts;
	uint64_t total;
	uint64_t greatest;
};

struct histogram make_histogram(void);

void record(struct histogram *histogram, uint64_t ns);

/** The value that this share of all are at or below, 0 < percentile ≤ 100. There must be one. */
uint64_t value_at(const struct histogram *histogram, double percentile);

/** Prints `"p50":…,"p99":…,"p99.9":…,"max":…,"percentiles":[[50,…],…]` in µs; null and [] if it is empty. */
void print_latency(const struct histogram *histogram);
