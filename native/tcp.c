/*
 * TCP up to the relay: listeners, waiting clients, connecting upstreams; and whose turn it is.
 *
 * Sockets are registered with epoll once and edge-triggered; what an edge said is kept in the socket's side until it
 * is used up. Work that no edge will announce again waits in a ring of slots, which tcp_more empties once per poll: a flow
 * that used up its turn, an edge that came when there was no room for its event, a connect() that failed at once. An entry
 * means "look at this slot": when the slot has been closed meanwhile, or is another's by then, looking does no harm.
 *
 * A client's or upstream's socket stays open, also after GONE or a failed CONNECTED, until its owner closes it.
 */
#include "tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ACCEPTS = 16 };

struct listener {
  struct endpoint local;
  bool is_wildcard;
  bool is_watched;
  int accepts; /* per wake, see accept_batch */
};

struct tcp *tcp_open(struct core *core) {
  struct tcp *tcp = calloc(1, sizeof *tcp);
  if (tcp == NULL) return NULL;
  tcp->sides = calloc((size_t)core->shared.slots, sizeof *tcp->sides);
  tcp->queue = calloc((size_t)core->shared.slots, sizeof *tcp->queue);
  if (tcp->sides != NULL && tcp->queue != NULL) return tcp;
  free(tcp->sides);
  free(tcp->queue);
  free(tcp);
  return NULL;
}

void tcp_shut(struct core *core) {
  for (int slot = 0; slot < core->shared.slots; slot++) {
    uint8_t kind = core->slots[slot].kind;
    if (kind != SLOT_FREE && kind < SLOT_UDP_LISTENER) tcp_close_slot(core, slot, true);
  }
  pipes_close(core->tcp);
  free(core->tcp->sides);
  free(core->tcp->queue);
  free(core->tcp);
}

void tcp_queue(struct core *core, int slot) {
  struct tcp *tcp = core->tcp;
  if (tcp->sides[slot].queued) return;
  tcp->sides[slot].queued = true;
  tcp->queue[(tcp->queue_from + tcp->queue_length++) % core->shared.slots] = slot;
  core_wake(core);
}

int socket_error(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

static int set(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof value) == 0 ? 0 : -errno;
}

/* A dead peer is found after 15 s and 10 probes a second apart, as Node's keepalive does. */
static void keep_alive(int fd) {
  set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 15);
  set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set(fd, IPPROTO_TCP, TCP_KEEPCNT, 10);
}

/*
 * Accepted sockets inherit both (platform/accept-inherits.c). No Nagle delay: whoever wrote has decided already
 * what belongs together.
 */
static void set_listener_options(int fd) {
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  keep_alive(fd);
}

static int open_socket(const struct sockaddr_storage *address) {
  int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  return fd < 0 ? -errno : fd;
}

static int open_side(struct core *core, int fd, enum slot_kind kind) {
  int slot = slot_open(core, fd, kind, SOCKET_EVENTS);
  if (slot < 0) return slot;
  struct side *side = &core->tcp->sides[slot];
  /* `queued` stays: it speaks of the ring. */
  *side = (struct side){.ready = EPOLLOUT, .queued = side->queued};
  return slot;
}

/* Listeners */

static bool is_wildcard(const struct endpoint *at) {
  static const uint8_t zero[16];
  return memcmp(at->address, zero, 16) == 0 || (endpoint_is_ipv4(at) && memcmp(at->address + 12, zero, 4) == 0);
}

static bool is_listening(int fd) {
  int listens = 0;
  socklen_t length = sizeof listens;
  return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens;
}

/* Who made it is not known: accept4 on anything else than a listener would fail for ever, on a blocking one wait. */
static int prepare_adopted(int fd, struct sockaddr_storage *address) {
  socklen_t length = sizeof *address;
  if (!is_listening(fd)) return -EINVAL;
  if (getsockname(fd, (struct sockaddr *)address, &length) != 0) return -errno;
  return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0 ? 0 : -errno;
}

int tcp_adopt(struct core *core, int fd) {
  struct sockaddr_storage address;
  struct listener *listener = calloc(1, sizeof *listener);
  int slot = listener == NULL ? -ENOMEM : prepare_adopted(fd, &address);
  if (slot < 0) close(fd);
  else {
    set_listener_options(fd); /* whoever made it */
    slot = slot_open(core, fd, SLOT_TCP_LISTENER, EPOLLIN);
  }
  if (slot < 0) {
    free(listener);
    return slot;
  }
  endpoint_from_sockaddr(&listener->local, &address);
  listener->is_wildcard = is_wildcard(&listener->local);
  listener->is_watched = true;
  listener->accepts = 1;
  core->slots[slot].is_ipv4 = address.ss_family == AF_INET;
  core->slots[slot].state = listener;
  return slot;
}

static int bind_listener(int fd, const struct sockaddr_storage *address, socklen_t length, int backlog, bool shared) {
  int error = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (error == 0 && shared) error = set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (error == 0 && address->ss_family == AF_INET6) error = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (error != 0) return error;
  set_listener_options(fd);
  if (bind(fd, (const struct sockaddr *)address, length) != 0 || listen(fd, backlog) != 0) return -errno;
  return 0;
}

int tcp_bound(const struct endpoint *at, int backlog, bool shared) {
  struct sockaddr_storage address;
  socklen_t length = endpoint_to_sockaddr(at, &address);
  int fd = open_socket(&address);
  if (fd < 0) return fd;
  int error = bind_listener(fd, &address, length, backlog, shared);
  if (error == 0) return fd;
  close(fd);
  return error;
}

int core_tcp_listen(struct core *core, const struct endpoint *at, int backlog) {
  int fd = tcp_bound(at, backlog, false);
  return fd < 0 ? fd : tcp_adopt(core, fd);
}

int core_accepting(struct core *core, int number, int on) {
  struct slot *slot = slot_at(core, number);
  if (slot == NULL || slot->kind != SLOT_TCP_LISTENER) return -EBADF;
  struct listener *listener = slot->state;
  if (listener->is_watched == !!on) return 0;
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint32_t)number | (uint64_t)slot->generation << 32};
  if (epoll_ctl(core->epoll, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, slot->fd, &event) != 0) return -errno;
  listener->is_watched = on;
  return 0;
}

/* accept(2): errors of the one connection or of the network, which are passed over. */
static bool is_passing(int error) {
  switch (error) {
    case EINTR: case ECONNABORTED: case EPERM: case EPROTO: case ENOPROTOOPT: case EOPNOTSUPP: case ETIMEDOUT:
    case ENETDOWN: case ENETUNREACH: case EHOSTDOWN: case EHOSTUNREACH: case ENONET: return true;
    default: return false;
  }
}

static int accept_one(struct core *core, int number) {
  const struct slot *slot = &core->slots[number];
  const struct listener *listener = slot->state;
  struct sockaddr_storage peer, local;
  socklen_t length = sizeof peer;
  if (core->free_count == 0) return -ENFILE;
  int fd = accept4(slot->fd, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return is_passing(errno) ? 0 : -errno;
  length = sizeof local;
  if (listener->is_wildcard && getsockname(fd, (struct sockaddr *)&local, &length) != 0) {
    close_with_reset(fd);
    return 0;
  }
  int client = open_side(core, fd, SLOT_TCP_CLIENT);
  if (client < 0) return client;
  struct event *event = event_push(core, EVENT_ACCEPTED, client, number);
  endpoint_from_sockaddr(&event->peer, &peer);
  if (listener->is_wildcard) endpoint_from_sockaddr(&event->local, &local);
  else event->local = listener->local;
  return 0;
}

/*
 * Level-triggered: what is left comes again. An accept4 that finds nobody has already made a socket and a file, so the
 * batch is about as large as the last ones were instead of ending with one of those each time.
 */
static void accept_batch(struct core *core, int number) {
  struct listener *listener = core->slots[number].state;
  if (!listener->is_watched) return;
  for (int i = 0; i < listener->accepts; i++) {
    if (!event_room(core)) return;
    int error = accept_one(core, number);
    if (error == 0) continue;
    listener->accepts = i > 0 ? i : 1;
    if (error == -EAGAIN) return;
    /* It would be ready again at once, for nothing. */
    core_accepting(core, number, false);
    event_push(core, EVENT_ACCEPT_FAILED, number, is_listening(core->slots[number].fd) ? -error : 0);
    return;
  }
  if (listener->accepts < MAX_ACCEPTS) listener->accepts *= 2;
}

/* Connecting, and clients that wait for it */

int core_connect(struct core *core, const struct endpoint *to, const struct source *from) {
  struct sockaddr_storage address;
  socklen_t length = endpoint_to_sockaddr(to, &address);
  int fd = open_socket(&address);
  if (fd < 0) return fd;
  int error = source_bind(fd, from, to, true);
  if (error != 0) {
    close(fd);
    return error;
  }
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  /* A refusal is told once: here, or by the socket (platform/connect-immediate-send.c). */
  error = connect(fd, (const struct sockaddr *)&address, length) == 0 || errno == EINPROGRESS ? 0 : errno;
  if (error == 0 && socket_met_itself(fd, to)) {
    /* Its TIME_WAIT would keep the program that is to listen there from its port. */
    socket_reset(fd);
    close(fd);
    return -ECONNREFUSED;
  }
  int slot = open_side(core, fd, SLOT_TCP_UPSTREAM);
  if (slot < 0) return slot;
  core->tcp->sides[slot].ready = 0;
  core->tcp->sides[slot].error = (uint8_t)error;
  if (error != 0) tcp_queue(core, slot);
  return slot;
}

int core_keep_alive(struct core *core, int number) {
  const struct slot *slot = slot_at(core, number);
  if (slot == NULL || (slot->kind != SLOT_TCP_UPSTREAM && slot->kind != SLOT_TCP_RELAY)) return -EBADF;
  keep_alive(slot->fd);
  return 0;
}

static void upstream_turn(struct core *core, int number) {
  struct side *side = &core->tcp->sides[number];
  if (side->connected) return;
  if (side->error == 0 && side->ready & (EPOLLERR | EPOLLHUP)) {
    side->error = (uint8_t)socket_error(core->slots[number].fd);
  }
  if (side->error == 0 && !(side->ready & EPOLLOUT)) return;
  side->connected = true;
  event_push(core, EVENT_CONNECTED, number, side->error);
}

static void client_turn(struct core *core, int number) {
  struct side *side = &core->tcp->sides[number];
  uint32_t fresh = side->fresh;
  side->fresh = 0;
  int error = fresh & EPOLLERR ? socket_error(core->slots[number].fd) : 0;
  side->error = (uint8_t)error; /* asked for, it is gone from the socket; a relay that starts now would miss it */
  if (error != 0) event_push(core, EVENT_GONE, number, error);
  else if (fresh & (EPOLLIN | EPOLLRDHUP)) event_push(core, EVENT_READABLE, number, 0);
}

static struct slot *waiting_slot(struct core *core, int number) {
  struct slot *slot = slot_at(core, number);
  return slot != NULL && (slot->kind == SLOT_TCP_CLIENT || slot->kind == SLOT_TCP_UPSTREAM) ? slot : NULL;
}

/* An error is told once; a relay that starts behind it must know. */
static int keep_error(struct side *side, int error) {
  if (error != EAGAIN && error != EINTR) {
    side->error = (uint8_t)error;
    side->ready |= EPOLLERR;
  }
  return -error;
}

int core_read(struct core *core, int number, void *to, size_t length) {
  const struct slot *slot = waiting_slot(core, number);
  if (slot == NULL) return -EBADF;
  struct side *side = &core->tcp->sides[number];
  ssize_t got = recv(slot->fd, to, length, 0);
  int error = got < 0 ? errno : 0;
  if (error == EAGAIN) side->ready &= ~(uint32_t)(EPOLLIN | EPOLLPRI);
  /* In front of urgent data a read is short, whatever is behind it. */
  if (got > 0 && (size_t)got < length && !(side->ready & EPOLLPRI)) side->ready &= ~(uint32_t)EPOLLIN;
  return got < 0 ? keep_error(side, error) : (int)got;
}

int core_write(struct core *core, int number, const void *from, size_t length) {
  const struct slot *slot = waiting_slot(core, number);
  if (slot == NULL) return -EBADF;
  ssize_t sent = send(slot->fd, from, length, MSG_NOSIGNAL);
  return sent < 0 ? keep_error(&core->tcp->sides[number], errno) : (int)sent;
}

/* Turns */

static void turn(struct core *core, int number) {
  const struct slot *slot = &core->slots[number];
  switch (slot->kind) {
    case SLOT_TCP_LISTENER: accept_batch(core, number); break;
    case SLOT_TCP_CLIENT: client_turn(core, number); break;
    case SLOT_TCP_UPSTREAM: upstream_turn(core, number); break;
    case SLOT_TCP_RELAY: relay_turn(core, slot->state); break;
    default: break;
  }
}

void tcp_event(struct core *core, int number, uint32_t epoll_events) {
  const struct slot *slot = &core->slots[number];
  struct side *side = &core->tcp->sides[number];
  side->ready |= epoll_events;
  side->fresh |= epoll_events;
  if (event_room(core)) turn(core, number);
  else if (slot->kind == SLOT_TCP_RELAY) tcp_queue(core, relay_client(slot->state));
  else if (slot->kind != SLOT_TCP_LISTENER) tcp_queue(core, number);
}

bool tcp_has_more(const struct core *core) {
  return core->tcp->queue_length > 0;
}

void tcp_more(struct core *core) {
  struct tcp *tcp = core->tcp;
  /* Who gets in line again meanwhile has had a turn. */
  for (int turns = tcp->queue_length; turns > 0 && event_room(core); turns--) {
    int32_t number = tcp->queue[tcp->queue_from];
    tcp->queue_from = (tcp->queue_from + 1) % core->shared.slots;
    tcp->queue_length--;
    tcp->sides[number].queued = false;
    turn(core, number);
  }
}

void tcp_close_slot(struct core *core, int number, bool reset) {
  struct slot *slot = &core->slots[number];
  if (slot->kind == SLOT_TCP_RELAY) return relay_close(core, slot->state, reset);
  if (slot->kind == SLOT_TCP_LISTENER) free(slot->state);
  else if (reset) socket_reset(slot->fd);
  slot_close(core, number);
}
