/* The receiving end of udp-load: a thread that counts what arrives. */
#pragma once

#include "udp-load.h"

/** What has arrived of one run. Only `received` arrived once, whole, and as part of its own flow. */
struct tally {
	uint64_t received;
	/** Were received before. */
	uint64_t duplicates;
	/** Received behind a later one of their flow; also counted as received. */
	uint64_t reordered;
	/** Not what anybody sent: damaged, cut, prolonged, or from elsewhere. */
	uint64_t corrupt;
	/** From another socket than that which greeted for their flow. */
	uint64_t misrouted;
	/** Whole, and of another run than the one that is counted. */
	uint64_t stale;
	/** When something arrived last, 0 if nothing did. */
	uint64_t last;
};

struct sink;

/** Opens the socket and starts the thread. Greetings of run `greeted` are answered. */
struct sink *start_sink(const struct load *load, uint32_t greeted);

/** Begins to count afresh: `run`, of which each flow sends less than `most` datagrams. */
void count_run(struct sink *sink, uint32_t run, uint64_t most);

struct tally tally_of(struct sink *sink);
