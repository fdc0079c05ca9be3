/*
 * udp-load rate   --target <address> <port> --sink <address> <port> --rate R [--train K] [what both take]
 * udp-load search --target <address> <port> --sink <address> <port> [--trials 7] [--loss 0.001] [what both take]
 * both take       [--size 64] [--flows 1] [--seconds 0.5] [--client-netns <path>] [--sink-netns <path>]
 *
 * Both ends of UDP through a relay in one process: this thread sends to the target, another one receives at the
 * sink. They may be in different network namespaces, so one clock and one memory tell what was lost. Prints one
 * JSON line.
 *
 * What could make it lie: both ends take processor time from the relay. They are the same for every subject,
 * and without a relay (`direct`) they show the most that can be seen.
 */
#include "udp-load.h"

#include <stdio.h>
#include <sys/random.h>

#include "clock.h"
#include "datagram.h"
#include "failure.h"
#include "fill.h"
#include "network-namespace.h"
#include "udp-search.h"

static const char *const all_options =
	"--target, --sink, --size, --flows, --seconds, --client-netns, --sink-netns, for rate --rate and --train, "
	"for search --trials and --loss";

static bool read_common(struct load *load, struct words *words, const char *name)
{
	if (same_word(name, "--target"))
		load->target = take_endpoint(words, name);
	else if (same_word(name, "--sink"))
		load->sink = take_endpoint(words, name);
	else if (same_word(name, "--client-netns"))
		load->client_namespace = take_word(words, name);
	else if (same_word(name, "--sink-netns"))
		load->sink_namespace = take_word(words, name);
	else if (same_word(name, "--size"))
		load->size = (unsigned)take_integer(words, name, DATAGRAM_LEAST_SIZE, DATAGRAM_MOST_SIZE);
	else if (same_word(name, "--flows"))
		load->flows = (unsigned)take_integer(words, name, 1, 10000);
	else if (same_word(name, "--seconds"))
		load->seconds = take_number(words, name, 0.01, 60);
	else
		return false;
	return true;
}

static bool read_rate(struct load *load, struct words *words, const char *name)
{
	if (same_word(name, "--rate"))
		load->rate = take_number(words, name, 0, 10e6);
	else if (same_word(name, "--train"))
		load->train = (unsigned)take_integer(words, name, 1, 64);
	else
		return false;
	return true;
}

static bool read_search(struct load *load, struct words *words, const char *name)
{
	if (same_word(name, "--trials"))
		load->trials = (unsigned)take_integer(words, name, 1, 100);
	else if (same_word(name, "--loss"))
		load->loss = take_number(words, name, 0, 1);
	else
		return false;
	return true;
}

static struct load read_options(struct words *words, bool searches)
{
	struct load load = {
		.size = 64, .flows = 1, .seconds = 0.5, .train = 1, .rate = -1, .trials = 7, .loss = 0.001,
	};
	for (const char *name; (name = next_word(words));) {
		if (!read_common(&load, words, name) &&
		    !(searches ? read_search(&load, words, name) : read_rate(&load, words, name)))
			usage_error("found '%s', allowed are %s", name, all_options);
	}
	if (load.target.length == 0 || load.sink.length == 0)
		usage_error("%s is missing, it must be there", load.target.length == 0 ? "--target" : "--sink");
	if (!searches && load.rate < 0)
		usage_error("--rate is missing, it must be there");
	if (load.train * load.size > DATAGRAM_MOST_SIZE)
		usage_error("a train of %u × %u bytes, at most %d bytes are allowed", load.train, load.size,
		            DATAGRAM_MOST_SIZE);
	return load;
}

/* Another process may have run a moment ago, and some of its datagrams may be under way yet. */
static uint32_t random_run(void)
{
	uint32_t run;
	must((int)getrandom(&run, sizeof run, 0), "getrandom");
	return run;
}

static struct way open_way(const struct load *load)
{
	struct way way = { .load = load, .run = random_run() };
	int client = open_namespace(load->client_namespace);
	int program = open_namespace(load->sink_namespace);
	/* Entering needs a privilege, also if one is there already. */
	if (load->client_namespace)
		enter_namespace(client);
	way.flows = open_flows(load);
	if (load->client_namespace || load->sink_namespace)
		enter_namespace(program);
	way.sink = start_sink(load, way.run);
	greet(&way.flows, load, way.run);
	return way;
}

static void run_rate(struct way *way)
{
	struct trial trial = run_trial(way, way->load->rate);
	print_trial(way, &trial);
	printf("\n");
}

int main(int count, char **arguments)
{
	struct words words = { count > 0 ? arguments + 1 : arguments };
	const char *mode = take_word(&words, "rate or search");
	bool searches = same_word(mode, "search");
	if (!searches && !same_word(mode, "rate"))
		usage_error("found '%s', allowed are rate and search", mode);
	struct load load = read_options(&words, searches);
	prepare_fill();
	want_exact_timers();
	struct way way = open_way(&load);
	if (searches)
		run_search(&way);
	else
		run_rate(&way);
	return 0;
}
