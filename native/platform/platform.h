/*
 * Each program here asks the kernel one thing that the core relies on, without the core. It prints what was
 * confirmed, or what it saw instead and ends with 1.
 */
#ifndef PLATFORM_H
#define PLATFORM_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ASSUME(condition, ...)                                             \
  do {                                                                     \
    if (!(condition)) {                                                    \
      int seen_errno = errno;                                              \
      printf("not ok %s:%d: %s; saw ", __FILE__, __LINE__, #condition);    \
      printf(__VA_ARGS__);                                                 \
      printf(" (errno %d, %s)\n", seen_errno, strerror(seen_errno));       \
      exit(1);                                                             \
    }                                                                      \
  } while (0)

#define MUST(call)                                    \
  ({                                                  \
    long result_ = (long)(call);                      \
    ASSUME(result_ >= 0, "%s = %ld", #call, result_); \
    result_;                                          \
  })

#define UNUSED __attribute__((unused))

struct address {
  struct sockaddr_storage storage;
  socklen_t length;
};

UNUSED static struct address address(const char *host, int port) {
  struct address to = {.length = sizeof(struct sockaddr_in)};
  struct sockaddr_in *in = (struct sockaddr_in *)&to.storage;
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&to.storage;
  in->sin_family = AF_INET;
  in->sin_port = htons((uint16_t)port);
  if (inet_pton(AF_INET, host, &in->sin_addr) == 1) return to;
  *in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  ASSUME(inet_pton(AF_INET6, host, &in6->sin6_addr) == 1, "%s", host);
  to.length = sizeof *in6;
  return to;
}

UNUSED static struct address local_of(int fd) {
  struct address local = {.length = sizeof local.storage};
  MUST(getsockname(fd, (struct sockaddr *)&local.storage, &local.length));
  return local;
}

UNUSED static int port_of(int fd) {
  struct address local = local_of(fd);
  return ntohs(((struct sockaddr_in *)&local.storage)->sin_port); /* at the same place in sockaddr_in6 */
}

UNUSED static void set(int fd, int level, int option, int value) {
  MUST(setsockopt(fd, level, option, &value, sizeof value));
}

UNUSED static int try_bind(int fd, struct address to) {
  return bind(fd, (struct sockaddr *)&to.storage, to.length);
}

UNUSED static int try_connect(int fd, struct address to) {
  return connect(fd, (struct sockaddr *)&to.storage, to.length);
}

UNUSED static int bound(int type, const char *host, int port) {
  struct address to = address(host, port);
  int fd = (int)MUST(socket(to.storage.ss_family, type, 0));
  MUST(try_bind(fd, to));
  return fd;
}

UNUSED static int listening(const char *host) {
  int fd = bound(SOCK_STREAM, host, 0);
  MUST(listen(fd, 8));
  return fd;
}

/* Two connected TCP sockets. */
UNUSED static void tcp_pair(int pair[2]) {
  int listener = listening("127.0.0.1");
  pair[0] = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
  MUST(try_connect(pair[0], local_of(listener)));
  pair[1] = (int)MUST(accept(listener, NULL, NULL));
  close(listener);
}

UNUSED static void run(const char *command) {
  int status = system(command);
  ASSUME(status == 0, "status %d of %s", status, command);
}

UNUSED static bool becomes(int fd, short events, int timeout_ms) {
  struct pollfd ready = {fd, events, 0};
  return MUST(poll(&ready, 1, timeout_ms)) > 0;
}

#endif
