/* What runs in a test's containers: a server that says who it is and by whom it was asked.
 *
 *   program PROTOCOL HOST PORT[-PORT] ...     any number of listeners
 *
 * HOST is 0.0.0.0, :: (IPv6 only) or an address. An answer over TCP is HTTP, so that curl and wrk understand it, with
 * one line as its body; an answer over UDP is the same line with the datagram behind it:
 *
 *   HOSTNAME was asked by ADDRESS PORT
 *
 * It takes the name "listening" when it does. It is pid 1 of its container, where SIGTERM does nothing without a handler. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SOCKETS = 4096, REQUEST = 8192 };

struct place {
  enum { TCP_LISTENER, UDP_SOCKET, CONNECTION } kind;
  int family;
  size_t length; /* of the request so far */
  char request[REQUEST];
};

static struct pollfd polled[SOCKETS];
static struct place *places[SOCKETS];
static int count;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void end(int signal) {
  (void)signal;
  _exit(0);
}

static void add(int fd, int kind, int family) {
  struct place *place = calloc(1, sizeof *place);
  if (!place || count == SOCKETS) {
    close(fd);
    free(place);
    return;
  }
  place->kind = kind;
  place->family = family;
  polled[count] = (struct pollfd){.fd = fd, .events = POLLIN};
  places[count++] = place;
}

static void drop(int index) {
  close(polled[index].fd);
  free(places[index]);
  polled[index] = polled[--count];
  places[index] = places[count];
}

static void listen_on(const char *protocol, const char *host, int port) {
  int tcp = !strcmp(protocol, "tcp"), one = 1;
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  int family = inet_pton(AF_INET, host, &v4.sin_addr) == 1 ? AF_INET : AF_INET6;
  if (family == AF_INET6 && inet_pton(AF_INET6, host, &v6.sin6_addr) != 1) fail(host);
  int fd = socket(family, tcp ? SOCK_STREAM : SOCK_DGRAM, 0);
  if (fd < 0) fail("socket");
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  struct sockaddr *address = family == AF_INET ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
  if (bind(fd, address, family == AF_INET ? sizeof v4 : sizeof v6)) fail("bind");
  if (tcp && listen(fd, SOMAXCONN)) fail("listen");
  add(fd, tcp ? TCP_LISTENER : UDP_SOCKET, family);
}

static int describe(const struct sockaddr_storage *peer, char *line, size_t room) {
  char name[256], address[INET6_ADDRSTRLEN];
  int v4 = peer->ss_family == AF_INET;
  const void *bytes = v4 ? (const void *)&((const struct sockaddr_in *)peer)->sin_addr
                         : (const void *)&((const struct sockaddr_in6 *)peer)->sin6_addr;
  gethostname(name, sizeof name);
  inet_ntop(peer->ss_family, bytes, address, sizeof address);
  return snprintf(line, room, "%s was asked by %s %d\n", name, address,
                  ntohs(((const struct sockaddr_in *)peer)->sin_port));
}

static void echo(int fd) {
  static char said[65536], answer[65536 + 512];
  struct sockaddr_storage peer;
  socklen_t size = sizeof peer;
  ssize_t length = recvfrom(fd, said, sizeof said, 0, (struct sockaddr *)&peer, &size);
  if (length < 0) return;
  int head = describe(&peer, answer, 512);
  memcpy(answer + head, said, length);
  sendto(fd, answer, head + length, 0, (struct sockaddr *)&peer, size);
}

static void answer(int fd) {
  struct sockaddr_storage peer;
  socklen_t size = sizeof peer;
  char line[512], whole[1024];
  if (getpeername(fd, (struct sockaddr *)&peer, &size)) return;
  int length = describe(&peer, line, sizeof line);
  length = snprintf(whole, sizeof whole, "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s", length, line);
  if (write(fd, whole, length) < 0) return;
  shutdown(fd, SHUT_WR);
}

/* Answers at the end of the request's head, and closes after the client did: what is unread would become a reset. */
static int hear(int index) {
  struct place *place = places[index];
  int answered = strstr(place->request, "\r\n\r\n") != NULL;
  ssize_t got = read(polled[index].fd, place->request + place->length, REQUEST - 1 - place->length);
  if (got <= 0) return 0;
  place->length += got;
  if (!answered && strstr(place->request, "\r\n\r\n")) answer(polled[index].fd);
  return place->length < REQUEST - 1;
}

static void step(int index) {
  int fd = polled[index].fd;
  if (places[index]->kind == TCP_LISTENER) {
    int accepted = accept(fd, NULL, NULL);
    if (accepted >= 0) add(accepted, CONNECTION, places[index]->family);
  } else if (places[index]->kind == UDP_SOCKET) {
    echo(fd);
  } else if (!hear(index)) {
    drop(index);
  }
}

int main(int argc, char **argv) {
  signal(SIGTERM, end);
  signal(SIGINT, end);
  signal(SIGPIPE, SIG_IGN);
  for (int i = 1; i + 2 < argc; i += 3) {
    int first, last;
    int found = sscanf(argv[i + 2], "%d-%d", &first, &last);
    if (found < 1) fail(argv[i + 2]);
    for (int port = first; port <= (found == 2 ? last : first); port++) listen_on(argv[i], argv[i + 1], port);
  }
  prctl(PR_SET_NAME, "listening");
  for (;;) {
    if (poll(polled, count, -1) < 0) continue;
    for (int i = count - 1; i >= 0; i--)
      if (polled[i].revents) step(i);
  }
}
