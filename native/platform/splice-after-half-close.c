/*
 * splice() and half-closed connections: what was sent before the end comes first, then 0 each time it is asked;
 * and the other direction goes on.
 */
#include "platform.h"

int main(void) {
  int client[2], upstream[2], pipe_ends[2];
  tcp_pair(client);
  tcp_pair(upstream);
  MUST(pipe(pipe_ends));
  MUST(send(client[0], "question", 8, 0));
  MUST(shutdown(client[0], SHUT_WR));
  ASSUME(becomes(client[1], POLLRDHUP, 1000), "no end");

  long moved = MUST(splice(client[1], NULL, pipe_ends[1], NULL, 65536, SPLICE_F_NONBLOCK));
  ASSUME(moved == 8, "%ld bytes before the end", moved);
  for (int i = 0; i < 2; i++) {
    moved = MUST(splice(client[1], NULL, pipe_ends[1], NULL, 65536, SPLICE_F_NONBLOCK));
    ASSUME(moved == 0, "%ld at the end", moved);
  }
  moved = MUST(splice(pipe_ends[0], NULL, upstream[1], NULL, 8, SPLICE_F_NONBLOCK));
  ASSUME(moved == 8, "%ld to the upstream", moved);
  MUST(shutdown(upstream[1], SHUT_WR));
  char got[16];
  long length = MUST(recv(upstream[0], got, sizeof got, MSG_WAITALL));
  ASSUME(length == 8 && memcmp(got, "question", 8) == 0, "%ld bytes at the upstream", length);

  MUST(send(upstream[0], "answer", 6, 0));
  ASSUME(becomes(upstream[1], POLLIN, 1000), "no answer");
  moved = MUST(splice(upstream[1], NULL, pipe_ends[1], NULL, 65536, SPLICE_F_NONBLOCK));
  ASSUME(moved == 6, "%ld from the upstream, whose input is ended", moved);
  moved = MUST(splice(pipe_ends[0], NULL, client[1], NULL, 6, SPLICE_F_NONBLOCK));
  ASSUME(moved == 6, "%ld to the client, who has ended", moved);
  length = MUST(recv(client[0], got, sizeof got, 0));
  ASSUME(length == 6, "%ld bytes of the answer", length);
  puts("ok splice gives what was sent before a half-close, then 0, and the other direction goes on");
}
