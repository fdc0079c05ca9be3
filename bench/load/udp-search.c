/*
 * Searches for the highest rate at which at most --loss (0.1 %) is lost.
 *
 * The first trial sends as fast as it can. What it delivers is near what is searched for, from above or from
 * below: a relay that is flooded may drop more work than it finishes, or batch better than it ever does
 * otherwise. So the search starts there and goes outwards, up in steps of a quarter, or down by a quarter and
 * then by halves, until one rate has passed and one has failed; then it bisects, and ends when the two are
 * within 1 % or --trials are used up, counting the first. Seven come within 2 to 5 % where the overload was a
 * good guess.
 *
 * Two things would make the result jump. One hiccup of a scheduler loses some ms worth of datagrams at a rate
 * that is carried otherwise, and bisection never comes back from a wrong turn. So a rate that failed is tried
 * once more, which counts as the same trial, if what it lost would fit into 30 ms; more is no hiccup. And a
 * trial is short, so a queue on the way could hide what is too much: n datagrams of room look like n/seconds
 * more. So a rate passes only if the last datagram arrived within 10 ms after it was sent, or 4 % of the
 * trial.
 *
 * `rate` is what was offered in the best trial that passed, as measured; 0 if none did. If even the first one
 * passed, the sender was slower than what it measured: the rate is that of the sender.
 */
#include "udp-search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "failure.h"

struct search {
	struct way *way;
	struct trial overload;
	/** Every other one, repeats included. */
	struct trial *trials;
	unsigned count;
	struct trial best;
	/** The highest rate asked for that passed, 0 if none, and the lowest that failed. */
	double passed;
	double failed;
	/** Whether a rate failed other than that of the overload. */
	bool bounded;
};

static const double hiccup = 0.03;
static const double closeness = 0.01;

static bool has_passed(const struct search *search, const struct trial *trial)
{
	const struct load *load = search->way->load;
	return trial->loss <= load->loss && trial->drained <= fmax(0.01, 0.04 * load->seconds);
}

static bool may_be_hiccup(const struct trial *trial)
{
	return trial->loss * (double)trial->sent <= trial->offered * hiccup;
}

static bool try_once(struct search *search, double rate)
{
	struct trial *trial = &search->trials[search->count++];
	*trial = run_trial(search->way, rate);
	bool passed = has_passed(search, trial);
	if (passed && trial->offered > search->best.offered)
		search->best = *trial;
	return passed;
}

static bool is_carried(struct search *search, double rate)
{
	return try_once(search, rate) || (may_be_hiccup(&search->trials[search->count - 1]) && try_once(search, rate));
}

static double next_rate(const struct search *search)
{
	double middle = (search->passed + search->failed) / 2;
	double delivered = search->overload.delivered;
	if (search->passed == 0 && !search->bounded)
		return delivered > 0 && delivered < search->failed ? delivered : middle;
	if (search->passed == 0)
		return search->failed == delivered ? 0.75 * delivered : middle;
	return search->bounded ? middle : fmin(1.25 * search->passed, middle);
}

static void narrow(struct search *search)
{
	double rate = next_rate(search);
	if (is_carried(search, rate)) {
		search->passed = rate;
	} else {
		search->failed = rate;
		search->bounded = true;
	}
}

static void print_search(const struct search *search)
{
	printf("{\"overload\":");
	print_trial(search->way, &search->overload);
	printf(",\"rate\":%.1f,\"loss\":%.6f,\"trials\":[", search->best.offered, search->best.loss);
	for (unsigned i = 0; i < search->count; i++) {
		if (i > 0)
			printf(",");
		print_trial(search->way, &search->trials[i]);
	}
	printf("]}\n");
}

void run_search(struct way *way)
{
	unsigned most = way->load->trials;
	struct search search = { .way = way, .overload = run_trial(way, 0) };
	search.trials = calloc(2 * most, sizeof *search.trials);
	if (!search.trials)
		failure("no memory for %u trials", most);
	search.failed = search.overload.offered;
	if (has_passed(&search, &search.overload))
		search.best = search.overload;
	else
		for (unsigned i = 1; i < most && search.failed > search.passed * (1 + closeness); i++)
			narrow(&search);
	print_search(&search);
}
