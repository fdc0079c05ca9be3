/*
 * spoofed-sources --target <v4> <port> --target <v6> <port> --sink <address> <port> --sources N [--good 100]
 *                 [--answered] [--rate 20000]
 *
 * Good flows through a relay, and in their midst datagrams from N sources that do not exist: half of them are addresses
 * of 198.18.0.0/15, half prefixes of 64 bits in 2001:db8::/32, so that no two of them are one source. The sink behind the
 * relay answers the good ones, and with --answered the forged ones, too, as an open resolver would. Before, among and
 * after the forged ones each good flow asks something 5 times a second.
 *
 * A good flow lives when it is answered at the end, and the sink saw it come from one and the same port all along: a
 * relay that had ended it for a forged one would have to make it anew. Prints a line of JSON before the forged ones and
 * one at the end.
 *
 * Without --answered the next forged ones wait until the sink has seen the last, so that all of them are flows for a
 * moment; those that are lost on the way are given up after half a second. With it they come at a rate, because a relay that is
 * full passes none of them on.
 *
 * What could make it lie: the addresses must be routed to the loopback of this namespace, or the answers go astray.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "endpoint.h"
#include "failure.h"
#include "open-files.h"
#include "raw.h"

enum { V4, V6, FAMILIES };
enum { BATCH = 64, ASK_EVERY_MS = 200, LOST_AFTER_MS = 500, SETTLE_MS = 10000, ROOM = 16 << 20 };

enum kind { GOOD = 1, FORGED = 2 };

struct message {
	uint32_t kind;
	uint32_t number;
	uint32_t round;
};

struct options {
	struct endpoint targets[FAMILIES], sink;
	uint32_t sources;
	unsigned good;
	bool answered;
	double rate;
};

struct good_flow {
	int fd;
	uint32_t asked, answered; /* rounds */
	uint16_t port;            /* of the relay's socket, as the sink saw it first */
	bool moved;               /* and later another */
};

struct run {
	struct options options;
	struct good_flow *good;
	int sink, raw[FAMILIES];
	uint64_t next_round;
	uint64_t forged_seen, strange;
	uint32_t *seen; /* one bit a forged source */
	uint32_t distinct;
};

static struct options read_options(struct words *words)
{
	struct options options = { .good = 100, .rate = 20000 };
	for (const char *name; (name = next_word(words));) {
		if (same_word(name, "--target")) {
			struct endpoint target = take_endpoint(words, name);
			options.targets[target.address.ss_family == AF_INET ? V4 : V6] = target;
		} else if (same_word(name, "--sink"))
			options.sink = take_endpoint(words, name);
		else if (same_word(name, "--sources"))
			options.sources = (uint32_t)take_integer(words, name, 1, 1 << 17);
		else if (same_word(name, "--good"))
			options.good = (unsigned)take_integer(words, name, 1, 1000);
		else if (same_word(name, "--rate"))
			options.rate = take_number(words, name, 1, 1e6);
		else if (same_word(name, "--answered"))
			options.answered = true;
		else
			usage_error("found '%s', allowed are --target, --sink, --sources, --good, --rate and --answered", name);
	}
	if (options.targets[V4].length == 0 || options.targets[V6].length == 0 || options.sink.length == 0 ||
	    options.sources == 0)
		usage_error("an option is missing, a --target of each family, --sink and --sources must be there");
	return options;
}

static void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count, size);
	if (!memory)
		failure("no memory for %zu times %zu bytes", count, size);
	return memory;
}

/* ---- the sink ---- */

static void see_good(struct run *run, const struct message *message, uint16_t port)
{
	struct good_flow *flow = &run->good[message->number];
	if (flow->port == 0)
		flow->port = port;
	flow->moved |= flow->port != port;
}

static void see_forged(struct run *run, uint32_t number)
{
	uint32_t bit = 1u << number % 32;
	run->forged_seen++;
	run->distinct += !(run->seen[number / 32] & bit);
	run->seen[number / 32] |= bit;
}

static void hear_at_sink(struct run *run)
{
	struct sockaddr_storage from;
	socklen_t length = sizeof from;
	struct message message;
	for (ssize_t got; (got = recvfrom(run->sink, &message, sizeof message, MSG_DONTWAIT, (struct sockaddr *)&from, &length)) >= 0;
	     length = sizeof from) {
		bool is_good = got == sizeof message && message.kind == GOOD && message.number < run->options.good;
		bool is_forged = got == sizeof message && message.kind == FORGED && message.number < run->options.sources;
		if (is_good)
			see_good(run, &message, ntohs(((const struct sockaddr_in *)&from)->sin_port));
		else if (is_forged)
			see_forged(run, message.number);
		else
			run->strange++;
		if (is_good || (is_forged && run->options.answered))
			sendto(run->sink, &message, sizeof message, MSG_DONTWAIT, (const struct sockaddr *)&from, length);
	}
}

/* ---- good flows ---- */

static void hear_good(struct run *run)
{
	for (unsigned i = 0; i < run->options.good; i++) {
		struct message message;
		struct good_flow *flow = &run->good[i];
		for (ssize_t got; (got = recv(flow->fd, &message, sizeof message, MSG_DONTWAIT)) >= 0;) {
			if (got != sizeof message || message.kind != GOOD || message.number != i)
				run->strange++;
			else if (message.round > flow->answered)
				flow->answered = message.round;
		}
	}
}

static void ask_all(struct run *run)
{
	for (unsigned i = 0; i < run->options.good; i++) {
		struct message message = { GOOD, i, ++run->good[i].asked };
		/* A refusal would be an error of an earlier one; the answer is what counts. */
		if (send(run->good[i].fd, &message, sizeof message, MSG_DONTWAIT) < 0)
			continue;
	}
}

static void attend(struct run *run)
{
	hear_at_sink(run);
	if (now_ns() < run->next_round)
		return;
	run->next_round = now_ns() + (uint64_t)ASK_EVERY_MS * MILLISECOND;
	hear_good(run);
	ask_all(run);
}

static unsigned answered_since(const struct run *run, uint32_t round)
{
	unsigned count = 0;
	for (unsigned i = 0; i < run->options.good; i++)
		count += run->good[i].answered > round;
	return count;
}

/*
 * Until all good flows had an answer to a new question, so that it is known how long what was queued before it kept them
 * waiting; returns how many have.
 */
static unsigned ask_until_answered(struct run *run)
{
	uint32_t round = run->good[0].asked;
	uint64_t end = now_ns() + (uint64_t)SETTLE_MS * MILLISECOND;
	for (; answered_since(run, round) < run->options.good && now_ns() < end; sleep_until(now_ns() + MILLISECOND)) {
		attend(run);
		hear_good(run);
	}
	return answered_since(run, round);
}

/* ---- forged ones ---- */

/* The next address for IPv4, the next prefix for IPv6; ports from a client's range. */
static struct endpoint forged_source(uint32_t number)
{
	struct endpoint from = { .length = 0 };
	if (number % 2 == V4) {
		struct sockaddr_in *v4 = (struct sockaddr_in *)&from.address;
		*v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(0xc6120001u + number / 2) };
		from.length = sizeof *v4;
	} else {
		static const uint8_t documentation[4] = { 0x20, 0x01, 0x0d, 0xb8 };
		struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&from.address;
		uint32_t prefix = htonl(number / 2 + 1);
		*v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6 };
		memcpy(v6->sin6_addr.s6_addr, documentation, sizeof documentation);
		memcpy(v6->sin6_addr.s6_addr + 4, &prefix, sizeof prefix);
		v6->sin6_addr.s6_addr[15] = 1;
		from.length = sizeof *v6;
	}
	return with_port(from, (uint16_t)(32768 + number % 28000));
}

static void forge(struct run *run, uint32_t number)
{
	struct endpoint from = forged_source(number);
	int family = number % 2;
	struct message message = { FORGED, number, 0 };
	while (!send_forged(run->raw[family], &from, &run->options.targets[family], &message, sizeof message))
		sleep_until(now_ns() + MILLISECOND);
}

static void forge_one_by_one(struct run *run)
{
	for (uint32_t number = 0; number < run->options.sources;) {
		uint32_t expected = (uint32_t)run->forged_seen;
		for (unsigned i = 0; i < BATCH && number < run->options.sources; i++, expected++)
			forge(run, number++);
		uint64_t end = now_ns() + (uint64_t)LOST_AFTER_MS * MILLISECOND;
		for (attend(run); run->forged_seen < expected && now_ns() < end; attend(run))
			sleep_until(now_ns() + 100 * MICROSECOND);
	}
}

static void forge_at_a_rate(struct run *run)
{
	uint64_t start = now_ns();
	for (uint32_t number = 0; number < run->options.sources; number++) {
		uint64_t due = start + (uint64_t)(number / run->options.rate * SECOND);
		if (number % 16 == 0 && now_ns() < due)
			sleep_until(due);
		forge(run, number);
		if (number % 16 == 0)
			attend(run);
	}
}

/* ---- the run ---- */

static void open_sockets(struct run *run)
{
	static const int room = ROOM;
	const struct options *options = &run->options;
	run->good = allocate(options->good, sizeof *run->good);
	run->seen = allocate(options->sources / 32 + 1, sizeof *run->seen);
	run->sink = must(socket(options->sink.address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	must(setsockopt(run->sink, SOL_SOCKET, SO_RCVBUF, &room, sizeof room), "SO_RCVBUF");
	if (bind(run->sink, (const struct sockaddr *)&options->sink.address, options->sink.length) < 0)
		failure("%s: %s", describe(&options->sink).text, strerror(errno));
	for (unsigned i = 0; i < options->good; i++) {
		const struct endpoint *to = &options->targets[i % FAMILIES];
		run->good[i].fd = must(socket(to->address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
		must(connect(run->good[i].fd, (const struct sockaddr *)&to->address, to->length), "connect");
	}
	run->raw[V4] = open_raw(AF_INET);
	run->raw[V6] = open_raw(AF_INET6);
}

static unsigned count_moved(const struct run *run)
{
	unsigned moved = 0;
	for (unsigned i = 0; i < run->options.good; i++)
		moved += run->good[i].moved;
	return moved;
}

int main(int count, char **arguments)
{
	struct words words = { count > 0 ? arguments + 1 : arguments };
	struct run run = { .options = read_options(&words) };
	raise_open_files();
	open_sockets(&run);
	unsigned established = ask_until_answered(&run);
	printf("{\"established\":%u}\n", established);
	fflush(stdout);
	uint64_t start = now_ns();
	if (run.options.answered)
		forge_at_a_rate(&run);
	else
		forge_one_by_one(&run);
	uint64_t end = now_ns();
	unsigned answered = ask_until_answered(&run);
	printf("{\"forged\":%u,\"arrived\":%u,\"good\":%u,\"answered\":%u,\"moved\":%u,\"strange\":%" PRIu64
	       ",\"seconds\":%.3f,\"waitedMs\":%.0f}\n",
	       run.options.sources, run.distinct, established, answered, count_moved(&run), run.strange,
	       (double)(end - start) / SECOND, (double)(now_ns() - end) / MILLISECOND);
	return 0;
}
