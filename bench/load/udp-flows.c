/*
 * Before anything is counted each flow greets the sink, and the sink answers. Afterwards a relay knows the flow
 * and has chosen the upstream for it, and whoever distinguishes answered flows from others takes it for an
 * answered one. A trial then measures how datagrams are carried and not how flows are made.
 *
 * Greetings are repeated every 50 ms, for they may be lost as any datagram. An answer must name the very flow,
 * so a relay that mixes its clients up does not come further than this.
 */
#define _GNU_SOURCE
#include "udp-flows.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "datagram.h"
#include "failure.h"

enum { ROUND = 50 * MILLISECOND, ROUNDS = 40, GLANCE = 2 * MILLISECOND, AT_ONCE = 32 };

static void __attribute__((noreturn)) fail_to_segment(void)
{
	failure("this kernel or device refuses UDP_SEGMENT (%s), only --train 1 can be had", strerror(errno));
}

bool may_send_again(const struct load *load)
{
	/* Such as datagrams above the device's MTU, which it could only send as fragments. */
	if (load->train > 1 && (errno == EIO || errno == EINVAL || errno == EMSGSIZE))
		fail_to_segment();
	return errno == ECONNREFUSED || errno == ENOBUFS || errno == EINTR || errno == EHOSTUNREACH ||
	       errno == ENETUNREACH;
}

static int open_flow(const struct load *load)
{
	int fd = socket(load->target.address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		failure("a socket for a flow: %s", strerror(errno));
	if (connect(fd, (const struct sockaddr *)&load->target.address, load->target.length) < 0)
		failure("%s: %s", describe(&load->target).text, strerror(errno));
	int size = (int)load->size;
	if (load->train > 1 && setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size) < 0)
		fail_to_segment();
	return fd;
}

struct flows open_flows(const struct load *load)
{
	struct flows flows = { .sockets = calloc(load->flows, sizeof *flows.sockets), .count = load->flows };
	if (!flows.sockets)
		failure("no memory for %u flows", load->flows);
	for (unsigned i = 0; i < flows.count; i++)
		flows.sockets[i] = open_flow(load);
	return flows;
}

struct greeting {
	const struct flows *flows;
	const struct load *load;
	uint32_t run;
	bool *answered;
	unsigned missing;
};

static void send_greeting(const struct greeting *greeting, unsigned flow)
{
	uint8_t bytes[DATAGRAM_MOST_SIZE];
	struct datagram datagram = { .kind = GREETING, .run = greeting->run, .flow = flow };
	write_datagram(&datagram, bytes, greeting->load->size);
	/* A refusal by ICMP is an error here, and the next round tries again: the target may be starting. */
	if (send(greeting->flows->sockets[flow], bytes, greeting->load->size, 0) < 0 && !may_send_again(greeting->load))
		failure("sending to %s: %s", describe(&greeting->load->target).text, strerror(errno));
}

static void read_answers(struct greeting *greeting, unsigned flow)
{
	uint8_t bytes[DATAGRAM_MOST_SIZE];
	ssize_t got;
	while ((got = recv(greeting->flows->sockets[flow], bytes, sizeof bytes, MSG_DONTWAIT)) >= 0) {
		struct datagram datagram;
		if ((size_t)got != greeting->load->size || !read_datagram(&datagram, bytes, greeting->load->size))
			continue;
		bool ours = datagram.kind == ANSWER && datagram.run == greeting->run && datagram.flow == flow;
		if (ours && !greeting->answered[flow]) {
			greeting->answered[flow] = true;
			greeting->missing--;
		}
	}
}

static void read_all_answers(struct greeting *greeting)
{
	for (unsigned flow = 0; flow < greeting->flows->count; flow++)
		read_answers(greeting, flow);
}

/* In portions, so that no receive buffer on the way overflows with a thousand greetings at once. */
static void send_all_greetings(struct greeting *greeting)
{
	unsigned in_a_row = 0;
	for (unsigned flow = 0; flow < greeting->flows->count; flow++) {
		if (greeting->answered[flow])
			continue;
		send_greeting(greeting, flow);
		if (++in_a_row % AT_ONCE == 0)
			sleep_until(now_ns() + MILLISECOND);
	}
}

static void greet_once(struct greeting *greeting)
{
	uint64_t end = now_ns() + ROUND;
	send_all_greetings(greeting);
	do {
		sleep_until(now_ns() + GLANCE);
		read_all_answers(greeting);
	} while (greeting->missing > 0 && now_ns() < end);
}

void greet(const struct flows *flows, const struct load *load, uint32_t run)
{
	struct greeting greeting = { .flows = flows, .load = load, .run = run, .missing = flows->count };
	greeting.answered = calloc(flows->count, sizeof *greeting.answered);
	if (!greeting.answered)
		failure("no memory for %u flows", flows->count);
	for (int i = 0; i < ROUNDS && greeting.missing > 0; i++)
		greet_once(&greeting);
	if (greeting.missing > 0)
		failure("%u of %u flows to %s were not answered within 2 s, all must be", greeting.missing, flows->count,
		        describe(&load->target).text);
	free(greeting.answered);
}
