/*
 * After the last datagram a trial waits until nothing has arrived for 50 ms, at most for 500 ms; what comes
 * later is lost, and of a strange run for the next trial.
 *
 * `delivered` is what arrived over the time from the first datagram that was sent to the last that arrived,
 * not over the time of sending: otherwise what had merely been queued on the way when sending ended would
 * count as carried, and a large buffer would look like speed.
 */
#include "udp-trial.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "clock.h"
#include "udp-sender.h"

enum { GLANCE = 2 * MILLISECOND, QUIET = 50 * MILLISECOND, PATIENCE = 500 * MILLISECOND };

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static struct tally await_quiet(struct sink *sink, uint64_t end)
{
	struct tally tally;
	uint64_t now;
	do {
		sleep_until(now_ns() + GLANCE);
		tally = tally_of(sink);
		now = now_ns();
	} while (now - later(tally.last, end) < QUIET && now - end < PATIENCE);
	return tally;
}

/* More than one flow can be dealt of a run. */
static uint64_t most_of_a_flow(const struct load *load, double rate)
{
	double all = (rate > 0 ? rate : fastest) * load->seconds;
	return (uint64_t)ceil(all / load->flows) + 2 * load->train;
}

struct trial run_trial(struct way *way, double rate)
{
	const struct load *load = way->load;
	count_run(way->sink, ++way->run, most_of_a_flow(load, rate));
	struct sending sending = send_run(&way->flows, load, way->run, rate);
	struct tally tally = await_quiet(way->sink, sending.end);
	uint64_t last = later(tally.last, sending.end);
	return (struct trial){
		.offered = (double)sending.sent * SECOND / (double)(sending.end - sending.start),
		.delivered = (double)tally.received * SECOND / (double)(last - sending.start),
		.sent = sending.sent,
		.tally = tally,
		.loss = 1 - (double)tally.received / (double)sending.sent,
		.drained = (double)(last - sending.end) / SECOND,
	};
}

static void print_count(const char *name, uint64_t count)
{
	printf("\"%s\":%" PRIu64 ",", name, count);
}

void print_trial(const struct way *way, const struct trial *trial)
{
	const struct tally *tally = &trial->tally;
	printf("{\"offered\":%.1f,", trial->offered);
	print_count("sent", trial->sent);
	print_count("received", tally->received);
	print_count("duplicates", tally->duplicates);
	print_count("reordered", tally->reordered);
	print_count("corrupt", tally->corrupt);
	print_count("misrouted", tally->misrouted);
	print_count("stale", tally->stale);
	printf("\"delivered\":%.1f,\"loss\":%.6f,\"drained\":%.6f", trial->delivered, trial->loss, trial->drained);
	if (way->load->train > 1)
		printf(",\"gbps\":%.4f", trial->delivered * way->load->size * 8 / 1e9);
	printf("}");
}
