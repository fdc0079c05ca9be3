/* What stands in a datagram of udp-load: a label, then the fill of its sequence number. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DATAGRAM_LEAST_SIZE = 24, DATAGRAM_MOST_SIZE = 65507 };

enum datagram_kind {
	/** From a client: its flow begins here. */
	GREETING = 1,
	/** From the sink: the greeting has arrived. */
	ANSWER,
	/** One of a trial, with a number of its own in its flow. */
	NUMBERED,
};

struct datagram {
	enum datagram_kind kind;
	/** One trial of one process; no other has the same. */
	uint32_t run;
	uint32_t flow;
	uint64_t sequence;
};

void write_datagram(const struct datagram *datagram, uint8_t *bytes, size_t size);

/** False for bytes that are not, to the last one, what write_datagram wrote. */
bool read_datagram(struct datagram *datagram, const uint8_t *bytes, size_t size);
