/*
 * churn <address> <port> --connections N [--at-once 64] [--most 64] [--end fin|reset] [--expect echo|reset] [--tell]
 *       [--await S]
 *
 * Connections that come, say something, hear it back and go, to an echo server behind a relay. N of them, or with
 * --connections 0 as many as fit until stdin is closed. Every other one says that it has said all right behind its
 * message, so its answer comes over a half-closed connection; the others once they have heard it all. Both then wait
 * for the end of what they hear: a connection is only ok when it had all of its bytes, nothing else, and a clean end.
 *
 *   --most    bytes of the longest message; lengths are spread evenly over the orders of magnitude from 8 on
 *   --end     reset: goes in the middle of the answer instead
 *   --expect  reset: nothing is behind the relay, so each has to be turned away by a reset
 *   --tell    a line with the number that are done, every 20 ms
 *   --await   begins once somebody listens, for which it waits up to S seconds; says how long it took
 *
 * What could make it lie: a connection that the kernel of this side refuses to make (no port is left) is a failure
 * like any other; its reason tells.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "clock.h"
#include "endpoint.h"
#include "failure.h"
#include "faults.h"
#include "fill.h"
#include "open-files.h"

enum { LEAST = 8, MOST = 65536, EVENTS = 64, GLANCE_MS = 20, PATIENCE_S = 10 };

static const char late[] = "not done in 10 s";

struct options {
	struct endpoint to;
	uint64_t connections; /* 0: until stdin is closed */
	unsigned at_once;
	unsigned most;
	bool resets;
	bool expects_reset;
	bool tells;
	double await;
};

struct connection {
	int fd; /* -1: the place is free */
	uint64_t number;
	uint32_t size, written, echoed;
	bool early_end; /* says that it has said all behind its message */
	bool said_end;
	uint64_t begun;
};

struct churn {
	struct options options;
	struct connection *all;
	int poller;
	bool told; /* stdin is closed */
	uint64_t begun, ok, bytes, longest, awaited;
	unsigned open;
	struct faults faults;
};

static bool choice(struct words *words, const char *name, const char *usual, const char *other)
{
	const char *word = take_word(words, name);
	if (!same_word(word, usual) && !same_word(word, other))
		usage_error("%s is '%s', allowed are %s and %s", name, word, usual, other);
	return same_word(word, other);
}

static struct options read_options(struct words *words)
{
	struct options options = { .to = take_endpoint(words, "<address>"), .at_once = 64, .most = 64 };
	bool counted = false;
	for (const char *name; (name = next_word(words));) {
		if (same_word(name, "--connections")) {
			options.connections = (uint64_t)take_integer(words, name, 0, 1000000000);
			counted = true;
		} else if (same_word(name, "--at-once"))
			options.at_once = (unsigned)take_integer(words, name, 1, 100000);
		else if (same_word(name, "--most"))
			options.most = (unsigned)take_integer(words, name, LEAST, MOST);
		else if (same_word(name, "--end"))
			options.resets = choice(words, name, "fin", "reset");
		else if (same_word(name, "--expect"))
			options.expects_reset = choice(words, name, "echo", "reset");
		else if (same_word(name, "--tell"))
			options.tells = true;
		else if (same_word(name, "--await"))
			options.await = take_number(words, name, 0.001, 3600);
		else
			usage_error("found '%s', allowed are --connections, --at-once, --most, --end, --expect, --tell and --await",
			            name);
	}
	if (!counted)
		usage_error("--connections is missing, it must be there");
	return options;
}

/* Any spread will do that is the same each time; the golden ratio's is even. */
static uint32_t size_of(const struct options *options, uint64_t number)
{
	double part = fmod((double)(number % 1000003) * 0.6180339887498949, 1.0);
	return (uint32_t)lround(LEAST * pow((double)options->most / LEAST, part));
}

/* The number in front, so that the bytes of another connection differ whatever the fill. */
static const uint8_t *message_of(const struct connection *connection)
{
	static uint8_t bytes[MOST];
	memcpy(bytes, fill_of(connection->number), connection->size);
	memcpy(bytes, &connection->number, sizeof connection->number);
	return bytes;
}

/* ---- ends ---- */

static void leave(struct churn *churn, struct connection *connection, bool by_reset)
{
	static const struct linger at_once = { .l_onoff = 1, .l_linger = 0 };
	if (by_reset)
		setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	close(connection->fd);
	connection->fd = -1;
	churn->open--;
}

static void succeed(struct churn *churn, struct connection *connection, bool by_reset)
{
	uint64_t took = now_ns() - connection->begun;
	if (took > churn->longest)
		churn->longest = took;
	churn->ok++;
	leave(churn, connection, by_reset);
}

static void fail(struct churn *churn, struct connection *connection, const char *why)
{
	add_fault(&churn->faults, why);
	leave(churn, connection, true);
}

/* A socket reported an errno. */
static void broken(struct churn *churn, struct connection *connection, int error)
{
	if (churn->options.expects_reset && (error == ECONNRESET || error == EPIPE))
		succeed(churn, connection, false);
	else
		fail(churn, connection, strerrordesc_np(error));
}

/* ---- what a connection does; each returns false once it is over ---- */

static bool say_end(struct churn *churn, struct connection *connection)
{
	connection->said_end = true;
	if (shutdown(connection->fd, SHUT_WR) == 0)
		return true;
	broken(churn, connection, errno);
	return false;
}

static bool say(struct churn *churn, struct connection *connection)
{
	while (connection->written < connection->size) {
		const uint8_t *bytes = message_of(connection) + connection->written;
		ssize_t sent = send(connection->fd, bytes, connection->size - connection->written, MSG_NOSIGNAL);
		if (sent < 0 && errno == EAGAIN)
			return true;
		if (sent < 0) {
			broken(churn, connection, errno);
			return false;
		}
		connection->written += (uint32_t)sent;
	}
	if (connection->early_end && !connection->said_end)
		return say_end(churn, connection);
	return true;
}

static bool heard_end(struct churn *churn, struct connection *connection)
{
	if (churn->options.expects_reset)
		fail(churn, connection, "an end where a reset was due");
	else if (connection->echoed < connection->size)
		fail(churn, connection, "an end before the whole answer");
	else
		succeed(churn, connection, false);
	return false;
}

static bool is_as_sent(const struct connection *connection, const uint8_t *bytes, size_t length)
{
	return connection->echoed + length <= connection->written &&
	       memcmp(message_of(connection) + connection->echoed, bytes, length) == 0;
}

static bool hear(struct churn *churn, struct connection *connection)
{
	static uint8_t bytes[MOST];
	for (;;) {
		ssize_t got = recv(connection->fd, bytes, sizeof bytes, 0);
		if (got < 0 && errno == EAGAIN)
			return true;
		if (got < 0) {
			broken(churn, connection, errno);
			return false;
		}
		if (got == 0)
			return heard_end(churn, connection);
		if (!is_as_sent(connection, bytes, (size_t)got)) {
			fail(churn, connection, "other bytes than were sent");
			return false;
		}
		connection->echoed += (uint32_t)got;
		churn->bytes += (uint64_t)got;
		if (churn->options.resets) {
			succeed(churn, connection, true);
			return false;
		}
		if (connection->echoed == connection->size && !connection->said_end && !say_end(churn, connection))
			return false;
	}
}

/* ---- the run ---- */

static bool has_more(const struct churn *churn)
{
	uint64_t wanted = churn->options.connections;
	return wanted > 0 ? churn->begun < wanted : !churn->told;
}

static void begin(struct churn *churn, struct connection *connection)
{
	static const int on = 1;
	const struct endpoint *to = &churn->options.to;
	uint64_t number = churn->begun++;
	*connection = (struct connection){
		.fd = must(socket(to->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket"),
		.number = number,
		.size = size_of(&churn->options, number),
		.early_end = number % 2 == 0 && !churn->options.resets && !churn->options.expects_reset,
		.begun = now_ns(),
	};
	churn->open++;
	setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(connection->fd, (const struct sockaddr *)&to->address, to->length) < 0 && errno != EINPROGRESS) {
		broken(churn, connection, errno);
		return;
	}
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection };
	must(epoll_ctl(churn->poller, EPOLL_CTL_ADD, connection->fd, &event), "epoll_ctl");
}

static void begin_more(struct churn *churn)
{
	for (unsigned i = 0; i < churn->options.at_once && has_more(churn); i++) {
		if (churn->all[i].fd < 0)
			begin(churn, &churn->all[i]);
	}
}

static void serve(struct churn *churn, const struct epoll_event *event)
{
	struct connection *connection = event->data.ptr;
	if (!connection) {
		char bytes[64];
		churn->told = read(STDIN_FILENO, bytes, sizeof bytes) <= 0;
	} else if (connection->fd >= 0 && say(churn, connection)) {
		hear(churn, connection);
	}
}

static void give_up_late_ones(struct churn *churn)
{
	uint64_t now = now_ns();
	for (unsigned i = 0; i < churn->options.at_once; i++) {
		struct connection *connection = &churn->all[i];
		if (connection->fd >= 0 && now - connection->begun > (uint64_t)PATIENCE_S * SECOND)
			fail(churn, connection, late);
	}
}

static void tell(const struct churn *churn)
{
	printf("{\"done\":%" PRIu64 "}\n", churn->ok + churn->faults.all);
	fflush(stdout);
}

static void drive(struct churn *churn)
{
	uint64_t next_glance = now_ns();
	while (has_more(churn) || churn->open > 0) {
		struct epoll_event events[EVENTS];
		begin_more(churn);
		int count = epoll_wait(churn->poller, events, EVENTS, GLANCE_MS);
		for (int i = 0; i < count; i++)
			serve(churn, &events[i]);
		if (now_ns() < next_glance)
			continue;
		next_glance = now_ns() + GLANCE_MS * MILLISECOND;
		give_up_late_ones(churn);
		if (churn->options.tells)
			tell(churn);
	}
}

static struct churn make_churn(struct words *words)
{
	struct churn churn = { .options = read_options(words) };
	churn.all = calloc(churn.options.at_once, sizeof *churn.all);
	if (!churn.all)
		failure("no memory for %u connections", churn.options.at_once);
	for (unsigned i = 0; i < churn.options.at_once; i++)
		churn.all[i].fd = -1;
	churn.poller = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
	return churn;
}

static bool is_listened_to(const struct endpoint *at)
{
	int fd = must(socket(at->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
	bool answered = connect(fd, (const struct sockaddr *)&at->address, at->length) == 0;
	close(fd);
	return answered;
}

static void await_listener(struct churn *churn)
{
	uint64_t start = now_ns();
	while (!is_listened_to(&churn->options.to)) {
		if (now_ns() - start > (uint64_t)(churn->options.await * SECOND))
			failure("nobody listens at %s", describe(&churn->options.to).text);
		sleep_until(now_ns() + MILLISECOND);
	}
	churn->awaited = now_ns() - start;
}

int main(int count, char **arguments)
{
	struct words words = { count > 0 ? arguments + 1 : arguments };
	struct churn churn = make_churn(&words);
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
	if (churn.options.connections == 0)
		must(epoll_ctl(churn.poller, EPOLL_CTL_ADD, STDIN_FILENO, &event), "watching stdin");
	raise_open_files();
	prepare_fill();
	if (churn.options.await > 0)
		await_listener(&churn);
	uint64_t start = now_ns();
	drive(&churn);
	printf("{\"ok\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"faults\":", churn.ok, churn.faults.all);
	print_faults(&churn.faults);
	printf(",\"bytes\":%" PRIu64 ",\"seconds\":%.3f,\"longestMs\":%.1f,\"awaitedMs\":%.1f}\n", churn.bytes,
	       (double)(now_ns() - start) / SECOND, (double)churn.longest / MILLISECOND,
	       (double)churn.awaited / MILLISECOND);
	return 0;
}
