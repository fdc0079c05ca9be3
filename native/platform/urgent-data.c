/*
 * Urgent data of TCP: recv() stops in front of it, with more behind it, and leaves it out the next time; splice() gives
 * nothing as long as it is next, which is 0 once the end has come, with bytes still to be read. epoll tells of it
 * (EPOLLPRI) until it is passed.
 */
#include "platform.h"

#include <sys/epoll.h>

static void send_around_urgent(int fd) {
  MUST(send(fd, "before", 6, 0));
  MUST(send(fd, "!", 1, MSG_OOB));
  MUST(send(fd, "behind", 6, 0));
}

int main(void) {
  int pair[2], pipe_ends[2];
  char got[16];
  tcp_pair(pair);
  MUST(pipe(pipe_ends));
  MUST(fcntl(pair[1], F_SETFL, O_NONBLOCK));
  int epoll = (int)MUST(epoll_create1(0));
  struct epoll_event event = {.events = EPOLLIN | EPOLLPRI | EPOLLET};
  MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, pair[1], &event));

  send_around_urgent(pair[0]);
  usleep(20 * 1000);
  MUST(epoll_wait(epoll, &event, 1, 1000));
  ASSUME(event.events == (EPOLLIN | EPOLLPRI), "events %x", event.events);
  long length = MUST(recv(pair[1], got, sizeof got, 0));
  ASSUME(length == 6 && memcmp(got, "before", 6) == 0, "%ld bytes in front of it", length);
  ASSUME(epoll_wait(epoll, &event, 1, 20) == 0, "an edge for what is behind it");
  length = MUST(recv(pair[1], got, sizeof got, 0));
  ASSUME(length == 6 && memcmp(got, "behind", 6) == 0, "%ld bytes behind it", length);
  ASSUME(!becomes(pair[1], POLLPRI, 0), "urgent data that is passed");

  send_around_urgent(pair[0]);
  usleep(20 * 1000);
  length = MUST(splice(pair[1], NULL, pipe_ends[1], NULL, 65536, SPLICE_F_NONBLOCK));
  ASSUME(length == 6, "%ld bytes spliced in front of it", length);
  length = splice(pair[1], NULL, pipe_ends[1], NULL, 65536, SPLICE_F_NONBLOCK);
  ASSUME(length == -1 && errno == EAGAIN, "%ld when it is next", length);
  MUST(shutdown(pair[0], SHUT_WR));
  ASSUME(becomes(pair[1], POLLRDHUP, 1000), "no end");
  length = splice(pair[1], NULL, pipe_ends[1], NULL, 65536, SPLICE_F_NONBLOCK);
  ASSUME(length == 0, "%ld when it is next, and the end has come", length);
  length = MUST(recv(pair[1], got, sizeof got, 0));
  ASSUME(length == 6 && memcmp(got, "behind", 6) == 0, "%ld bytes behind it", length);
  puts("ok recv stops in front of urgent data and then leaves it out; splice never passes it, and says 0 before the end");
}
