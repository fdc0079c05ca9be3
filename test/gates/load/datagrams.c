/*
 * datagrams --target <address> <port> [--target <address> <port>] --sink <address> <port> --flows F --datagrams N
 *           [--room 98304] [--lone] [--patience 3]
 *
 * Both ends of F flows through a relay: N datagrams there, an answer to each. Every one is compared with what has to
 * come next on its flow, at both ends, so what was lost, doubled, moved to another flow, cut, merged with its
 * neighbour or altered is seen to be just that. Flows take turns between the targets, and some datagrams leave as trains.
 *
 *   --room  bytes that may be under way before another is sent, so that no socket's buffer of the usual 208 KiB
 *           overflows: what is lost is the relay's doing
 *   --lone  one datagram per flow and answer, all lengths as of a first one; for flows that just have to be there. They
 *           may end before the last has begun, and a port of the relay be another flow's then
 *   --patience  seconds of silence after which what has not come is taken for lost
 *
 * A sink's peer is a flow's socket in the relay. It is known by the first datagram, which says its flow; whoever comes
 * later and is not known is a stranger.
 *
 * What could make it lie: what comes after it was taken for lost is of a wrong order.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "clock.h"
#include "endpoint.h"
#include "failure.h"
#include "faults.h"
#include "numbered.h"
#include "open-files.h"

enum { TARGETS = 2, EVENTS = 64, AHEAD = 64, SINK_TAG = -1, PEERS = 65536, ROOM_FORCED = 32 << 20 };

struct options {
	struct endpoint targets[TARGETS];
	unsigned target_count;
	struct endpoint sink;
	unsigned flows;
	uint64_t datagrams;
	uint64_t room;
	bool lone;
	double patience;
};

struct flow {
	int fd;
	uint32_t sent;
	uint32_t arrived;  /* the next that the sink expects */
	uint32_t answered; /* the next that the client expects */
};

struct run {
	struct options options;
	struct flow *flows;
	int poller, sink;
	uint32_t *by_port; /* flow + 1 */
	uint64_t sent, arrived, answered, bytes;
	uint64_t under_way; /* what it costs */
	unsigned next_flow;
	struct faults faults;
	uint64_t misrouted, merged, lost;
};

static struct options read_options(struct words *words)
{
	struct options options = { .room = 96 * 1024, .patience = 3 };
	for (const char *name; (name = next_word(words));) {
		if (same_word(name, "--target") && options.target_count < TARGETS)
			options.targets[options.target_count++] = take_endpoint(words, name);
		else if (same_word(name, "--sink"))
			options.sink = take_endpoint(words, name);
		else if (same_word(name, "--flows"))
			options.flows = (unsigned)take_integer(words, name, 1, 60000);
		else if (same_word(name, "--datagrams"))
			options.datagrams = (uint64_t)take_integer(words, name, 1, 1000000000);
		else if (same_word(name, "--room"))
			options.room = (uint64_t)take_integer(words, name, 1, 1 << 30);
		else if (same_word(name, "--lone"))
			options.lone = true;
		else if (same_word(name, "--patience"))
			options.patience = take_number(words, name, 0.01, 60);
		else
			usage_error("found '%s', allowed are up to %d --target, --sink, --flows, --datagrams, --room, --lone and "
			            "--patience", name, TARGETS);
	}
	if (options.target_count == 0 || options.sink.length == 0 || options.flows == 0)
		usage_error("an option is missing, --target, --sink and --flows must be there");
	if (options.lone)
		options.datagrams = options.flows;
	if (options.datagrams < options.flows)
		usage_error("--datagrams %" PRIu64 " is less than one for each of %u flows", options.datagrams, options.flows);
	return options;
}

/* ---- sockets ---- */

static void widen(int fd)
{
	static const int bytes = ROOM_FORCED;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0)
		must(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes), "SO_RCVBUF");
	must(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes), "SO_SNDBUF");
}

static int open_socket(const struct endpoint *of)
{
	int fd = must(socket(of->address.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
	widen(fd);
	return fd;
}

static void watch(const struct run *run, int fd, int32_t tag)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = (uint32_t)tag };
	must(epoll_ctl(run->poller, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

static void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count, size);
	if (!memory)
		failure("no memory for %zu times %zu bytes", count, size);
	return memory;
}

static void open_all(struct run *run)
{
	const struct options *options = &run->options;
	run->poller = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
	run->flows = allocate(options->flows, sizeof *run->flows);
	run->by_port = allocate(PEERS, sizeof *run->by_port);
	run->sink = open_socket(&options->sink);
	if (bind(run->sink, (const struct sockaddr *)&options->sink.address, options->sink.length) < 0)
		failure("%s: %s", describe(&options->sink).text, strerror(errno));
	watch(run, run->sink, SINK_TAG);
	for (unsigned i = 0; i < options->flows; i++) {
		const struct endpoint *to = &options->targets[i % options->target_count];
		int fd = open_socket(to);
		if (connect(fd, (const struct sockaddr *)&to->address, to->length) < 0)
			failure("%s: %s", describe(to).text, strerror(errno));
		run->flows[i].fd = fd;
		watch(run, fd, (int32_t)i);
	}
}

/* ---- what came ---- */

static uint64_t cost_of(size_t length)
{
	/* At least what the kernel reckons in a socket's buffer, where a block of memory is up to twice the datagram. */
	return 2304 + 2 * length;
}

static void add_wrong(struct run *run, uint64_t *kind, const char *what)
{
	if (kind)
		(*kind)++;
	add_fault(&run->faults, what);
}

/* Two neighbours in one; their bytes one behind the other. */
static bool is_merged(struct datagram first, const uint8_t *bytes, size_t length)
{
	struct datagram second = { first.flow, first.number + 1, first.way };
	size_t border = length_of(first);
	return border < length && is_numbered(first, bytes, border) && is_numbered(second, bytes + border, length - border);
}

static bool is_of_another(const struct run *run, struct datagram expected, const uint8_t *bytes, size_t length)
{
	if (length < 4)
		return false;
	for (uint32_t flow = 0; flow < run->options.flows; flow++) {
		const struct flow *other = &run->flows[flow];
		uint32_t next = expected.way == THERE ? other->arrived : other->answered;
		struct datagram wanted = { flow, next, expected.way };
		if (flow != expected.flow && is_numbered(wanted, bytes, length))
			return true;
	}
	return false;
}

/* Says what it is and returns what is expected next on this flow. */
static uint32_t judge(struct run *run, struct datagram expected, const uint8_t *bytes, size_t length)
{
	if (is_numbered(expected, bytes, length))
		return expected.number + 1;
	for (uint32_t ahead = 1; ahead <= AHEAD && length >= 4; ahead++) {
		struct datagram later = { expected.flow, expected.number + ahead, expected.way };
		if (!is_numbered(later, bytes, length))
			continue;
		for (uint32_t i = 0; i < ahead; i++)
			add_wrong(run, &run->lost, "lost");
		return expected.number + ahead + 1;
	}
	if (is_of_another(run, expected, bytes, length))
		add_wrong(run, &run->misrouted, "of another flow");
	else if (is_merged(expected, bytes, length))
		add_wrong(run, &run->merged, "merged with the next");
	else if (expected.number > 0 && length >= 4 &&
	         is_numbered((struct datagram){ expected.flow, expected.number - 1, expected.way }, bytes, length))
		add_wrong(run, NULL, "came twice");
	else
		add_wrong(run, NULL, "altered, or of a wrong order");
	return expected.number;
}

/* ---- the sink ---- */

static struct flow *flow_of(struct run *run, uint16_t port, const uint8_t *bytes, size_t length)
{
	uint32_t said = flow_said_by(bytes, length);
	bool is_first = said < run->options.flows && is_numbered((struct datagram){ said, 0, THERE }, bytes, length);
	if (is_first && (run->by_port[port] == 0 || run->options.lone))
		run->by_port[port] = said + 1;
	return run->by_port[port] ? &run->flows[run->by_port[port] - 1] : NULL;
}

static void answer(struct run *run, uint32_t flow, uint32_t number, const struct sockaddr_storage *to, socklen_t length)
{
	static uint8_t bytes[LONGEST];
	struct datagram datagram = { flow, number, BACK };
	write_numbered(datagram, bytes);
	if (sendto(run->sink, bytes, length_of(datagram), 0, (const struct sockaddr *)to, length) < 0)
		add_wrong(run, NULL, strerrordesc_np(errno));
}

static void hear_at_sink(struct run *run)
{
	static uint8_t bytes[LONGEST + 64];
	struct sockaddr_storage from;
	socklen_t from_length = sizeof from;
	ssize_t got;
	for (; (got = recvfrom(run->sink, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &from_length)) >= 0;
	     from_length = sizeof from) {
		uint16_t port = ntohs(((const struct sockaddr_in *)&from)->sin_port);
		struct flow *flow = flow_of(run, port, bytes, (size_t)got);
		if (!flow) {
			add_wrong(run, &run->misrouted, "from a stranger");
			continue;
		}
		uint32_t index = (uint32_t)(flow - run->flows), expected = flow->arrived;
		run->arrived++;
		flow->arrived = judge(run, (struct datagram){ index, expected, THERE }, bytes, (size_t)got);
		if (flow->arrived > expected)
			answer(run, index, flow->arrived - 1, &from, from_length);
	}
}

/* ---- the clients ---- */

static void hear_answers(struct run *run, uint32_t index)
{
	static uint8_t bytes[LONGEST + 64];
	struct flow *flow = &run->flows[index];
	ssize_t got;
	while ((got = recv(flow->fd, bytes, sizeof bytes, 0)) >= 0) {
		uint32_t expected = flow->answered;
		run->answered++;
		run->bytes += (uint64_t)got;
		flow->answered = judge(run, (struct datagram){ index, expected, BACK }, bytes, (size_t)got);
		for (uint32_t number = expected; number < flow->answered; number++)
			run->under_way -= cost_of(length_of((struct datagram){ index, number, THERE }));
	}
	if (errno != EAGAIN)
		add_wrong(run, NULL, strerrordesc_np(errno));
}

static void send_train(struct flow *flow, const uint8_t *bytes, size_t each, unsigned count)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(uint16_t))] = { 0 };
	struct iovec piece = { (void *)bytes, each * count };
	struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
	uint16_t size = (uint16_t)each;
	if (count > 1) {
		message.msg_control = control;
		message.msg_controllen = sizeof control;
		struct cmsghdr *head = CMSG_FIRSTHDR(&message);
		*head = (struct cmsghdr){ .cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT, .cmsg_len = CMSG_LEN(sizeof size) };
		memcpy(CMSG_DATA(head), &size, sizeof size);
	}
	if (sendmsg(flow->fd, &message, 0) < 0)
		failure("sending %u datagrams of %zu bytes: %s", count, each, strerror(errno));
}

/* One datagram or a train of them. */
static void send_next(struct run *run, uint32_t index)
{
	static uint8_t bytes[TRAIN * LONGEST];
	struct flow *flow = &run->flows[index];
	struct datagram first = { index, flow->sent, THERE };
	unsigned count = begins_train(index, flow->sent) && length_of(first) > 0 ? TRAIN : 1;
	size_t each = length_of(first);
	for (unsigned i = 0; i < count; i++) {
		struct datagram datagram = { index, flow->sent++, THERE };
		write_numbered(datagram, bytes + i * each);
		run->under_way += cost_of(each);
	}
	send_train(flow, bytes, each, count);
	run->sent += count;
}

/* A flow that has not been answered yet may still be on its way to an upstream: one datagram at a time. */
static bool may_send(const struct flow *flow)
{
	return flow->answered > 0 || flow->sent == 0;
}

static void send_more(struct run *run)
{
	const struct options *options = &run->options;
	for (unsigned i = 0; i < options->flows && run->sent < options->datagrams && run->under_way < options->room; i++) {
		uint32_t index = run->next_flow++ % options->flows;
		if (options->lone ? run->flows[index].sent == 0 : may_send(&run->flows[index]))
			send_next(run, index);
	}
}

/* Nothing has come for a while though something is under way: it never will. */
static void give_up(struct run *run)
{
	for (unsigned i = 0; i < run->options.flows; i++) {
		struct flow *flow = &run->flows[i];
		for (; flow->answered < flow->sent; flow->answered++) {
			add_wrong(run, &run->lost, "lost");
			run->under_way -= cost_of(length_of((struct datagram){ i, flow->answered, THERE }));
		}
		flow->arrived = flow->sent;
	}
}

static void drive(struct run *run)
{
	while (run->sent < run->options.datagrams || run->under_way > 0) {
		struct epoll_event events[EVENTS];
		send_more(run);
		int count = epoll_wait(run->poller, events, EVENTS, (int)(run->options.patience * 1000));
		if (count == 0)
			give_up(run);
		for (int i = 0; i < count; i++) {
			int32_t tag = (int32_t)(uint32_t)events[i].data.u64;
			if (tag == SINK_TAG)
				hear_at_sink(run);
			else
				hear_answers(run, (uint32_t)tag);
		}
	}
}

int main(int count, char **arguments)
{
	struct words words = { count > 0 ? arguments + 1 : arguments };
	struct run run = { .options = read_options(&words) };
	raise_open_files();
	prepare_datagrams();
	open_all(&run);
	uint64_t start = now_ns();
	drive(&run);
	printf("{\"sent\":%" PRIu64 ",\"arrived\":%" PRIu64 ",\"answered\":%" PRIu64 ",\"misrouted\":%" PRIu64
	       ",\"merged\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"faults\":",
	       run.sent, run.arrived, run.answered, run.misrouted, run.merged, run.lost, run.faults.all);
	print_faults(&run.faults);
	printf(",\"bytes\":%" PRIu64 ",\"seconds\":%.3f}\n", run.bytes, (double)(now_ns() - start) / SECOND);
	return 0;
}
