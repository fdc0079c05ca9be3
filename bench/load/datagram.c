/*
 * The label is 24 bytes: kind, run, flow and sequence, and a check over these and the datagram's length. The
 * check makes a label that was damaged differ from one that is merely late or strange, also in the smallest
 * datagrams, which have no fill.
 *
 * What could make it lie: the check is 32 bits, so one of 4 000 million damaged labels passes as another one.
 * Byte order is this machine's; both ends are this process.
 */
#include "datagram.h"

#include <string.h>

#include "fill.h"

struct label {
	uint32_t kind;
	uint32_t run;
	uint32_t flow;
	uint32_t check;
	uint64_t sequence;
};

_Static_assert(sizeof(struct label) == DATAGRAM_LEAST_SIZE, "the label has no gaps");

/* The finaliser of MurmurHash3: each bit of the input changes half of the output. */
static uint64_t mix(uint64_t value)
{
	value ^= value >> 33;
	value *= 0xff51afd7ed558ccd;
	value ^= value >> 33;
	value *= 0xc4ceb9fe1a85ec53;
	return value ^ value >> 33;
}

static uint32_t check_of(const struct label *label, size_t size)
{
	uint64_t whose = (uint64_t)label->run << 32 | label->flow;
	uint64_t what = (uint64_t)label->kind << 32 | (uint32_t)size;
	return (uint32_t)mix(mix(mix(label->sequence) ^ whose) ^ what);
}

void write_datagram(const struct datagram *datagram, uint8_t *bytes, size_t size)
{
	struct label label = {
		.kind = datagram->kind,
		.run = datagram->run,
		.flow = datagram->flow,
		.sequence = datagram->sequence,
	};
	label.check = check_of(&label, size);
	memcpy(bytes, &label, sizeof label);
	memcpy(bytes + sizeof label, fill_of(label.sequence), size - sizeof label);
}

bool read_datagram(struct datagram *datagram, const uint8_t *bytes, size_t size)
{
	struct label label;
	if (size < sizeof label)
		return false;
	memcpy(&label, bytes, sizeof label);
	*datagram = (struct datagram){ (enum datagram_kind)label.kind, label.run, label.flow, label.sequence };
	return label.check == check_of(&label, size) &&
	       memcmp(bytes + sizeof label, fill_of(label.sequence), size - sizeof label) == 0;
}
