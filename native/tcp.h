/*
 * What tcp.c, relay.c and pipes.c know of each other.
 */
#ifndef DUALPORT_TCP_H
#define DUALPORT_TCP_H

#include "table.h"

enum {
  COPY_BYTES = 64 * 1024,
  MAX_PIPES = 64,      /* of 1 MiB: what pipe-user-pages-soft (64 MiB by default) leaves to a user who is not root */
  MAX_IDLE_PIPES = 16,
};

enum { SOCKET_EVENTS = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET };

/*
 * What epoll has said of a socket. Edge-triggered, so it is kept until a call has shown that it is over: a bit of
 * `ready` is cleared by the read that found nothing more or the write that found no room.
 */
struct side {
  uint32_t ready;
  uint32_t fresh;  /* of it, what nobody has looked at yet */
  uint8_t error;   /* errno that the socket no longer tells: of a connect() that failed at once, of a reset */
  bool connected;  /* EVENT_CONNECTED has been reported */
  bool queued;
};

struct pipe {
  int read, write;
  size_t size; /* 0: no pipe */
};

struct tcp {
  struct side *sides; /* one a slot */
  int32_t *queue;     /* ring of slots that have work nobody will announce */
  int32_t queue_from, queue_length;
  struct pipe idle[MAX_IDLE_PIPES];
  int idle_pipes, pipes;
  uint8_t copy[COPY_BYTES];
};

/* tcp.c */
int tcp_adopt(struct core *, int fd);
void tcp_queue(struct core *, int slot); /* its turn comes in this poll or the next */
int socket_error(int fd);                /* takes SO_ERROR */

/* relay.c */
struct relay;
void relay_turn(struct core *, struct relay *); /* moves what can be moved; there must be room for an event */
void relay_close(struct core *, struct relay *, bool reset);
int32_t relay_client(const struct relay *);

/* pipes.c */
bool pipe_take(struct core *, struct pipe *); /* an empty one */
void pipe_give(struct tcp *, struct pipe *, bool empty);
void pipes_close(struct tcp *);

#endif
