/*
 * Closing with SO_LINGER 0 resets: the peer reads what had arrived before, then ECONNRESET, and never a clean end.
 * The same goes for a socket that is closed with something unread, and for readers with splice().
 */
#include "platform.h"

#include <sys/epoll.h>

static void reset(int fd) {
  struct linger now = {1, 0};
  MUST(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now));
  close(fd);
}

static long receive(int fd, int pipe_end) {
  char got[64];
  long length = pipe_end < 0 ? recv(fd, got, sizeof got, 0) : splice(fd, NULL, pipe_end, NULL, 64, SPLICE_F_NONBLOCK);
  return length < 0 ? -errno : length;
}

static void expect_reset(int fd, int pipe_end, long before) {
  struct pollfd ready = {fd, POLLIN | POLLRDHUP, 0};
  ASSUME(becomes(fd, POLLHUP, 1000), "no end");
  MUST(poll(&ready, 1, 0));
  ASSUME(ready.revents & POLLERR && ready.revents & POLLHUP, "events %x", ready.revents);
  long length;
  if (before > 0) {
    length = receive(fd, pipe_end);
    ASSUME(length == before, "%ld of %ld bytes that came before the reset", length, before);
  }
  length = receive(fd, pipe_end);
  ASSUME(length == -ECONNRESET, "%ld instead of a reset", length);
}

int main(void) {
  int pair[2], pipe_ends[2];
  MUST(pipe(pipe_ends));
  for (int with_splice = 0; with_splice < 2; with_splice++) {
    for (int before = 0; before < 2; before++) {
      tcp_pair(pair);
      if (before) MUST(send(pair[0], "half an answer", 14, 0));
      reset(pair[0]);
      expect_reset(pair[1], with_splice ? pipe_ends[1] : -1, before ? 14 : 0);
      close(pair[1]);
    }
  }
  tcp_pair(pair);
  MUST(send(pair[1], "never read", 10, 0));
  MUST(send(pair[0], "half an answer", 14, 0));
  ASSUME(becomes(pair[0], POLLIN, 1000), "nothing to leave unread");
  close(pair[0]);
  expect_reset(pair[1], -1, 14);
  puts("ok a reset is read as ECONNRESET behind what came before it, by recv and splice");
}
