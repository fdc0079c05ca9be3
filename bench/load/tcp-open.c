/*
 * Latency in an open loop. Message i is due at t0 + i/R on connection i % C, whether or not earlier ones were
 * answered, and its latency counts from that moment. A client that waits for each answer before it sends the
 * next one falls silent during a stall, and so records one bad value where hundreds of users would have
 * suffered one each (coordinated omission); here all that were due in the stall show it.
 *
 * A message whose connection is full is written when there is room; nothing is dropped, and its time runs.
 * Each connection carries one exchange first, which is not counted: making the way is not part of the latency.
 *
 * The generator sleeps until the next message is due (timerfd, timer slack 1 ns) or an answer comes. What could
 * make it lie:
 *   - being late itself. `late` is the most by which a message was first tried after it was due; it is part
 *     of that message's latency, so a value in its order of magnitude says nothing of the relay. It contains
 *     waiting for a processor, of which the relay takes its share.
 *   - answers that never came. They have no latency; `failed` counts them, and with failures the percentiles
 *     are those of the lucky.
 *   - a rate near what the way can carry: the queue then grows with S, and so do the figures.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "clock.h"
#include "exchange.h"
#include "failure.h"
#include "histogram.h"
#include "open-files.h"
#include "tcp-load.h"

struct options {
	unsigned connections;
	double rate;
	double seconds;
	unsigned size;
};

struct run {
	struct streams streams;
	double rate;
	/** Messages to be sent in all. */
	uint64_t total;
	uint64_t sent;
	uint64_t received;
	/** Messages that will not be answered, since their connection is broken. */
	uint64_t lost;
	uint64_t start;
	uint64_t deadline;
	uint64_t late;
	int timer;
	struct histogram latency;
};

/* Few, so that a message that falls due meanwhile does not wait for many answers to be read. */
enum { EVENTS = 16 };

static const uint64_t patience = 2 * (uint64_t)SECOND;

static struct options read_options(struct words *words)
{
	struct options options = { .size = 64 };
	for (const char *name; (name = next_word(words));) {
		if (same_word(name, "--connections"))
			options.connections = (unsigned)take_integer(words, name, 1, 60000);
		else if (same_word(name, "--rate"))
			options.rate = take_number(words, name, 0.1, 1e6);
		else if (same_word(name, "--seconds"))
			options.seconds = take_number(words, name, 0.001, 3600);
		else if (same_word(name, "--size"))
			options.size = (unsigned)take_integer(words, name, STREAM_LEAST_SIZE, STREAM_MOST_SIZE);
		else
			usage_error("found '%s', allowed are --connections, --rate, --seconds and --size", name);
	}
	if (options.connections == 0 || options.rate == 0 || options.seconds == 0)
		usage_error("an option is missing, --connections, --rate and --seconds must be there");
	return options;
}

static void connect_all(struct streams *streams, const struct endpoint *to)
{
	if (exchange_on_all(streams, to, patience) == streams->count)
		return;
	unsigned broken = 0;
	const char *fault = NULL;
	for (unsigned i = 0; i < streams->count; i++) {
		if (streams->all[i].broken && broken++ == 0)
			fault = streams->all[i].fault;
	}
	failure("%u of %u connections to %s carry nothing, all must (%s)", broken, streams->count,
	        describe(to).text, fault);
}

static uint64_t intended(const struct run *run, uint64_t message)
{
	return run->start + (uint64_t)((double)message * SECOND / run->rate);
}

/* The exchange before the run was message 0 of each connection. */
static uint64_t message_of(const struct run *run, const struct stream *stream, uint64_t k)
{
	return (k - 1) * run->streams.count + stream->index;
}

static uint64_t unanswered(const struct run *run, const struct stream *stream)
{
	return stream->due - stream_echoes(&run->streams, stream);
}

static void send_one(struct run *run)
{
	struct stream *stream = &run->streams.all[run->sent % run->streams.count];
	run->sent++;
	if (stream->broken) {
		run->lost++;
		return;
	}
	stream->due++;
	if (!stream->blocked)
		stream_write(&run->streams, stream);
	if (stream->broken)
		run->lost += unanswered(run, stream);
}

static void send_due(struct run *run)
{
	while (run->sent < run->total) {
		uint64_t due = intended(run, run->sent);
		uint64_t now = now_ns();
		if (now < due)
			return;
		if (now - due > run->late)
			run->late = now - due;
		send_one(run);
	}
}

static void record_echoes(struct run *run, const struct stream *stream, uint64_t before)
{
	uint64_t now = now_ns();
	uint64_t after = stream_echoes(&run->streams, stream);
	for (uint64_t k = before; k < after; k++)
		record(&run->latency, now - intended(run, message_of(run, stream, k)));
	run->received += after - before;
}

static void serve(struct run *run, const struct epoll_event *event)
{
	struct stream *stream = event->data.ptr;
	/* The timer: send_due comes next anyway. */
	if (!stream)
		return;
	uint64_t before = stream_echoes(&run->streams, stream);
	if (event->events & EPOLLOUT)
		stream_write(&run->streams, stream);
	if (!stream->broken && event->events & ~(uint32_t)EPOLLOUT)
		stream_read(&run->streams, stream);
	record_echoes(run, stream, before);
	if (stream->broken)
		run->lost += unanswered(run, stream);
}

/* Setting a timer also takes back that it has fired, so it need not be read. */
static void set_timer(const struct run *run)
{
	uint64_t at = run->sent < run->total ? intended(run, run->sent) : run->deadline;
	struct itimerspec when = { .it_value = { .tv_sec = (time_t)(at / SECOND), .tv_nsec = (long)(at % SECOND) } };
	must(timerfd_settime(run->timer, TFD_TIMER_ABSTIME, &when, NULL), "timerfd_settime");
}

static bool is_over(const struct run *run)
{
	return run->sent == run->total && (run->received + run->lost == run->sent || now_ns() >= run->deadline);
}

static void drive(struct run *run)
{
	struct epoll_event events[EVENTS];
	for (send_due(run); !is_over(run); send_due(run)) {
		set_timer(run);
		int count = epoll_wait(run->streams.poller, events, EVENTS, -1);
		for (int i = 0; i < count; i++)
			serve(run, &events[i]);
	}
}

static int make_timer(int poller)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
	int timer = must(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), "timerfd_create");
	must(epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event), "epoll_ctl");
	return timer;
}

static void print(const struct run *run)
{
	printf("{\"sent\":%" PRIu64 ",\"received\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"late\":%.1f,", run->sent,
	       run->received, run->sent - run->received, (double)run->late / MICROSECOND);
	print_latency(&run->latency);
	printf("}\n");
}

void run_open(const struct endpoint *to, struct words *words)
{
	struct options options = read_options(words);
	raise_open_files();
	struct run run = {
		.streams = make_streams(options.connections, options.size),
		.rate = options.rate,
		.total = (uint64_t)ceil(options.rate * options.seconds - 1e-6),
		.latency = make_histogram(),
	};
	connect_all(&run.streams, to);
	run.timer = make_timer(run.streams.poller);
	run.start = now_ns() + MILLISECOND;
	run.deadline = run.start + (uint64_t)(options.seconds * SECOND) + patience;
	drive(&run);
	print(&run);
}
