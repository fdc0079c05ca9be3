/*
 * One connection, which is in one of two states:
 *
 *   flowing   nothing is unsent; it is read and what was read is written at once. It owns no memory: what tells
 *             it from others is the kernel's, and its place in `backlogs` is a page only while one near it
 *             is held up.
 *   held up   a backlog exists; it is written when the peer takes more, and read on as long as there is room.
 *
 * The end of the peer's bytes is passed on behind the last of them, by closing: both directions are done then.
 * A reset, or any other error, ends the connection at once.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "backlog.h"
#include "echo-server.h"
#include "failure.h"

enum { READ_SIZE = 64 * 1024 };

/** By descriptor; NULL while it is flowing. */
static struct backlog **backlogs;

void prepare_connections(long limit)
{
	prepare_backlogs();
	backlogs = calloc((size_t)limit, sizeof(struct backlog *));
	if (!backlogs)
		failure("no memory for %ld connections", limit);
}

static void end_connection(int fd)
{
	free_backlog(backlogs[fd]);
	backlogs[fd] = NULL;
	close(fd);
}

/** Returns the bytes written, which may be 0, or -1 when the connection is lost. */
static ssize_t write_some(int fd, const unsigned char *bytes, size_t length)
{
	ssize_t written = send(fd, bytes, length, MSG_NOSIGNAL);
	return written < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : written;
}

static void watch_held_up(int fd, const struct backlog *backlog)
{
	bool reads = !backlog->ended && backlog_length(backlog) + READ_SIZE <= BACKLOG_LIMIT;
	watch(EPOLL_CTL_MOD, fd, CONNECTION, EPOLLOUT | (reads ? (uint32_t)EPOLLIN : 0));
}

/** False when the connection is at its end. */
static bool take_in(int fd, const unsigned char *bytes, size_t length)
{
	struct backlog *backlog = backlogs[fd];
	ssize_t written = backlog ? 0 : write_some(fd, bytes, length);
	if (written < 0)
		return false;
	if ((size_t)written < length) {
		backlogs[fd] = backlog ? backlog : make_backlog();
		backlog_add(backlogs[fd], bytes + written, length - (size_t)written);
	}
	return true;
}

static bool read_on(int fd)
{
	static unsigned char bytes[READ_SIZE];
	struct backlog *backlog = backlogs[fd];
	if (backlog && (backlog->ended || backlog_length(backlog) + READ_SIZE > BACKLOG_LIMIT))
		return true;
	ssize_t got = recv(fd, bytes, sizeof bytes, 0);
	if (got > 0)
		return take_in(fd, bytes, (size_t)got);
	if (got < 0)
		return errno == EAGAIN || errno == EINTR;
	if (backlog)
		backlog->ended = true;
	return backlog != NULL;
}

static bool write_on(int fd)
{
	struct backlog *backlog = backlogs[fd];
	if (!backlog)
		return true;
	ssize_t written = write_some(fd, backlog->bytes + backlog->start, backlog_length(backlog));
	if (written < 0)
		return false;
	backlog->start += (size_t)written;
	if (backlog_length(backlog) > 0)
		return true;
	bool ended = backlog->ended;
	free_backlog(backlog);
	backlogs[fd] = NULL;
	return !ended;
}

void serve_connection(int fd)
{
	bool was_held_up = backlogs[fd] != NULL;
	if (!write_on(fd) || !read_on(fd))
		end_connection(fd);
	else if (backlogs[fd])
		watch_held_up(fd, backlogs[fd]);
	else if (was_held_up)
		watch(EPOLL_CTL_MOD, fd, CONNECTION, EPOLLIN);
}
