/*
 * A client may write a lot before it reads its echo: the gate writes 16 MiB. A server that stopped reading as
 * soon as its answer was stuck would leave such a client, and whatever relays it, in a deadlock that is the
 * server's fault. So up to 16 MiB are kept for a connection, and only then is its reading stopped.
 *
 * A backlog exists only while bytes are unsent. An idle connection owns none, which keeps the server's memory
 * out of the bench's memory figures.
 */
#include "backlog.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"

enum { FIRST_ROOM = 64 * 1024 };

void prepare_backlogs(void)
{
	/* Setting it at all keeps malloc from raising it, with which it would keep up to 64 MiB for later. */
	mallopt(M_MMAP_THRESHOLD, FIRST_ROOM);
}

struct backlog *make_backlog(void)
{
	struct backlog *backlog = calloc(1, sizeof *backlog);
	if (!backlog)
		failure("no memory for a backlog");
	return backlog;
}

void free_backlog(struct backlog *backlog)
{
	if (backlog)
		free(backlog->bytes);
	free(backlog);
}

size_t backlog_length(const struct backlog *backlog)
{
	return backlog->end - backlog->start;
}

/* It moves what is kept only where no more than that has been written, so moving costs less than writing did. */
static void make_room(struct backlog *backlog, size_t length)
{
	size_t kept = backlog_length(backlog);
	if (backlog->start >= kept && backlog->start > 0) {
		memcpy(backlog->bytes, backlog->bytes + backlog->start, kept);
		backlog->start = 0;
		backlog->end = kept;
	}
	while (backlog->end + length > backlog->room) {
		backlog->room = backlog->room ? 2 * backlog->room : FIRST_ROOM;
		backlog->bytes = realloc(backlog->bytes, backlog->room);
		if (!backlog->bytes)
			failure("no memory for a backlog of %zu bytes", backlog->room);
	}
}

void backlog_add(struct backlog *backlog, const unsigned char *bytes, size_t length)
{
	if (backlog->end + length > backlog->room)
		make_room(backlog, length);
	memcpy(backlog->bytes + backlog->end, bytes, length);
	backlog->end += length;
}
