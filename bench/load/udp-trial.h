/* One trial of udp-load: so many datagrams a second for so long, and what became of them. */
#pragma once

#include "udp-flows.h"
#include "udp-sink.h"

/** The way that is tried: sockets at both ends, and flows that were answered. */
struct way {
	const struct load *load;
	struct flows flows;
	struct sink *sink;
	uint32_t run;
};

struct trial {
	/** Datagrams a second that were sent, and that arrived. */
	double offered;
	double delivered;
	uint64_t sent;
	struct tally tally;
	/** The share that did not arrive. */
	double loss;
	/** Seconds from the last that was sent to the last that arrived. */
	double drained;
};

/** Rate 0 is as fast as it goes. */
struct trial run_trial(struct way *way, double rate);

/** Prints a JSON object. */
void print_trial(const struct way *way, const struct trial *trial);
