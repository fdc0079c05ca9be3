/*
 * Every message is compared byte by byte with what was sent, so making and comparing bytes must cost less than
 * carrying them. The bytes of a number are a window into one table of random bytes, at a place that the number
 * decides: making them is a memcpy or nothing, comparing them a memcmp. There are 1021 windows, a prime, so
 * that the messages of a flow or connection, whose numbers differ by some multiple, have different ones.
 *
 * What could make it lie: two numbers 1021 apart have the same fill. The number itself stands in front.
 */
#include "fill.h"

enum { WINDOWS = 1021, WINDOW_STEP = 8 };

static uint8_t table[FILL_MOST + WINDOWS * WINDOW_STEP];

void prepare_fill(void)
{
	/* xorshift64: any generator whose bytes do not repeat within the table. */
	uint64_t state = 0x9e3779b97f4a7c15;
	for (size_t i = 0; i < sizeof table; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		table[i] = (uint8_t)(state >> 32);
	}
}

const uint8_t *fill_of(uint64_t number)
{
	return table + number % WINDOWS * WINDOW_STEP;
}
