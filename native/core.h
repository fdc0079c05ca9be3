/*
 * The Linux core: the system calls of a relay, and the two loops that must not enter JavaScript (bytes of
 * established TCP flows, datagrams of known UDP flows). Policy is not here: whoever is accepted, who connects
 * where, with which header, for how long, and what is logged is decided by the caller, which is told of
 * everything new or final by events.
 *
 *   core_poll ─► [ACCEPTED] caller: core_connect ─► [CONNECTED] caller: core_relay ─► … ─► [ENDED]
 *            ├─► [DATAGRAM] caller: core_udp_flow … core_udp_send ─► … ─► [ANSWERED] [REFUSED]
 *            └─► [HANDED] caller: core_handover_take, core_handover_answer ─► … ─► [HANDED_BACK]
 *
 * A slot is a small number for an open socket. Its memory is a table made once; a slot that was given up is
 * used again only from the next core_poll on, so an event always means the socket that the caller knows. The
 * kernel is given slot and generation with every descriptor, so a descriptor that was closed and used again
 * within one batch of epoll cannot reach another flow.
 *
 * One thread. Every function returns a number >= 0, or -errno. Nothing is allocated per byte or datagram.
 */
#ifndef DUALPORT_CORE_H
#define DUALPORT_CORE_H

#include <stddef.h>
#include <stdint.h>

struct core;

/* An address as the rest of dualport has it: 16 bytes, IPv4 as ::ffff:a.b.c.d. Also seen by JavaScript. */
struct endpoint {
  uint8_t address[16];
  uint32_t zone; /* interface index of a link-local address, else 0 */
  uint16_t port; /* host byte order */
  uint16_t unused;
};

enum event_kind {
  EVENT_ACCEPTED = 1,  /* slot is a new client's socket; value is the listener; peer and local are set */
  EVENT_READABLE = 2,  /* a client that is not relayed yet has sent something, or has ended its direction */
  EVENT_GONE = 3,      /* a client that is not relayed yet is reset; value is the errno */
  EVENT_CONNECTED = 4, /* slot is an upstream socket; value is 0 or the errno of its failure */
  EVENT_ENDED = 5,     /* slot is the client's; value is an end_reason; both sockets are closed */
  EVENT_DATAGRAM = 6,  /* no flow has this sender, or its flow wants to see each: slot is the listener, value the
                          flow or -1, peer and local are set, data is the payload */
  EVENT_ANSWERED = 7,  /* slot is the flow: its first datagram from the upstream since core_udp_flow or REFUSED */
  EVENT_REFUSED = 8,   /* slot is the flow: the upstream's socket reported the errno in value */
  EVENT_ACCEPT_FAILED = 9, /* slot is the listener, value the errno, or 0 where it listens no more: another process
                              that has the socket, too, has ended it; it is paused, as by core_accepting */
  EVENT_HANDED = 10,      /* slot is a process that hands a socket over, value the hand-over listener; pid is its
                             process, data what it says of the socket */
  EVENT_HANDED_BACK = 11  /* slot is such a process: it has ended, or wants the port for itself */
};

enum end_reason { END_DONE = 0, END_CLIENT_RESET = 1, END_UPSTREAM_RESET = 2 };

/* One event, 72 bytes, in memory that JavaScript reads. */
struct event {
  uint32_t kind;
  int32_t slot;
  int32_t value;
  uint32_t length; /* of data, at `offset` in the arena */
  uint32_t offset;
  uint32_t pid; /* 0 where it is not known here */
  struct endpoint peer;
  struct endpoint local;
};

enum {
  MAX_EVENTS = 1024,           /* per poll */
  ARENA_BYTES = 2 * 1024 * 1024 /* payloads of EVENT_DATAGRAM of one poll */
};

/* Memory that the caller owns and both sides see, one element a slot. */
struct shared {
  struct event *events;  /* MAX_EVENTS */
  uint8_t *arena;        /* ARENA_BYTES */
  double *bytes;         /* payload that came from this socket; of a UDP flow: from the client */
  double *answer_bytes;  /* of a UDP flow: payload that came from the upstream */
  double *active_ms;     /* CLOCK_MONOTONIC of the last byte, as of the start of its poll */
  uint8_t *ended;        /* 1 once this direction has ended */
  int32_t slots;         /* length of the four above */
};

/* Places in a rule's counter block that the core adds to, in the order of src/flow/counters.ts. */
struct counters {
  double *values;
  int bytes_from_client, bytes_from_upstream, datagrams_from_client, datagrams_from_upstream, resets;
  int dropped_source, dropped_oversize, dropped_queue, dropped_budget;
};

struct core *core_open(const struct shared *shared); /* NULL with errno */
void core_shut(struct core *);                       /* resets and closes every socket */
int core_epoll(const struct core *);                 /* readable when core_poll has something to do */
/* Waits at most timeout_ms (0: not at all, -1: for ever), relays what there is; the number of events. */
int core_poll(struct core *, int timeout_ms);
int core_was_idle(const struct core *); /* the last poll found nothing to do */
double core_now(void); /* CLOCK_MONOTONIC in ms */

/* Sockets. IPv6 listeners are V6ONLY (platform/v6only-pair.c). */
int core_tcp_listen(struct core *, const struct endpoint *at, int backlog);
int core_udp_listen(struct core *, const struct endpoint *at, struct counters *);
/* A socket of IPv4 or IPv6 that is bound or listens already; fd is the core's in any case. */
int core_adopt(struct core *, int fd, int is_udp, struct counters *);
/*
 * Sockets that other processes of this user or of root hand over through a unix socket. Each keeps its copy, and its
 * slot stands for it: to close that says that nothing of the socket is left here. `most` of them at once; the next is
 * sent away. Whatever was not taken is closed with its giver.
 */
int core_handover_listen(struct core *, const char *path, size_t length, int most);
int core_handover_take(struct core *, int giver); /* a descriptor, for a core to adopt; once */
int core_handover_answer(struct core *, int giver, const void *record, size_t length);
/*
 * An address for the cores of several threads: `count` sockets, each for one core_adopt, over which the kernel spreads
 * connections and UDP peers. To everybody else the address is in use. 0; or -errno, and nothing is open.
 */
int core_bind_group(const struct endpoint *at, int is_udp, int backlog, int *fds, int count);
int core_local(struct core *, int slot, struct endpoint *local);
int core_accepting(struct core *, int listener, int on); /* off: new connections wait in the backlog */
void core_close(struct core *, int slot, int reset);    /* reset: with RST */

/* From which address an upstream is connected; NULL in its place is the kernel's choice. */
enum source_kind {
  SOURCE_LOCAL = 1,  /* an address whose packets the kernel keeps, although no interface need have it */
  SOURCE_FOREIGN = 2 /* any: takes CAP_NET_ADMIN or CAP_NET_RAW, and rules that bring the answers here */
};
struct source {
  struct endpoint at; /* of the upstream's family; port 0 is the kernel's choice */
  int kind;
};
int core_allows_foreign(void); /* 0, or why SOURCE_FOREIGN is not for this process: -EPERM */

/* A descriptor for the caller, bound and not connected; no slot is taken. */
int core_socket_from(const struct source *, int is_tcp);

/* TCP, before the relay. A client's socket is watched from accept on. */
/* -ECONNREFUSED when it has met itself. */
int core_connect(struct core *, const struct endpoint *to, const struct source *from);
int core_read(struct core *, int slot, void *to, size_t length); /* 0 is the end, -EAGAIN nothing yet */
int core_write(struct core *, int slot, const void *from, size_t length);
/*
 * From here on bytes are the core's business until ENDED. `early` goes to the upstream first (a PROXY header and
 * what the client has sent so far); `payload` of it, its last bytes, count as the client's.
 */
int core_relay(struct core *, int client, int upstream, const void *early, size_t length, size_t payload,
               int client_ended, struct counters *);
int core_relay_abort(struct core *, int client); /* resets both; no event */
/* From now on a dead upstream is found out. Clients have it from their listener; most flows end before they need it. */
int core_keep_alive(struct core *, int upstream);

/*
 * UDP. A flow is known by listener, peer and local address; its answers leave from that local address. `inspect`
 * on a flow: the caller is shown each datagram of the client (EVENT_DATAGRAM) and sends it by itself with
 * core_udp_send, which counts nothing; off, datagrams pass in the core. `inspect` on a listener: all its datagrams are
 * shown with value -1, and which flow they belong to is the caller's business (several flows may then have one peer).
 * Source port 0, and those of services that answer anything, are dropped and counted before anything else.
 */
int core_udp_flow(struct core *, int listener, const struct endpoint *peer, const struct endpoint *local,
                  const struct endpoint *upstream, const struct source *from, struct counters *);
/*
 * What clients of this listener get before they have shown that they hear, see udp-budget.c; of its flows from now on.
 * For each of their datagrams so many back, and so many bytes or, where there is a factor, that many times their own;
 * and so many bytes a second for a network. 0 datagrams: there is no limit.
 */
struct reply_budget {
  uint32_t datagrams, bytes, factor;
  double bytes_per_ms;
};
int core_udp_budget(struct core *, int listener, const struct reply_budget *);
/* Another upstream. */
int core_udp_connect(struct core *, int flow, const struct endpoint *upstream, const struct source *from);
int core_udp_inspect(struct core *, int flow, int on);
/* Put in front of every datagram to the upstream; length 0 for nothing. Kept as a copy. */
int core_udp_prefix(struct core *, int flow, const void *header, size_t length);
int core_udp_send(struct core *, int flow, const void *header, size_t header_length, const void *payload,
                  size_t length);

/* What cannot be done here is remembered and reported once: which fallbacks are in force. */
enum fallback { FALLBACK_SPLICE = 1, FALLBACK_PIPES = 2, FALLBACK_GSO = 4, FALLBACK_GRO = 8 };
int core_fallbacks(const struct core *);

#endif
