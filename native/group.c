/*
 * One address for several threads: a socket for each, over which the kernel spreads clients by the hash of both ends.
 *
 *   alone: bind (TCP: and listen) ─► SO_REUSEPORT ─► the others, with SO_REUSEPORT from the start ─► all of them hear
 *
 * The first is bound without SO_REUSEPORT, so of two programs that open such groups one has EADDRINUSE, as ever. For
 * TCP the option waits for listen(): with SO_REUSEADDR, which a restart needs, two sockets may be bound as long as none of
 * them listens, and listen() would let both through if they had the option by then (platform/reuseport-group.c).
 *
 * The hash is over as many sockets as there are. A UDP peer that sends while they become more would have a flow at one
 * of them and the rest of its datagrams at another; so all are deaf until the last is there.
 */
#include "table.h"

#include <errno.h>
#include <unistd.h>

/* From here on others of this user may join; the port may have been chosen by the kernel. */
static int let_join(int fd, struct endpoint *at) {
  const int on = 1;
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0) return -errno;
  if (getsockname(fd, (struct sockaddr *)&name, &length) < 0) return -errno;
  struct endpoint bound;
  endpoint_from_sockaddr(&bound, &name);
  at->port = bound.port;
  return 0;
}

static int open_member(struct endpoint *at, int is_udp, int backlog, bool is_first) {
  int fd = is_udp ? udp_bound(at, true, !is_first) : tcp_bound(at, backlog, !is_first);
  int error = fd >= 0 && is_first ? let_join(fd, at) : 0;
  if (error == 0) return fd;
  close(fd);
  return error;
}

int core_bind_group(const struct endpoint *at, int is_udp, int backlog, int *fds, int count) {
  struct endpoint where = *at;
  int result = 0, opened = 0;
  while (opened < count && result >= 0) {
    result = open_member(&where, is_udp, backlog, opened == 0);
    if (result >= 0) fds[opened++] = result;
  }
  for (int i = 0; is_udp && result >= 0 && i < count; i++) result = udp_hear(fds[i]);
  if (result >= 0) return 0;
  while (opened > 0) close(fds[--opened]);
  return result;
}
