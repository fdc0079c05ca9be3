/* Asks a server as somebody else, which shows whether the answers to a transparent socket find back:
 *
 *   spoof tcp|udp CLIENT CLIENT-PORT HOST PORT [MILLISECONDS]
 *
 * CLIENT is any address of HOST's family, CLIENT-PORT 0 for the kernel's choice. Prints what was answered and ends with
 * 0, or prints the errno's name and ends with 1. The question is HTTP over TCP and "hello" over UDP. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union place {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static void fail(const char *what, int error) {
	printf("%s %s\n", what, strerrorname_np(error));
	exit(1);
}

static socklen_t read_place(union place *place, const char *host, const char *port) {
	memset(place, 0, sizeof *place);
	if (inet_pton(AF_INET, host, &place->v4.sin_addr) == 1) {
		place->v4.sin_family = AF_INET;
		place->v4.sin_port = htons(atoi(port));
		return sizeof place->v4;
	}
	if (inet_pton(AF_INET6, host, &place->v6.sin6_addr) != 1) fail(host, EINVAL);
	place->v6.sin6_family = AF_INET6;
	place->v6.sin6_port = htons(atoi(port));
	return sizeof place->v6;
}

static void await(int fd, short events, int milliseconds, const char *what) {
	struct pollfd polled = {.fd = fd, .events = events};
	if (poll(&polled, 1, milliseconds) == 0) fail(what, ETIMEDOUT);
	int error = 0;
	socklen_t size = sizeof error;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error) fail(what, error);
}

int main(int argc, char **argv) {
	if (argc < 6) return 2;
	int tcp = !strcmp(argv[1], "tcp"), one = 1, milliseconds = argc > 6 ? atoi(argv[6]) : 3000;
	union place client, server;
	socklen_t size = read_place(&client, argv[2], argv[3]);
	if (read_place(&server, argv[4], argv[5]) != size) fail("families", EAFNOSUPPORT);
	int v4 = client.any.sa_family == AF_INET;
	int fd = socket(client.any.sa_family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK, 0);
	if (fd < 0) fail("socket", errno);
	if (setsockopt(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TRANSPARENT : IPV6_TRANSPARENT, &one, sizeof one))
		fail("transparent", errno);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, &client.any, size)) fail("bind", errno);
	if (connect(fd, &server.any, size) && errno != EINPROGRESS) fail("connect", errno);
	await(fd, POLLOUT, milliseconds, "connect");
	const char *question = tcp ? "GET / HTTP/1.0\r\n\r\n" : "hello";
	if (send(fd, question, strlen(question), MSG_NOSIGNAL) < 0) fail("send", errno);
	char answer[4096];
	size_t length = 0;
	for (;;) {
		await(fd, POLLIN, milliseconds, "answer");
		ssize_t got = recv(fd, answer + length, sizeof answer - 1 - length, 0);
		if (got < 0) fail("answer", errno);
		length += got;
		if (got == 0 || !tcp || length == sizeof answer - 1) break;
	}
	answer[length] = 0;
	printf("%s\n", answer);
	return 0;
}
