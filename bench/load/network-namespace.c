/*
 * A socket stays in the network namespace where it was made, whatever its thread enters later. So one process
 * can be the client in one namespace and the program in another, with one clock and one memory for both: which
 * datagrams were lost is known without asking anybody.
 */
#define _GNU_SOURCE
#include "network-namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>

#include "failure.h"

int open_namespace(const char *path)
{
	int fd = open(path ? path : "/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		failure("network namespace %s: %s", path ? path : "of this process", strerror(errno));
	return fd;
}

void enter_namespace(int fd)
{
	if (setns(fd, CLONE_NEWNET) < 0)
		failure("entering a network namespace: %s", strerror(errno));
}
