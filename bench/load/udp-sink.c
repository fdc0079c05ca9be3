/*
 * The sink must not be the bottleneck of anything, nor take more of the processors than it needs: its receive
 * buffer is as large as it may be, it reads up to 64 datagrams a call, and after a call that found fewer it
 * pauses for 100 µs, during which the buffer fills and no sender pays for waking it. With trains it reads whole
 * trains (UDP_GRO) and counts their parts.
 *
 * Each datagram is compared whole. A bitmap a flow tells the first arrival from a second one, so loss is what
 * was sent minus what arrived at least once, never hidden by duplicates. The run number in each datagram tells
 * trials apart, and its start is random, so what a former trial or a former process left in a queue is `stale`
 * and counts for nothing.
 *
 * What could make it lie: a large buffer delays, and `last` is when a datagram was read. The pause adds up to
 * 100 µs to it, overload of this thread more.
 */
#define _GNU_SOURCE
#include "udp-sink.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "datagram.h"
#include "failure.h"

enum {
	BATCH = 64,
	/* Trains are up to 64 KiB each, and a batch should stay in the cache. */
	TRAINS = 8,
	PAUSE = 100 * MICROSECOND,
	/* More than the slowest sink would need at a million a second. */
	WANTED_BUFFER = 32 * 1024 * 1024,
	LEAST_ROOM = 2048,
	LINE = 64,
};

/** What is known of a flow. */
struct arrival {
	struct sockaddr_storage from;
	socklen_t length;
	uint64_t greatest;
	bool any;
};

struct sink {
	int fd;
	unsigned size;
	unsigned flows;
	bool trains;
	uint32_t greeted;
	/** Between the thread and who asks; taken once a batch. */
	pthread_mutex_t lock;
	struct tally tally;
	uint32_t run;
	uint64_t most;
	struct arrival *arrivals;
	/** One bit a sequence number, `words` 64-bit words a flow. */
	uint64_t *seen;
	uint64_t words;
	unsigned batch;
	struct mmsghdr *messages;
};

static void want_buffer(int fd)
{
	int size = WANTED_BUFFER;
	/* Beyond net.core.rmem_max only with CAP_NET_ADMIN. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
		must(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size), "SO_RCVBUF");
}

static int open_sink(const struct load *load)
{
	static const int on = 1;
	int fd = socket(load->sink.address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		failure("a socket for the sink: %s", strerror(errno));
	if (load->sink.address.ss_family == AF_INET6)
		must(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), "IPV6_V6ONLY");
	want_buffer(fd);
	if (load->train > 1)
		must(setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on), "UDP_GRO");
	if (bind(fd, (const struct sockaddr *)&load->sink.address, load->sink.length) < 0)
		failure("%s: %s", describe(&load->sink).text, strerror(errno));
	return fd;
}

struct slot {
	struct sockaddr_storage from;
	struct iovec bytes;
	/** A cmsg with the length of a train's parts. */
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
};

static void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count, size);
	if (!memory)
		failure("no memory for %zu bytes", count * size);
	return memory;
}

static void make_messages(struct sink *sink)
{
	/* More than is expected, so that what is too long is seen to be, and what a run with larger datagrams left
	 * behind is known as such. The odd line keeps the labels of a batch from sharing a few sets of the cache. */
	size_t expected = sink->size > LEAST_ROOM ? sink->size : LEAST_ROOM;
	size_t room = sink->trains ? 65536 : (expected / LINE + 2) * LINE;
	sink->batch = sink->trains ? TRAINS : BATCH;
	sink->messages = allocate(sink->batch, sizeof *sink->messages);
	struct slot *slots = allocate(sink->batch, sizeof *slots);
	uint8_t *bytes = allocate(sink->batch, room);
	for (unsigned i = 0; i < sink->batch; i++) {
		slots[i].bytes = (struct iovec){ bytes + i * room, room };
		sink->messages[i].msg_hdr = (struct msghdr){
			.msg_name = &slots[i].from,
			.msg_iov = &slots[i].bytes,
			.msg_iovlen = 1,
			.msg_control = slots[i].control,
		};
	}
}

static bool is_from(const struct arrival *arrival, const struct msghdr *message)
{
	return arrival->length == message->msg_namelen &&
	       memcmp(&arrival->from, message->msg_name, arrival->length) == 0;
}

static void answer(struct sink *sink, const struct datagram *greeting, const struct msghdr *message)
{
	if (greeting->run != sink->greeted || greeting->flow >= sink->flows)
		return;
	struct arrival *arrival = &sink->arrivals[greeting->flow];
	memcpy(&arrival->from, message->msg_name, message->msg_namelen);
	arrival->length = message->msg_namelen;
	uint8_t bytes[DATAGRAM_MOST_SIZE];
	struct datagram datagram = *greeting;
	datagram.kind = ANSWER;
	write_datagram(&datagram, bytes, sink->size);
	/* If it is lost the greeting comes again. */
	sendto(sink->fd, bytes, sink->size, MSG_DONTWAIT, message->msg_name, message->msg_namelen);
}

static void count_numbered(struct sink *sink, const struct datagram *datagram, const struct msghdr *message)
{
	struct tally *tally = &sink->tally;
	if (datagram->flow >= sink->flows || datagram->sequence >= sink->most) {
		tally->corrupt++;
		return;
	}
	struct arrival *arrival = &sink->arrivals[datagram->flow];
	if (!is_from(arrival, message)) {
		tally->misrouted++;
		return;
	}
	uint64_t *word = &sink->seen[datagram->flow * sink->words + datagram->sequence / 64];
	uint64_t bit = UINT64_C(1) << datagram->sequence % 64;
	if (*word & bit) {
		tally->duplicates++;
		return;
	}
	*word |= bit;
	tally->received++;
	if (arrival->any && datagram->sequence < arrival->greatest)
		tally->reordered++;
	else
		arrival->greatest = datagram->sequence;
	arrival->any = true;
}

static void count_one(struct sink *sink, const uint8_t *bytes, size_t size, const struct msghdr *message)
{
	struct datagram datagram;
	if (!read_datagram(&datagram, bytes, size))
		sink->tally.corrupt++;
	else if (datagram.kind == NUMBERED && datagram.run == sink->run)
		count_numbered(sink, &datagram, message);
	else if (datagram.kind == GREETING)
		answer(sink, &datagram, message);
	else
		sink->tally.stale++;
}

/* The length of the parts of a train, or of the whole if it is none. */
static size_t part_of(struct msghdr *message, size_t length)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		int size;
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
			memcpy(&size, CMSG_DATA(c), sizeof size);
			return (size_t)size;
		}
	}
	return length;
}

static void count_message(struct sink *sink, struct mmsghdr *message)
{
	const uint8_t *bytes = message->msg_hdr.msg_iov->iov_base;
	size_t left = message->msg_len;
	size_t part = part_of(&message->msg_hdr, left);
	do {
		size_t size = left < part ? left : part;
		count_one(sink, bytes, size, &message->msg_hdr);
		bytes += size;
		left -= size;
	} while (left > 0);
}

static int receive(struct sink *sink)
{
	for (unsigned i = 0; i < sink->batch; i++) {
		sink->messages[i].msg_hdr.msg_namelen = sizeof(struct sockaddr_storage);
		sink->messages[i].msg_hdr.msg_controllen = sink->trains ? CMSG_SPACE(sizeof(int)) : 0;
	}
	return recvmmsg(sink->fd, sink->messages, sink->batch, MSG_WAITFORONE, NULL);
}

static void *run_sink(void *argument)
{
	struct sink *sink = argument;
	for (;;) {
		int count = receive(sink);
		/* ICMP errors of answers come as errors of the next call. */
		if (count < 0)
			continue;
		pthread_mutex_lock(&sink->lock);
		for (int i = 0; i < count; i++)
			count_message(sink, &sink->messages[i]);
		sink->tally.last = now_ns();
		pthread_mutex_unlock(&sink->lock);
		if (count < (int)sink->batch)
			sleep_until(now_ns() + PAUSE);
	}
	return NULL;
}

struct sink *start_sink(const struct load *load, uint32_t greeted)
{
	struct sink *sink = allocate(1, sizeof *sink);
	sink->fd = open_sink(load);
	sink->size = load->size;
	sink->flows = load->flows;
	sink->trains = load->train > 1;
	sink->greeted = greeted;
	sink->arrivals = allocate(load->flows, sizeof *sink->arrivals);
	make_messages(sink);
	pthread_mutex_init(&sink->lock, NULL);
	pthread_t thread;
	if (pthread_create(&thread, NULL, run_sink, sink) != 0)
		failure("a thread for the sink cannot be started");
	return sink;
}

void count_run(struct sink *sink, uint32_t run, uint64_t most)
{
	uint64_t words = (most + 63) / 64;
	/* Fresh pages from the kernel, which are there only once they are touched. */
	uint64_t *seen = allocate(sink->flows * words, sizeof *seen);
	pthread_mutex_lock(&sink->lock);
	uint64_t *former = sink->seen;
	sink->seen = seen;
	sink->words = words;
	sink->most = most;
	sink->run = run;
	sink->tally = (struct tally){ 0 };
	for (unsigned i = 0; i < sink->flows; i++)
		sink->arrivals[i].any = false;
	pthread_mutex_unlock(&sink->lock);
	free(former);
}

struct tally tally_of(struct sink *sink)
{
	pthread_mutex_lock(&sink->lock);
	struct tally tally = sink->tally;
	pthread_mutex_unlock(&sink->lock);
	return tally;
}
