/* One connection to an echo server, and what is known of its bytes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "endpoint.h"

/** What all connections of a run have in common. */
struct streams {
	struct stream *all;
	unsigned count;
	/** Bytes of a message. */
	unsigned size;
	int poller;
};

struct stream {
	int fd;
	unsigned index;
	/** Messages that are to be written by now. */
	uint64_t due;
	/** Bytes written, and bytes that came back as they should. */
	uint64_t written;
	uint64_t echoed;
	/** Waits for room in the socket. */
	bool blocked;
	bool broken;
	/** Why it is broken. */
	const char *fault;
};

enum { STREAM_LEAST_SIZE = 8, STREAM_MOST_SIZE = 65536 };

struct streams make_streams(unsigned count, unsigned size);

/** Begins to connect; the stream may be broken afterwards. */
void stream_connect(struct streams *streams, struct stream *stream, const struct endpoint *to);

/** Writes what is due as far as the socket takes it. */
void stream_write(struct streams *streams, struct stream *stream);

/** Reads once; bytes that are not those sent break the stream. */
void stream_read(struct streams *streams, struct stream *stream);

/** Messages that came back whole. */
uint64_t stream_echoes(const struct streams *streams, const struct stream *stream);

void stream_break(struct stream *stream, const char *fault);

/** Closes with a reset, which leaves no port in TIME_WAIT. */
void stream_reset(struct stream *stream);
