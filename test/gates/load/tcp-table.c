/*
 * /proc/net/tcp and tcp6, sorted by ports: all addresses are this machine's, so two ports tell a socket.
 */
#define _GNU_SOURCE
#include "tcp-table.h"

#include <stdio.h>
#include <stdlib.h>

#include "failure.h"

enum { LISTEN = 10 };

static int by_ports(const void *a, const void *b)
{
	const struct queues *x = a, *y = b;
	uint32_t left = (uint32_t)x->local << 16 | x->remote, right = (uint32_t)y->local << 16 | y->remote;
	return left < right ? -1 : left > right;
}

static void add(struct tcp_table *table, const struct queues *queues)
{
	/* Room doubles whenever the count is a power of two. */
	if ((table->count & (table->count - 1)) == 0) {
		table->sockets = realloc(table->sockets, sizeof *table->sockets * (table->count ? 2 * table->count : 1));
		if (!table->sockets)
			failure("no memory for %u sockets", table->count);
	}
	table->sockets[table->count++] = *queues;
}

static void read_family(struct tcp_table *table, const char *path)
{
	FILE *file = fopen(path, "re");
	char line[512];
	if (!file)
		return;
	while (fgets(line, sizeof line, file)) {
		struct queues queues;
		unsigned local, remote, state;
		/* "sl: address:port address:port state tx:rx …" */
		if (sscanf(line, " %*d: %*32[0-9A-Fa-f]:%x %*32[0-9A-Fa-f]:%x %x %x:%x", &local, &remote, &state,
		           &queues.sending, &queues.received) != 5 || state == LISTEN)
			continue;
		queues.local = (uint16_t)local;
		queues.remote = (uint16_t)remote;
		add(table, &queues);
	}
	fclose(file);
}

struct tcp_table read_tcp_table(void)
{
	struct tcp_table table = { .sockets = NULL };
	read_family(&table, "/proc/self/net/tcp");
	read_family(&table, "/proc/self/net/tcp6");
	qsort(table.sockets, table.count, sizeof *table.sockets, by_ports);
	return table;
}

void free_tcp_table(struct tcp_table *table)
{
	free(table->sockets);
}

const struct queues *find_socket(const struct tcp_table *table, uint16_t local, uint16_t remote)
{
	struct queues wanted = { .local = local, .remote = remote };
	return bsearch(&wanted, table->sockets, table->count, sizeof wanted, by_ports);
}
