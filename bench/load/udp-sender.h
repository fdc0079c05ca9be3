/* The sending end of udp-load. */
#pragma once

#include "udp-flows.h"

struct sending {
	uint64_t sent;
	uint64_t start;
	/** When the last call returned. */
	uint64_t end;
};

/** Rates above this cannot be had; it bounds what has to be remembered of a run. */
extern const double fastest;

/** Sends run `run` at `rate` datagrams a second for load->seconds; rate 0 is as fast as it goes. */
struct sending send_run(const struct flows *flows, const struct load *load, uint32_t run, double rate);
