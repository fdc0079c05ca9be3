/* The client's sockets, one a flow. */
#pragma once

#include "udp-load.h"

struct flows {
	int *sockets;
	unsigned count;
};

/** Makes a socket for each flow, connected to the target. */
struct flows open_flows(const struct load *load);

/** Greets the sink on each flow until all are answered; ends the program if one is not within 2 s. */
void greet(const struct flows *flows, const struct load *load, uint32_t run);

/**
 * Whether the error of a send, in errno, tells of an earlier datagram or of a full queue, and is gone with the
 * next try. Ends the program if it is a refusal of trains.
 */
bool may_send_again(const struct load *load);
