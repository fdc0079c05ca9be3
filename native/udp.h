/*
 * What udp.c (sockets, flows, their table), udp-batch.c (receiving, and what becomes of it) and udp-send.c (trains)
 * know of each other.
 */
#ifndef DUALPORT_UDP_H
#define DUALPORT_UDP_H

#include "table.h"

#include <netinet/in.h>

enum {
  BATCH = 64, /* messages a call */
  /* The longest train that every kernel with UDP_SEGMENT takes, in datagrams and bytes. */
  TRAIN_DATAGRAMS = 64,
  TRAIN_BYTES = 65507,
  PIECES = 1024,
  NETWORKS = 65536,
};

enum direction { TO_UPSTREAM, TO_CLIENT };

/* What tells flows apart. No padding, for it is compared and hashed as memory. */
struct key {
  struct endpoint peer;
  struct endpoint local; /* what the client dialled; unspecified where nothing can be sent from there */
  int32_t listener;
  uint32_t unused;
};
_Static_assert(sizeof(struct key) == 56, "padding would be compared");

struct listener {
  int slot;
  bool is_ipv6; /* the socket, which decides the form of PKTINFO */
  bool is_wildcard;
  bool inspect;
  int flows;
  struct endpoint local;
  struct counters *counters;
  struct reply_budget budget;
};

struct flow {
  struct key key;
  struct flow *next;         /* in its bucket */
  struct listener *listener; /* NULL once that is closed */
  struct counters *counters;
  int slot;
  bool inspect;
  bool answered;
  bool hears; /* the client, as far as that can be known; what is said of a budget matters only until then */
  bool is_replied;
  uint16_t prefix_length;
  uint8_t *prefix;
  uint16_t largest_in_train[2]; /* by direction: longer datagrams make no train; 0 where trains are refused */
  int16_t first, last;          /* of its arrivals in the batch at hand; first is -1 for none */
  socklen_t peer_name_length;
  struct sockaddr_in6 peer_name; /* or sockaddr_in */
  struct reply_budget budget;
  uint32_t behind_reply, datagrams_allowed, bytes_allowed;
};

/* A datagram or a train, as it came. */
struct arrival {
  struct key key;
  uint8_t *data;
  uint32_t length;
  uint32_t each;  /* bytes of each datagram, the last may have fewer */
  uint32_t count; /* datagrams */
  int16_t next;   /* of the same flow */
};

/* PKTINFO, and the size of a train's datagrams. */
union control {
  struct cmsghdr align;
  uint8_t bytes[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(int))];
};

/* One message to send: a datagram or a train. */
struct parcel {
  struct flow *flow;
  uint32_t each, count, bytes;
  bool open; /* each datagram so far was as long as the first */
};

/* Messages for one socket; they point to buffers of whoever put them here, until they are sent. */
struct outbox {
  enum direction direction;
  int fd;
  unsigned parcels_used, pieces_used;
  struct parcel parcels[BATCH];
  struct mmsghdr messages[BATCH];
  union control controls[BATCH];
  struct iovec pieces[PIECES];
};

struct udp {
  struct batches *batches; /* of udp-batch.c, made with the first listener */
  struct flow **buckets;
  uint32_t bucket_mask;
  uint64_t hash_seed[sizeof(struct key) / 4 + 1];
  double *networks; /* NETWORKS of them, see udp-budget.c */
  bool sends_trains;
};

static inline void count(struct counters *counters, int place, double by) {
  counters->values[place] += by;
}

/* udp.c */
struct flow *flow_find(const struct udp *, const struct key *);

/* udp-batch.c */
struct batches *batches_open(void);
void batches_close(struct batches *);
void batches_from_clients(struct core *, struct listener *);
void batches_from_upstream(struct core *, struct flow *);
bool batches_have_more(const struct batches *);
void batches_finish(struct core *); /* at the end of a poll: answers go out, and what found no room is tried again */
void batches_forget(struct batches *, const struct listener *);

/* udp-budget.c; none of it is called for a flow whose client hears, but for the first */
void budget_begin(struct flow *);
void budget_restart(struct flow *); /* nothing was answered so far, and a datagram will be sent again */
void budget_request(struct flow *, uint32_t datagrams, uint32_t bytes);
void budget_spend(struct core *, struct flow *, struct arrival *); /* cuts off what may not pass, and counts it */

/* udp-send.c */
void refused(struct core *, struct flow *, int error);
void outbox_put(struct core *, struct outbox *, struct flow *, const struct arrival *);
void outbox_flush(struct core *, struct outbox *);

#endif
