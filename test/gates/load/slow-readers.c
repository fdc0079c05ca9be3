/*
 * slow-readers --target <address> <port> --sink <address> <port> --connections N [--bulk 0] [--first 8] [--usual 163840]
 *
 * Both ends of N connections through a relay. Both write for as long as anything takes their bytes, and read a
 * little, then nothing any more. Everything on the way is then as full as it ever gets, in both directions, and what the
 * relay itself holds of each is
 *
 *     written - waiting in the writer's socket - waiting in the relay's two - waiting in the reader's
 *
 * which is exact, because the kernel tells all of them. stdin says how it goes on, a line each:
 *
 *   held   prints what is held now
 *   end    both ends read until the end of what was written, byte by byte compared; prints what came of it
 *
 *   --bulk   so many of them read some MiB at speed before they stand still, from sockets with much room, so that a relay
 *            takes them for bulk transfers; the others have little room, and read 64 KiB
 *   --first  how many MiB
 *   --usual  directions of which more than this is held are counted apart
 *
 * What could make it lie: a segment that is not confirmed yet stands in two sockets and makes the figure smaller, so
 * it is asked for only after some silence.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
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
#include "open-files.h"
#include "tcp-table.h"

enum { CLIENT, SERVER };

/* The bytes of a stream repeat after a prime, so that no buffer's length hides what is missing. */
enum { PERIOD = 65521, EVENTS = 64, QUIET_MS = 400, PATIENCE_S = 60 };

struct options {
	struct endpoint target, sink;
	unsigned connections;
	unsigned bulk;
	uint64_t first;
	int64_t usual;
};

struct end {
	int fd; /* -1 before it is there, and after it is over */
	uint16_t port;
	uint16_t remote;
	uint64_t written, received;
	bool said_end, over;
};

struct pair {
	struct end ends[2];
};

struct run {
	struct options options;
	struct pair *pairs;
	int poller, listener;
	bool ends; /* nothing more is written, and all is read */
	uint64_t moved; /* grows with every byte */
	struct faults faults;
};

static uint8_t pattern[2 * PERIOD];

static void prepare_pattern(void)
{
	uint64_t state = 0x2545f4914f6cdd1d;
	for (size_t i = 0; i < PERIOD; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		pattern[i] = pattern[i + PERIOD] = (uint8_t)(state >> 32);
	}
}

/* PERIOD bytes from this position of what `from` of this pair writes; a stream begins at a place of its own. */
static const uint8_t *bytes_at(unsigned pair, int from, uint64_t position)
{
	return pattern + (position + (2 * (uint64_t)pair + (uint64_t)from) * 7919) % PERIOD;
}

static struct options read_options(struct words *words)
{
	struct options options = { .first = 8, .usual = 160 * 1024 };
	for (const char *name; (name = next_word(words));) {
		if (same_word(name, "--target"))
			options.target = take_endpoint(words, name);
		else if (same_word(name, "--sink"))
			options.sink = take_endpoint(words, name);
		else if (same_word(name, "--connections"))
			options.connections = (unsigned)take_integer(words, name, 1, 100000);
		else if (same_word(name, "--bulk"))
			options.bulk = (unsigned)take_integer(words, name, 0, 100000);
		else if (same_word(name, "--first"))
			options.first = (uint64_t)take_integer(words, name, 1, 1024);
		else if (same_word(name, "--usual"))
			options.usual = take_integer(words, name, 0, 1 << 30);
		else
			usage_error("found '%s', allowed are --target, --sink, --connections, --bulk, --first and --usual", name);
	}
	if (options.target.length == 0 || options.sink.length == 0 || options.connections == 0)
		usage_error("an option is missing, --target, --sink and --connections must be there");
	return options;
}

/* ---- making the pairs ---- */

static uint64_t tag_of(unsigned pair, int which)
{
	return (uint64_t)pair << 1 | (unsigned)which;
}

static void watch(struct run *run, int fd, uint64_t tag)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u64 = tag };
	must(epoll_ctl(run->poller, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

static uint16_t port_at(int fd, int (*ask)(int, struct sockaddr *, socklen_t *))
{
	struct endpoint endpoint = { .length = sizeof endpoint.address };
	must(ask(fd, (struct sockaddr *)&endpoint.address, &endpoint.length), "asking a socket for its address");
	return port_of(&endpoint);
}

static struct end end_of(int fd)
{
	return (struct end){ .fd = fd, .port = port_at(fd, getsockname), .remote = port_at(fd, getpeername) };
}

static bool is_bulk(const struct run *run, unsigned pair)
{
	return pair < run->options.bulk;
}

static void give_room(const struct run *run, unsigned pair, int fd)
{
	int room = is_bulk(run, pair) ? 512 * 1024 : 16 * 1024;
	must(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room), "SO_RCVBUF");
	must(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room), "SO_SNDBUF");
}

/* Of each stream of this pair; the rest is left where it is. */
static uint64_t to_be_read(const struct run *run, unsigned pair)
{
	if (run->ends)
		return UINT64_MAX;
	return is_bulk(run, pair) ? run->options.first * 1024 * 1024 : 64 * 1024;
}

static int make_socket(const struct endpoint *at)
{
	return must(socket(at->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
}

static int listen_at(const struct run *run)
{
	static const int on = 1;
	const struct endpoint *at = &run->options.sink;
	int fd = make_socket(at);
	must(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
	if (bind(fd, (const struct sockaddr *)&at->address, at->length) < 0 || listen(fd, 4096) < 0)
		failure("%s: %s", describe(at).text, strerror(errno));
	return fd;
}

static void limit_waiting(int fd, long seconds)
{
	const struct timeval limit = { .tv_sec = seconds };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

/* The first thing a client says is its number, so that both ends of a pair are known. */
static void make_pair(struct run *run, uint32_t number)
{
	const struct endpoint *to = &run->options.target;
	int client = make_socket(to);
	uint32_t said;
	give_room(run, number, client);
	if (connect(client, (const struct sockaddr *)&to->address, to->length) < 0 ||
	    send(client, &number, sizeof number, MSG_NOSIGNAL) != sizeof number)
		failure("connection %u to %s: %s", number, describe(to).text, strerror(errno));
	limit_waiting(run->listener, 5);
	int server = accept4(run->listener, NULL, NULL, SOCK_CLOEXEC);
	if (server < 0)
		failure("connection %u does not arrive at %s: %s", number, describe(&run->options.sink).text, strerror(errno));
	limit_waiting(server, 5);
	give_room(run, number, server);
	if (recv(server, &said, sizeof said, MSG_WAITALL) != sizeof said || said != number)
		failure("connection %u says nothing, or is another", number);
	run->pairs[number].ends[CLIENT] = end_of(client);
	run->pairs[number].ends[SERVER] = end_of(server);
}

static void make_pairs(struct run *run)
{
	run->pairs = calloc(run->options.connections, sizeof *run->pairs);
	if (!run->pairs)
		failure("no memory for %u connections", run->options.connections);
	run->listener = listen_at(run);
	for (unsigned i = 0; i < run->options.connections; i++)
		make_pair(run, i);
	/* Only now: a relay is to serve new clients beside those that hold still, but that is another question. */
	for (unsigned i = 0; i < run->options.connections; i++)
		for (int which = CLIENT; which <= SERVER; which++)
			watch(run, run->pairs[i].ends[which].fd, tag_of(i, which));
}

/* ---- writing and reading ---- */

static void lose(struct run *run, struct end *end, const char *why)
{
	add_fault(&run->faults, why);
	close(end->fd);
	end->fd = -1;
	end->over = true;
}

static void write_on(struct run *run, unsigned pair, int which)
{
	struct end *end = &run->pairs[pair].ends[which];
	while (end->fd >= 0 && !run->ends) {
		ssize_t sent = send(end->fd, bytes_at(pair, which, end->written), PERIOD, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EAGAIN)
			return;
		if (sent < 0)
			return lose(run, end, strerrordesc_np(errno));
		end->written += (uint64_t)sent;
		run->moved += (uint64_t)sent;
	}
}

static void ended(struct run *run, unsigned pair, int which)
{
	struct end *end = &run->pairs[pair].ends[which];
	if (end->received != run->pairs[pair].ends[!which].written)
		return lose(run, end, "an end before all bytes");
	close(end->fd);
	end->fd = -1;
	end->over = true;
	run->moved++;
}

static void read_on(struct run *run, unsigned pair, int which)
{
	static uint8_t bytes[PERIOD];
	struct end *end = &run->pairs[pair].ends[which];
	while (end->fd >= 0 && end->received < to_be_read(run, pair)) {
		uint64_t left = to_be_read(run, pair) - end->received;
		ssize_t got = recv(end->fd, bytes, left < sizeof bytes ? (size_t)left : sizeof bytes, MSG_DONTWAIT);
		if (got < 0 && errno == EAGAIN)
			return;
		if (got < 0)
			return lose(run, end, strerrordesc_np(errno));
		if (got == 0)
			return ended(run, pair, which);
		if (memcmp(bytes, bytes_at(pair, !which, end->received), (size_t)got) != 0)
			return lose(run, end, "other bytes than were sent");
		end->received += (uint64_t)got;
		run->moved += (uint64_t)got;
	}
}

static void serve(struct run *run, uint64_t tag)
{
	write_on(run, (unsigned)(tag >> 1), (int)(tag & 1));
	read_on(run, (unsigned)(tag >> 1), (int)(tag & 1));
}

static void serve_for_a_moment(struct run *run)
{
	struct epoll_event events[EVENTS];
	int count = epoll_wait(run->poller, events, EVENTS, 20);
	for (int i = 0; i < count; i++)
		serve(run, events[i].data.u64);
}

static bool is_over(const struct run *run)
{
	for (unsigned i = 0; i < run->options.connections; i++) {
		const struct pair *pair = &run->pairs[i];
		if (pair->ends[CLIENT].fd >= 0 || pair->ends[SERVER].fd >= 0)
			return false;
	}
	return true;
}

/* Until nothing has moved for a while. */
static void fill(struct run *run)
{
	uint64_t deadline = now_ns() + (uint64_t)PATIENCE_S * SECOND, quiet_since = now_ns();
	while (now_ns() - quiet_since < QUIET_MS * (uint64_t)MILLISECOND && now_ns() < deadline) {
		uint64_t before = run->moved;
		serve_for_a_moment(run);
		if (run->moved != before)
			quiet_since = now_ns();
	}
}

static void empty(struct run *run)
{
	uint64_t deadline = now_ns() + (uint64_t)PATIENCE_S * SECOND;
	while (!is_over(run) && now_ns() < deadline)
		serve_for_a_moment(run);
}

/* ---- what is held ---- */

static uint32_t sending_at(const struct tcp_table *table, uint16_t local, uint16_t remote)
{
	const struct queues *found = find_socket(table, local, remote);
	return found ? found->sending : 0;
}

static uint32_t received_at(const struct tcp_table *table, uint16_t local, uint16_t remote)
{
	const struct queues *found = find_socket(table, local, remote);
	return found ? found->received : 0;
}

/* The relay's sockets are those with the ports of an end the other way round. */
static int64_t held(const struct tcp_table *table, const struct pair *pair, int from)
{
	const struct end *writer = &pair->ends[from], *reader = &pair->ends[!from];
	return (int64_t)writer->written - (int64_t)reader->received -
	       sending_at(table, writer->port, writer->remote) - received_at(table, writer->remote, writer->port) -
	       sending_at(table, reader->remote, reader->port) - received_at(table, reader->port, reader->remote);
}

static int by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return x < y ? -1 : x > y;
}

static void print_held(struct run *run)
{
	unsigned count = 0, open = 0, above = 0;
	int64_t *all = calloc(2 * (size_t)run->options.connections, sizeof *all), sum = 0;
	struct tcp_table table = read_tcp_table();
	if (!all)
		failure("no memory for %u figures", 2 * run->options.connections);
	for (unsigned i = 0; i < run->options.connections; i++) {
		const struct pair *pair = &run->pairs[i];
		if (pair->ends[CLIENT].fd < 0 || pair->ends[SERVER].fd < 0)
			continue;
		open++;
		for (int from = CLIENT; from <= SERVER; from++)
			sum += all[count++] = held(&table, pair, from);
	}
	qsort(all, count, sizeof *all, by_size);
	for (unsigned i = 0; i < count; i++)
		above += all[i] > run->options.usual;
	printf("{\"open\":%u,\"sum\":%" PRId64 ",\"median\":%" PRId64 ",\"largest\":%" PRId64 ",\"above\":%u}\n", open, sum,
	       count ? all[count / 2] : 0, count ? all[count - 1] : 0, above);
	fflush(stdout);
	free_tcp_table(&table);
	free(all);
}

/* ---- the end ---- */

static void read_all(struct run *run)
{
	run->ends = true;
	for (unsigned i = 0; i < run->options.connections; i++) {
		for (int which = CLIENT; which <= SERVER; which++) {
			struct end *end = &run->pairs[i].ends[which];
			if (end->fd >= 0)
				shutdown(end->fd, SHUT_WR);
			read_on(run, i, which);
		}
	}
	empty(run);
}

static void print_end(struct run *run)
{
	uint64_t bytes = 0;
	unsigned whole = 0;
	for (unsigned i = 0; i < run->options.connections; i++) {
		struct pair *pair = &run->pairs[i];
		for (int which = CLIENT; which <= SERVER; which++) {
			bytes += pair->ends[which].received;
			if (pair->ends[which].fd >= 0)
				lose(run, &pair->ends[which], "its end does not come");
		}
		whole += pair->ends[CLIENT].received == pair->ends[SERVER].written &&
		         pair->ends[SERVER].received == pair->ends[CLIENT].written;
	}
	printf("{\"whole\":%u,\"bytes\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"faults\":", whole, bytes, run->faults.all);
	print_faults(&run->faults);
	printf("}\n");
}

int main(int count, char **arguments)
{
	struct words words = { count > 0 ? arguments + 1 : arguments };
	struct run run = { .options = read_options(&words) };
	raise_open_files();
	prepare_pattern();
	run.poller = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
	make_pairs(&run);
	fill(&run);
	print_held(&run);
	for (char line[64]; fgets(line, sizeof line, stdin) && strcmp(line, "end\n") != 0;) {
		fill(&run);
		print_held(&run);
	}
	read_all(&run);
	print_end(&run);
	return 0;
}
