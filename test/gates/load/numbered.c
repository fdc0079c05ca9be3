/*
 * Lengths: one in sixteen is empty, one in sixteen lies at an edge, the others are spread evenly over the orders of
 * magnitude. Every fourth group of sixteen is a train of one length that fits an Ethernet frame.
 *
 * Bytes: from 4 on the first four are a mix of all three, which two different datagrams share by a chance of one in
 * 4 000 million; the rest is a place in a table of random bytes that the mix decides. Shorter ones are told by length
 * and order alone.
 */
#include "numbered.h"

#include <math.h>
#include <string.h>

enum { TABLE = 1 << 20, LABEL = 4, FIRST = 8 };

static uint8_t table[TABLE + LONGEST];

static const uint16_t edges[] = { 1, 2, 3, 4, 512, 1231, 1232, 1233, 1472, 1473, 1500, 8192, 32768, 65505, 65506, LONGEST };

static uint64_t mix(uint64_t value)
{
	value ^= value >> 33;
	value *= 0xff51afd7ed558ccd;
	value ^= value >> 33;
	value *= 0xc4ceb9fe1a85ec53;
	return value ^ value >> 33;
}

void prepare_datagrams(void)
{
	for (size_t i = 0; i < sizeof table; i++)
		table[i] = (uint8_t)mix(i + 1);
}

static uint64_t seed_of(struct datagram datagram)
{
	return mix(mix((uint64_t)datagram.flow << 32 | datagram.number) + (uint64_t)datagram.way);
}

static bool in_train(uint32_t flow, uint32_t number)
{
	return number >= TRAIN && mix((uint64_t)flow << 32 | (number / TRAIN)) % 4 == 0;
}

bool begins_train(uint32_t flow, uint32_t number)
{
	return number % TRAIN == 0 && in_train(flow, number);
}

static size_t spread(uint64_t seed, size_t most)
{
	return (size_t)floor(pow((double)most + 1, (double)(seed % 100003) / 100003));
}

size_t length_of(struct datagram datagram)
{
	uint64_t seed = seed_of(datagram);
	if (datagram.number == 0)
		return FIRST + seed % 1000;
	if (in_train(datagram.flow, datagram.number))
		return spread(mix((uint64_t)datagram.flow << 32 | (datagram.number / TRAIN | 1u << 31)), 1400);
	if (seed >> 60 == 0)
		return 0;
	if (seed >> 60 == 1)
		return edges[seed % (sizeof edges / sizeof *edges)];
	return spread(seed, LONGEST);
}

static const uint8_t *fill_of(struct datagram datagram)
{
	return table + seed_of(datagram) % TABLE;
}

/* The first of a flow says its number behind the label. */
void write_numbered(struct datagram datagram, uint8_t *bytes)
{
	size_t length = length_of(datagram);
	uint32_t label = (uint32_t)seed_of(datagram);
	memcpy(bytes, fill_of(datagram), length);
	if (length >= LABEL)
		memcpy(bytes, &label, LABEL);
	if (datagram.number == 0)
		memcpy(bytes + LABEL, &datagram.flow, sizeof datagram.flow);
}

bool is_numbered(struct datagram datagram, const uint8_t *bytes, size_t length)
{
	static uint8_t expected[LONGEST];
	if (length != length_of(datagram))
		return false;
	write_numbered(datagram, expected);
	return memcmp(expected, bytes, length) == 0;
}

uint32_t flow_said_by(const uint8_t *bytes, size_t length)
{
	uint32_t flow = UINT32_MAX;
	if (length >= FIRST)
		memcpy(&flow, bytes + LABEL, sizeof flow);
	return flow;
}
