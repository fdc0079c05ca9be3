/* What the parts of udp-load know of a run. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "endpoint.h"

struct load {
	struct endpoint target;
	struct endpoint sink;
	/** Paths, or NULL for where the program was started. */
	const char *client_namespace;
	const char *sink_namespace;
	/** Bytes of a datagram. */
	unsigned size;
	unsigned flows;
	double seconds;
	/** Datagrams that are handed over as one train; 1 for none. */
	unsigned train;
	/** Mode `rate`: datagrams a second, 0 for as many as possible. */
	double rate;
	/** Mode `search`: how many rates are tried at most, and the share that may be lost. */
	unsigned trials;
	double loss;
};
