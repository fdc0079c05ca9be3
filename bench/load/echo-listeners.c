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

enum { BACKLOG = 4096 };

static const int on = 1;

void open_listener(const struct endpoint *at)
{
	int fd = socket(at->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		failure("a socket for %s: %s", describe(at).text, strerror(errno));
	/* Connections of the run before may still be in TIME_WAIT. */
	must(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
	/* So that 0.0.0.0 and [::] can be served beside each other, as the subjects do. */
	if (at->address.ss_family == AF_INET6)
		must(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), "IPV6_V6ONLY");
	if (bind(fd, (const struct sockaddr *)&at->address, at->length) < 0 || listen(fd, BACKLOG) < 0)
		failure("%s: %s", describe(at).text, strerror(errno));
	watch(EPOLL_CTL_ADD, fd, LISTENER, EPOLLIN);
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
