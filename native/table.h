/*
 * Slots, events and the clock: what tcp.c and udp.c have in common. Only files of the core include this.
 */
#ifndef DUALPORT_TABLE_H
#define DUALPORT_TABLE_H

#include "core.h"

#include <stdbool.h>
#include <sys/epoll.h>

enum slot_kind {
  SLOT_FREE,
  SLOT_TCP_LISTENER,
  SLOT_TCP_CLIENT,   /* accepted, not relayed yet */
  SLOT_TCP_UPSTREAM, /* connecting, or connected and not relayed yet */
  SLOT_TCP_RELAY,    /* one side of an established flow */
  SLOT_UDP_LISTENER,
  SLOT_UDP_FLOW,     /* its connected upstream socket */
  SLOT_HANDOVER,     /* where other processes hand sockets over */
  SLOT_GIVER,        /* the connection of one that does */
};

struct slot {
  int fd;
  uint32_t generation;
  uint8_t kind;
  bool is_ipv4;
  void *state;               /* what tcp.c, udp.c or handover.c keeps for it; freed by them */
  struct counters *counters; /* of its rule; NULL where nothing is counted */
};

struct core {
  struct shared shared;
  struct slot *slots; /* shared.slots of them */
  int32_t *free_now;  /* stack of free slots */
  int32_t free_count;
  int32_t *free_later; /* given up since the last poll began */
  int32_t free_later_count;
  int epoll;
  double now_ms;
  int event_count;
  uint32_t arena_used;
  int fallbacks;
  int wake; /* an eventfd in the epoll, see core_wake */
  bool woken;
  bool was_idle;
  struct tcp *tcp; /* tcp.c's own */
  struct udp *udp; /* udp.c's own */
  int givers;      /* slots of that kind */
};

void socket_reset(int fd); /* has close() send RST (platform/reset-relay.c) */
void close_with_reset(int fd);
/* Takes a slot for fd and has epoll watch it; -ENFILE when the table is full. fd is closed with a reset on failure. */
int slot_open(struct core *, int fd, enum slot_kind, uint32_t epoll_events);
/* Closes fd and gives the slot up. */
void slot_close(struct core *, int slot);
/*
 * Closes the slot's descriptor and has epoll watch fd in its place: same slot and state, next generation. On
 * failure (-errno) fd is closed and the slot is as it was.
 */
int slot_replace(struct core *, int slot, int fd, uint32_t epoll_events);
struct slot *slot_at(struct core *, int slot); /* NULL for a number that is no open slot */

/* NULL when there is no room left in this poll: the caller stops and goes on in the next. */
struct event *event_push(struct core *, enum event_kind, int slot, int value);
bool event_room(const struct core *);

/* Has core_epoll look readable until the next poll: for work that no socket will announce again. */
void core_wake(struct core *);

/* struct sockaddr_in or _in6 and back. */
#include <sys/socket.h>
socklen_t endpoint_to_sockaddr(const struct endpoint *, struct sockaddr_storage *);
void endpoint_from_sockaddr(struct endpoint *, const struct sockaddr_storage *);
bool endpoint_is_ipv4(const struct endpoint *);
/*
 * Connected from this very address and port: to a port that nobody has, of those the kernel gives to clients, it may
 * give just that one. Over TCP both ends are one socket then, over UDP it hears itself.
 */
bool socket_met_itself(int fd, const struct endpoint *to);

/* source.c: binds to `from`, if there is one; 0 or -errno. */
int source_bind(int fd, const struct source *from, const struct endpoint *to, bool is_tcp);

/* tcp.c, udp.c and handover.c, as core.c and group.c call them. */
struct tcp *tcp_open(struct core *);
void tcp_shut(struct core *);
void tcp_event(struct core *, int slot, uint32_t epoll_events);
bool tcp_has_more(const struct core *); /* flows that used up their turn and would go on at once */
void tcp_more(struct core *);
void tcp_close_slot(struct core *, int slot, bool reset); /* of any TCP kind; frees state, closes */
int tcp_bound(const struct endpoint *at, int backlog, bool shared); /* a listening socket; shared: with SO_REUSEPORT */
struct udp *udp_open(struct core *);
void udp_shut(struct core *);
void udp_event(struct core *, int slot, uint32_t epoll_events);
bool udp_has_more(const struct core *);
void udp_more(struct core *); /* at the end of every poll: what it has received for clients goes out */
int udp_adopt(struct core *, int fd, struct counters *); /* core_adopt of a bound UDP socket; fd is closed on failure */
void udp_close_slot(struct core *, int slot);
int udp_bound(const struct endpoint *at, bool deaf, bool shared); /* deaf: datagrams are dropped until udp_hear */
int udp_hear(int fd);
void handover_shut(struct core *);
void handover_event(struct core *, int slot);
void handover_close_slot(struct core *, int slot);

#endif
