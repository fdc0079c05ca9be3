/*
 * EAGAIN of splice() from a socket means that the socket is empty or that the pipe is full; nothing in the result
 * tells which. Whoever waits for an edge must look whether its pipe still holds something. And a pipe is full by
 * pages, not by bytes: large pages of a socket make it hold more than F_GETPIPE_SZ.
 */
#include "platform.h"

static int splice_in(int socket, int pipe_end) {
  long moved = splice(socket, NULL, pipe_end, NULL, 1 << 20, SPLICE_F_NONBLOCK);
  return moved < 0 ? -errno : (int)moved;
}

int main(void) {
  static char data[1 << 20];
  int pair[2], pipe_ends[2];
  tcp_pair(pair);
  MUST(pipe(pipe_ends));
  MUST(fcntl(pair[1], F_SETFL, O_NONBLOCK));
  int result = splice_in(pair[1], pipe_ends[1]);
  ASSUME(result == -EAGAIN, "%d from an empty socket", result);

  MUST(fcntl(pair[0], F_SETFL, O_NONBLOCK));
  long held = 0;
  for (result = 0; result != -EAGAIN; held += result > 0 ? result : 0) {
    if (send(pair[0], data, sizeof data, 0) < 0) ASSUME(errno == EAGAIN, "send failed");
    ASSUME(becomes(pair[1], POLLIN, 1000), "an empty socket, and %ld bytes in the pipe", held);
    result = splice_in(pair[1], pipe_ends[1]);
    ASSUME(result > 0 || result == -EAGAIN, "%d from a full socket", result);
  }
  ASSUME(becomes(pair[1], POLLIN, 0), "an empty socket");

  struct pollfd pipe_room = {pipe_ends[1], POLLOUT, 0};
  ASSUME(poll(&pipe_room, 1, 0) == 0, "room in the pipe");
  while (held > 0) held -= MUST(read(pipe_ends[0], data, sizeof data));
  result = splice_in(pair[1], pipe_ends[1]);
  ASSUME(result > 0, "%d once the pipe is empty", result);
  puts("ok splice says EAGAIN for an empty socket and for a full pipe alike");
}
