/*
 * Connections that exist and do nothing, for what a relay pays for each. Whoever measures reads the first line,
 * looks at memory in peace, closes our stdin, and learns from the second line whether all were still relayed:
 * a relay that had dropped some would look thrifty.
 *
 * While it waits this process runs nothing at all. It closes by reset, so that tens of thousands of ports are
 * free again at once for the next run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "clock.h"
#include "exchange.h"
#include "failure.h"
#include "open-files.h"
#include "tcp-load.h"

struct options {
	unsigned connections;
	unsigned size;
};

/* stdin, stdout, stderr, epoll, and what the caller may have left open. */
enum { OTHER_FILES = 16 };

/* A dropped SYN is sent again after 1 s and after 3 s. */
static const uint64_t patience = 5 * (uint64_t)SECOND;

static struct options read_options(struct words *words)
{
	struct options options = { .size = 64 };
	for (const char *name; (name = next_word(words));) {
		if (same_word(name, "--connections"))
			options.connections = (unsigned)take_integer(words, name, 1, 1000000);
		else if (same_word(name, "--size"))
			options.size = (unsigned)take_integer(words, name, STREAM_LEAST_SIZE, STREAM_MOST_SIZE);
		else
			usage_error("found '%s', allowed are --connections and --size", name);
	}
	if (options.connections == 0)
		usage_error("--connections is missing, it must be there");
	return options;
}

static void await_end_of_stdin(void)
{
	char bytes[256];
	ssize_t got;
	do
		got = read(STDIN_FILENO, bytes, sizeof bytes);
	while (got > 0 || (got < 0 && errno == EINTR));
}

void run_idle(const struct endpoint *to, struct words *words)
{
	struct options options = read_options(words);
	long limit = raise_open_files() - OTHER_FILES;
	if (options.connections > limit)
		failure("%u connections, the open file limit allows %ld", options.connections, limit);
	struct streams streams = make_streams(options.connections, options.size);
	unsigned established = exchange_on_all(&streams, to, patience);
	printf("{\"established\":%u,\"failed\":%u}\n", established, streams.count - established);
	fflush(stdout);
	await_end_of_stdin();
	unsigned alive = exchange_on_all(&streams, to, patience);
	printf("{\"alive\":%u}\n", alive);
	for (unsigned i = 0; i < streams.count; i++)
		stream_reset(&streams.all[i]);
}
