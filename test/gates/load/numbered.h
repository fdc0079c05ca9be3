/*
 * Datagrams whose length and bytes are a function of flow, number and direction, so that whoever gets one knows what
 * it has to be, and nothing needs to be kept of what is under way.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LONGEST = 65507, TRAIN = 16 };

enum way { THERE, BACK };

struct datagram {
	uint32_t flow;
	uint32_t number;
	enum way way;
};

void prepare_datagrams(void);

/** From 0 to LONGEST. The first of a flow is long enough to say whose it is. */
size_t length_of(struct datagram datagram);

/** Whether this number begins TRAIN datagrams of one length, to be sent as one. */
bool begins_train(uint32_t flow, uint32_t number);

/** Writes length_of(datagram) bytes. */
void write_numbered(struct datagram datagram, uint8_t *bytes);

bool is_numbered(struct datagram datagram, const uint8_t *bytes, size_t length);

/** The flow that a first datagram says it is of; any number, for bytes that are none. */
uint32_t flow_said_by(const uint8_t *bytes, size_t length);
