/*
 * An open connection proves little: a relay may accept before it has reached anything, or not at all, since
 * the kernel accepts for it. Only an answered message shows that the whole way is there. Used before anything
 * is timed, so that no figure contains the making of the way, and by `idle` for its own sake.
 *
 * 128 at a time, so that no listen queue overflows: the second a dropped SYN waits would be the generator's
 * doing.
 */
#include "exchange.h"

#include <sys/epoll.h>

#include "clock.h"
#include "failure.h"

enum { AT_A_TIME = 128 };

struct round {
	struct streams *streams;
	const struct endpoint *to;
	unsigned next;
	unsigned under_way;
};

static void begin(struct round *round, struct stream *stream)
{
	stream->due++;
	if (stream->fd < 0)
		stream_connect(round->streams, stream, round->to);
	else
		stream_write(round->streams, stream);
	if (!stream->broken)
		round->under_way++;
}

static void begin_more(struct round *round)
{
	while (round->under_way < AT_A_TIME && round->next < round->streams->count) {
		struct stream *stream = &round->streams->all[round->next++];
		if (!stream->broken)
			begin(round, stream);
	}
}

static bool is_answered(const struct round *round, const struct stream *stream)
{
	return stream_echoes(round->streams, stream) == stream->due;
}

/* Connections that are not under way speak too: with what breaks them. */
static void serve(struct round *round, const struct epoll_event *event)
{
	struct stream *stream = event->data.ptr;
	bool was_under_way = !is_answered(round, stream);
	if (event->events & EPOLLOUT)
		stream_write(round->streams, stream);
	if (!stream->broken && event->events & ~(uint32_t)EPOLLOUT)
		stream_read(round->streams, stream);
	if (was_under_way && (stream->broken || is_answered(round, stream)))
		round->under_way--;
}

/* Breaks what had no answer, or not even its turn, and counts the others. */
static unsigned count_answered(struct round *round)
{
	unsigned answered = 0;
	for (unsigned i = 0; i < round->streams->count; i++) {
		struct stream *stream = &round->streams->all[i];
		if (!stream->broken && (i >= round->next || !is_answered(round, stream)))
			stream_break(stream, "not answered in time");
		answered += !stream->broken;
	}
	return answered;
}

unsigned exchange_on_all(struct streams *streams, const struct endpoint *to, uint64_t patience)
{
	struct round round = { .streams = streams, .to = to };
	begin_more(&round);
	while (round.under_way > 0) {
		struct epoll_event events[AT_A_TIME];
		int count = epoll_wait(streams->poller, events, AT_A_TIME, (int)(patience / MILLISECOND));
		if (count == 0)
			break;
		for (int i = 0; i < count; i++)
			serve(&round, &events[i]);
		begin_more(&round);
	}
	return count_answered(&round);
}
