/* What the kernel holds for the TCP sockets of this network namespace, by their ports. */
#pragma once

#include <stdint.h>

struct queues {
	uint16_t local, remote;
	/** Bytes that the other side has not confirmed, or not been sent. */
	uint32_t sending;
	/** Bytes that came and nobody has read. */
	uint32_t received;
};

struct tcp_table {
	struct queues *sockets;
	unsigned count;
};

/** Of both families; listeners are left out. */
struct tcp_table read_tcp_table(void);

void free_tcp_table(struct tcp_table *table);

/** NULL if there is none. */
const struct queues *find_socket(const struct tcp_table *table, uint16_t local, uint16_t remote);
