/*
 * echo-server <address> <first-port> <count>
 *
 * The program behind everything that is measured: it sends back what it gets, on `count` TCP ports in a row.
 * Prints `ready` when all ports are open and ends with SIGTERM.
 *
 * One thread and one epoll, level-triggered: on two cores a second thread would compete with the relay. It
 * works in the order of events and never sleeps with work left, so its own delay is the time for at most 64
 * events of at most 64 KiB.
 *
 * What could make it lie: being the bottleneck. It is the same for every subject and for `direct`, whose figure
 * is the highest that this server permits.
 */
#define _GNU_SOURCE
#include "echo-server.h"

#include <stdio.h>
#include <sys/epoll.h>

#include "failure.h"
#include "open-files.h"

static int poller;

void watch(int operation, int fd, enum kind kind, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.u64 = (uint64_t)kind << 32 | (uint32_t)fd };
	must(epoll_ctl(poller, operation, fd, &event), "epoll_ctl");
}

static void open_ports(const struct endpoint *first, long count)
{
	for (long i = 0; i < count; i++) {
		struct endpoint at = with_port(*first, (uint16_t)(port_of(first) + i));
		open_listener(&at);
	}
}

static void serve(uint64_t key)
{
	int fd = (int)(uint32_t)key;
	switch ((enum kind)(key >> 32)) {
	case LISTENER:
		accept_all(fd);
		break;
	case CONNECTION:
		serve_connection(fd);
		break;
	}
}

/* A connection is closed only while its own event is served, so no event of the same batch can meet a
 * descriptor that was given to another: accept_all makes new ones, whose events come with the next batch. */
static void __attribute__((noreturn)) serve_forever(void)
{
	struct epoll_event events[64];
	for (;;) {
		int count = epoll_wait(poller, events, 64, -1);
		for (int i = 0; i < count; i++)
			serve(events[i].data.u64);
	}
}

int main(int count, char **arguments)
{
	struct words words = { count > 0 ? arguments + 1 : arguments };
	struct endpoint first = take_endpoint(&words, "<address>");
	long ports = take_integer(&words, "<count>", 1, 65536 - port_of(&first));
	const char *more = next_word(&words);
	if (more)
		usage_error("found '%s', allowed are <address> <first-port> <count>", more);
	prepare_connections(raise_open_files());
	poller = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
	open_ports(&first, ports);
	puts("ready");
	fflush(stdout);
	serve_forever();
}
