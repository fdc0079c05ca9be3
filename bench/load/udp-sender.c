/*
 * Sends at a rate without spinning: it sleeps 75 µs at a time, works out how many datagrams are due by now, and
 * sends them in calls of at most 32 (sendmmsg). At 100 000 a second that is 7 or 8 at a time, which is how
 * datagrams come from a network card too.
 *
 * What is due is dealt to the flows in turn, the datagrams of one call to one flow. So with one flow a relay
 * meets runs of up to 32, and with as many flows as are due at a time each datagram is of another flow than
 * the one before.
 *
 * A sender that was kept from its processor for a few ms would send all it had missed in one burst, far faster
 * than the rate that is to be measured, and a relay with an ordinary receive buffer (300 small datagrams) would
 * lose part of it. So at most 0.5 ms worth, or one call, is made up for; the rest is not sent, and `sent` over
 * the time gives the rate that was really offered.
 *
 * What could make it lie: a datagram counts as sent when the kernel took it. On loopback and veth the kernel
 * carries it as far as the receiver's socket within the same call, so the time of this thread contains part of
 * the relay's work.
 */
#define _GNU_SOURCE
#include "udp-sender.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "datagram.h"
#include "failure.h"

enum { AT_A_TIME = 32, TICK = 75 * MICROSECOND, FORGIVEN_AFTER = 500 * MICROSECOND, REFUSALS = 3 };

const double fastest = 20e6;

struct sender {
	const struct flows *flows;
	const struct load *load;
	uint32_t run;
	/** The next number of each flow. */
	uint64_t *sequences;
	unsigned next_flow;
	/** Messages of one call, and datagrams in each message. */
	unsigned batch;
	unsigned train;
	struct mmsghdr messages[AT_A_TIME];
	struct iovec vectors[AT_A_TIME];
	uint8_t *bytes;
};

static struct sender make_sender(const struct flows *flows, const struct load *load, uint32_t run)
{
	struct sender sender = { .flows = flows, .load = load, .run = run, .train = load->train };
	sender.batch = load->train > 1 ? 1 : AT_A_TIME;
	sender.sequences = calloc(flows->count, sizeof *sender.sequences);
	sender.bytes = malloc((size_t)sender.batch * sender.train * load->size);
	if (!sender.sequences || !sender.bytes)
		failure("no memory for %u flows", flows->count);
	return sender;
}

static void write_numbered(struct sender *sender, unsigned flow, unsigned messages)
{
	unsigned size = sender->load->size;
	unsigned length = sender->train * size;
	for (unsigned i = 0; i < messages * sender->train; i++) {
		struct datagram datagram = { NUMBERED, sender->run, flow, sender->sequences[flow]++ };
		write_datagram(&datagram, sender->bytes + i * size, size);
	}
	for (unsigned i = 0; i < messages; i++) {
		sender->vectors[i] = (struct iovec){ sender->bytes + i * length, length };
		sender->messages[i].msg_hdr = (struct msghdr){ .msg_iov = &sender->vectors[i], .msg_iovlen = 1 };
	}
}

static void send_messages(struct sender *sender, unsigned flow, unsigned messages)
{
	write_numbered(sender, flow, messages);
	unsigned refusals = 0;
	for (unsigned done = 0; done < messages;) {
		int sent = sendmmsg(sender->flows->sockets[flow], sender->messages + done, messages - done, 0);
		if (sent < 0 && (!may_send_again(sender->load) || ++refusals > REFUSALS))
			failure("sending to %s: %s", describe(&sender->load->target).text, strerror(errno));
		if (sent > 0)
			done += (unsigned)sent;
	}
}

/* Sends `due` messages, at most a batch. Each flow gets its share, and those that get one more take turns. */
static void send_batch(struct sender *sender, unsigned due)
{
	unsigned flows = sender->flows->count;
	unsigned more = due % flows;
	for (unsigned i = 0; i < flows && i < due; i++)
		send_messages(sender, (sender->next_flow + i) % flows, due / flows + (i < more));
	sender->next_flow = (sender->next_flow + more) % flows;
}

/* Rates are of messages from here on: a train is one. */
static uint64_t send_as_fast_as_possible(struct sender *sender, uint64_t start, uint64_t most)
{
	uint64_t end = start + (uint64_t)(sender->load->seconds * SECOND);
	uint64_t sent = 0;
	for (; sent + sender->batch <= most && now_ns() < end; sent += sender->batch)
		send_batch(sender, sender->batch);
	return sent;
}

static void send_many(struct sender *sender, uint64_t messages)
{
	for (; messages > sender->batch; messages -= sender->batch)
		send_batch(sender, sender->batch);
	send_batch(sender, (unsigned)messages);
}

static uint64_t send_paced(struct sender *sender, uint64_t start, double rate, uint64_t total)
{
	uint64_t sent = 0;
	/* Messages that were due and are not sent any more. */
	uint64_t forgiven = 0;
	uint64_t most_at_once = (uint64_t)fmax(sender->batch, rate * FORGIVEN_AFTER / SECOND);
	for (uint64_t now = start; sent + forgiven < total; now = now_ns()) {
		uint64_t by_now = (uint64_t)((double)(now - start) * rate / SECOND) + 1;
		uint64_t due = (by_now < total ? by_now : total) - sent - forgiven;
		uint64_t sending = due < most_at_once ? due : most_at_once;
		send_many(sender, sending);
		sent += sending;
		forgiven += due - sending;
		uint64_t next = start + (uint64_t)((double)(sent + forgiven) * SECOND / rate);
		sleep_until(next > now + TICK ? next : now + TICK);
	}
	return sent;
}

struct sending send_run(const struct flows *flows, const struct load *load, uint32_t run, double rate)
{
	struct sender sender = make_sender(flows, load, run);
	double messages = (rate > 0 ? rate : fastest) / load->train;
	uint64_t total = (uint64_t)ceil(messages * load->seconds - 1e-6);
	struct sending sending = { .start = now_ns() };
	sending.sent = rate > 0 ? send_paced(&sender, sending.start, messages, total)
	                        : send_as_fast_as_possible(&sender, sending.start, total);
	sending.end = now_ns();
	sending.sent *= load->train;
	free(sender.bytes);
	free(sender.sequences);
	return sending;
}
