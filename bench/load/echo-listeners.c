/*
 * The sockets that others come to. A port that cannot be opened ends the program: half a range would be
 * noticed only as failures of the subject.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "echo-server.h"
#include "failure.h"

enum { BACKLOG = 4096, DATAGRAMS_IN_A_ROW = 64 };

static const int on = 1;

static int open_bound(const struct endpoint *at, int type)
{
	int fd = socket(at->address.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		failure("a socket for %s: %s", describe(at).text, strerror(errno));
	/* Connections of the run before may still be in TIME_WAIT. For UDP it would let two servers share a port. */
	if (type == SOCK_STREAM)
		must(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
	/* So that 0.0.0.0 and [::] can be served beside each other, as the subjects do. */
	if (at->address.ss_family == AF_INET6)
		must(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), "IPV6_V6ONLY");
	if (bind(fd, (const struct sockaddr *)&at->address, at->length) < 0)
		failure("%s: %s", describe(at).text, strerror(errno));
	return fd;
}

void open_listener(const struct endpoint *at)
{
	int fd = open_bound(at, SOCK_STREAM);
	if (listen(fd, BACKLOG) < 0)
		failure("%s: %s", describe(at).text, strerror(errno));
	watch(EPOLL_CTL_ADD, fd, LISTENER, EPOLLIN);
}

/* An answer from a wildcard address leaves from the address that the kernel chooses, so on a host with several
 * a specific one must be named. */
void open_datagrams(const struct endpoint *at)
{
	watch(EPOLL_CTL_ADD, open_bound(at, SOCK_DGRAM), DATAGRAMS, EPOLLIN);
}

/* These leave one connection out and not the server: the client went away, or its network did, accept(2). */
static bool is_of_one_client(int error)
{
	return error == ECONNABORTED || error == EINTR || error == EPROTO || error == ENETDOWN ||
	       error == EHOSTUNREACH || error == ENETUNREACH || error == EPERM;
}

void accept_all(int listener)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			/* It fails for a client that has gone; its first read tells that better. */
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
			watch(EPOLL_CTL_ADD, fd, CONNECTION, EPOLLIN);
		} else if (errno == EAGAIN) {
			return;
		} else if (!is_of_one_client(errno)) {
			failure("accept: %s", strerror(errno));
		}
	}
}

/* Errors are those of earlier answers, such as a client that is gone, and lose one datagram as a network may. */
void echo_datagrams(int fd)
{
	static unsigned char bytes[65536];
	for (int i = 0; i < DATAGRAMS_IN_A_ROW; i++) {
		struct sockaddr_storage from;
		socklen_t length = sizeof from;
		ssize_t got = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &length);
		if (got < 0)
			return;
		sendto(fd, bytes, (size_t)got, 0, (struct sockaddr *)&from, length);
	}
}
