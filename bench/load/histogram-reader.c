/*
 * For test/bench/load-histogram.test.ts: reads latencies in ns from stdin and prints what a generator would
 * print of them, so that the histogram can be held against exact percentiles.
 */
#include <inttypes.h>
#include <stdio.h>

#include "histogram.h"

int main(void)
{
	struct histogram histogram = make_histogram();
	uint64_t ns;
	while (scanf("%" SCNu64, &ns) == 1)
		record(&histogram, ns);
	printf("{");
	print_latency(&histogram);
	printf("}\n");
	return 0;
}
