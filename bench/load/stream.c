/*
 * The bytes of a connection are a function of its index: message k of connection c carries the number
 * k × connections + c, then the fill of that number. So nothing is queued: what is still to be written
 * and what must come back are made again from counters when they are needed, and a million messages behind a
 * stalled relay cost no memory. Since no number occurs twice in a run, bytes that changed, were lost, doubled,
 * swapped or belong to another connection all differ from what is expected, and break the stream.
 *
 * What could make it lie: nothing is taken for an answer unless it is the very bytes sent, in order; but it is
 * the client's view alone, and does not tell whether the program behind was ever reached.
 */
#define _GNU_SOURCE
#include "stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "failure.h"
#include "fill.h"

struct streams make_streams(unsigned count, unsigned size)
{
	struct streams streams = { .count = count, .size = size };
	streams.all = calloc(count, sizeof *streams.all);
	if (!streams.all)
		failure("no memory for %u connections", count);
	for (unsigned i = 0; i < count; i++)
		streams.all[i] = (struct stream){ .fd = -1, .index = i };
	streams.poller = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
	return streams;
}

static void watch(const struct streams *streams, struct stream *stream, int operation)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = stream };
	if (stream->blocked)
		event.events |= EPOLLOUT;
	must(epoll_ctl(streams->poller, operation, stream->fd, &event), "epoll_ctl");
}

void stream_break(struct stream *stream, const char *fault)
{
	stream->broken = true;
	stream->fault = fault;
	stream_reset(stream);
}

void stream_reset(struct stream *stream)
{
	static const struct linger at_once = { .l_onoff = 1, .l_linger = 0 };
	if (stream->fd < 0)
		return;
	setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	close(stream->fd);
	stream->fd = -1;
}

void stream_connect(struct streams *streams, struct stream *stream, const struct endpoint *to)
{
	static const int on = 1;
	stream->fd = socket(to->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (stream->fd < 0)
		return stream_break(stream, strerror(errno));
	must(setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
	if (connect(stream->fd, (const struct sockaddr *)&to->address, to->length) < 0 && errno != EINPROGRESS)
		return stream_break(stream, strerror(errno));
	stream->blocked = true;
	watch(streams, stream, EPOLL_CTL_ADD);
}

/* What stands in the stream from `position` on; valid until the next call. */
static const uint8_t *bytes_at(const struct streams *streams, const struct stream *stream, uint64_t position,
                               size_t length)
{
	/* Whole messages are made, so up to one before and one behind what is wanted. */
	static uint8_t bytes[3 * STREAM_MOST_SIZE];
	size_t skipped = position % streams->size;
	uint64_t k = position / streams->size;
	for (size_t made = 0; made < skipped + length; k++, made += streams->size) {
		uint64_t number = k * streams->count + stream->index;
		memcpy(bytes + made, &number, sizeof number);
		memcpy(bytes + made + sizeof number, fill_of(number), streams->size - sizeof number);
	}
	return bytes + skipped;
}

static void set_blocked(struct streams *streams, struct stream *stream, bool blocked)
{
	if (stream->blocked == blocked)
		return;
	stream->blocked = blocked;
	watch(streams, stream, EPOLL_CTL_MOD);
}

void stream_write(struct streams *streams, struct stream *stream)
{
	uint64_t left;
	while ((left = stream->due * streams->size - stream->written) > 0) {
		size_t length = left < STREAM_MOST_SIZE ? (size_t)left : STREAM_MOST_SIZE;
		const uint8_t *bytes = bytes_at(streams, stream, stream->written, length);
		ssize_t written = send(stream->fd, bytes, length, MSG_NOSIGNAL);
		if (written < 0 && errno == EAGAIN)
			return set_blocked(streams, stream, true);
		if (written < 0)
			return stream_break(stream, strerror(errno));
		stream->written += (uint64_t)written;
	}
	set_blocked(streams, stream, false);
}

static bool is_as_sent(const struct streams *streams, const struct stream *stream, const uint8_t *got, size_t length)
{
	return stream->echoed + length <= stream->written &&
	       memcmp(bytes_at(streams, stream, stream->echoed, length), got, length) == 0;
}

void stream_read(struct streams *streams, struct stream *stream)
{
	static uint8_t bytes[STREAM_MOST_SIZE];
	ssize_t got = recv(stream->fd, bytes, sizeof bytes, 0);
	if (got < 0 && errno == EAGAIN)
		return;
	if (got < 0)
		return stream_break(stream, strerror(errno));
	if (got == 0)
		return stream_break(stream, "closed by the other side");
	if (!is_as_sent(streams, stream, bytes, (size_t)got))
		return stream_break(stream, "answered by other bytes than were sent");
	stream->echoed += (uint64_t)got;
}

uint64_t stream_echoes(const struct streams *streams, const struct stream *stream)
{
	return stream->echoed / streams->size;
}
