/*
 * Bytes of one established flow, both ways with the same code.
 *
 *   turn, per direction:  what is held → its reader;  then the writer's end → FIN;  then the next move
 *   move:  copy  ── 3 full reads ──► bulk (splice)      bulk ── 3 small reads ──► copy
 *   end:   both directions have passed their FIN on ──► done
 *          an error of one socket                   ──► RST to both: a cut answer must not look complete
 *
 * What either end is for its reader, by recv and by splice: platform/splice-after-half-close.c, platform/reset-relay.c.
 *
 * A direction reads only when it holds nothing. That is the back-pressure (at most one buffer or one pipe is held,
 * and only while the reader has no room), and it settles what EAGAIN of splice means (platform/splice-eagain.c): the
 * pipe is empty, so it was the socket. A short read by copying says that a socket is drained; a short splice does not.
 *
 * Urgent data (EPOLLPRI) is an exception to both: recv stops in front of it once and drops it the next time, splice stays
 * in front of it (platform/urgent-data.c). So while there is any a direction is copied, until a read gets nothing.
 *
 * One turn moves a bounded amount; a flow that could go on then waits in the queue of tcp.c.
 */
#include "tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  TURN_BYTES = 1024 * 1024,
  TURN_MOVES = 16,
  FULL_READS = 3,   /* in a row, until a direction is bulk */
  SMALL_READS = 3,  /* in a row, until it no longer is */
  SMALL_BYTES = 16 * 1024,
  NO_PIPE = -64     /* full reads more before the next attempt to make one */
};

enum { CLIENT, UPSTREAM };

enum step { WAITS, MOVED, MORE, SOURCE_FAILED, TARGET_FAILED };

struct direction {
  uint8_t *kept; /* bytes the reader had no room for, by copying */
  size_t kept_from, kept_to;
  struct pipe pipe; /* the same, by splicing */
  size_t in_pipe;
  int8_t full_reads, small_reads;
  bool source_ended, end_passed;
};

struct relay {
  int32_t slot[2];
  struct counters *counters;
  struct direction direction[2]; /* named by where it comes from */
};

/* One direction with what its moves need at hand. */
struct passage {
  struct core *core;
  struct relay *relay;
  struct direction *direction;
  int from, source, target;
  uint32_t *source_ready, *target_ready;
};

static struct passage passage_of(struct core *core, struct relay *relay, int from) {
  int source = relay->slot[from], target = relay->slot[!from];
  return (struct passage){
      .core = core,
      .relay = relay,
      .direction = &relay->direction[from],
      .from = from,
      .source = core->slots[source].fd,
      .target = core->slots[target].fd,
      .source_ready = &core->tcp->sides[source].ready,
      .target_ready = &core->tcp->sides[target].ready,
  };
}

static void count_bytes(const struct passage *p, size_t bytes) {
  const struct counters *counters = p->relay->counters;
  int32_t slot = p->relay->slot[p->from];
  p->core->shared.bytes[slot] += (double)bytes;
  p->core->shared.active_ms[slot] = p->core->now_ms;
  if (counters == NULL) return;
  counters->values[p->from == CLIENT ? counters->bytes_from_client : counters->bytes_from_upstream] += (double)bytes;
}

static void source_ended(const struct passage *p) {
  int32_t slot = p->relay->slot[p->from];
  p->direction->source_ended = true;
  p->core->shared.ended[slot] = 1;
  p->core->shared.active_ms[slot] = p->core->now_ms;
}

/* Of a read that got nothing. 0 is the end, behind all that came before it (platform/splice-after-half-close.c). */
static enum step read_nothing(const struct passage *p, ssize_t result) {
  if (result == 0) source_ended(p);
  else if (errno == EAGAIN) *p->source_ready &= ~(uint32_t)(EPOLLIN | EPOLLPRI | EPOLLRDHUP);
  else if (errno != EINTR) return SOURCE_FAILED;
  return MOVED;
}

/* Of a write that took nothing. */
static enum step write_nothing(const struct passage *p) {
  if (errno == EINTR) return MOVED;
  if (errno != EAGAIN) return TARGET_FAILED;
  *p->target_ready &= ~(uint32_t)EPOLLOUT;
  return WAITS;
}

static bool keep(struct direction *direction, const void *bytes, size_t length) {
  direction->kept = malloc(length);
  if (direction->kept == NULL) return false;
  memcpy(direction->kept, bytes, length);
  direction->kept_from = 0;
  direction->kept_to = length;
  return true;
}

static enum step send_kept(const struct passage *p) {
  struct direction *d = p->direction;
  ssize_t sent = send(p->target, d->kept + d->kept_from, d->kept_to - d->kept_from, MSG_NOSIGNAL);
  if (sent < 0) return write_nothing(p);
  d->kept_from += (size_t)sent;
  if (d->kept_from == d->kept_to) {
    free(d->kept);
    d->kept = NULL;
  }
  return MOVED;
}

static enum step send_pipe(const struct passage *p) {
  struct direction *d = p->direction;
  /* No SPLICE_F_MORE: a pipe that is just filled says nothing of what follows, and the tail would wait 200 ms. */
  ssize_t sent = splice(d->pipe.read, NULL, p->target, NULL, d->in_pipe, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
  if (sent <= 0) return write_nothing(p);
  d->in_pipe -= (size_t)sent;
  if (d->in_pipe == 0) pipe_give(p->core->tcp, &d->pipe, true);
  return MOVED;
}

static enum step copy(const struct passage *p, size_t *moved) {
  struct direction *d = p->direction;
  uint8_t *buffer = p->core->tcp->copy;
  ssize_t got = recv(p->source, buffer, COPY_BYTES, 0);
  if (got <= 0) return read_nothing(p, got);
  *moved += (size_t)got;
  count_bytes(p, (size_t)got);
  if (got < COPY_BYTES) {
    if (d->full_reads > 0) d->full_reads = 0;
    if (!(*p->source_ready & EPOLLPRI)) *p->source_ready &= ~(uint32_t)EPOLLIN;
  } else if (d->full_reads < FULL_READS) d->full_reads++;
  ssize_t sent = send(p->target, buffer, (size_t)got, MSG_NOSIGNAL);
  if (sent == got) return MOVED;
  if (sent < 0 && write_nothing(p) == TARGET_FAILED) return TARGET_FAILED;
  /* A socket takes less than all only for want of room, and has its next edge in store then. */
  if (sent > 0) *p->target_ready &= ~(uint32_t)EPOLLOUT;
  size_t taken = sent > 0 ? (size_t)sent : 0;
  return keep(d, buffer + taken, (size_t)got - taken) ? MOVED : TARGET_FAILED;
}

static enum step fill_pipe(const struct passage *p, size_t *moved) {
  struct direction *d = p->direction;
  ssize_t got = splice(p->source, NULL, d->pipe.write, NULL, d->pipe.size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
  if (got <= 0) {
    int error = errno;
    pipe_give(p->core->tcp, &d->pipe, true);
    if (got < 0 && (error == EINVAL || error == EPERM || error == ENOSYS)) {
      p->core->fallbacks |= FALLBACK_SPLICE;
      return MOVED;
    }
    /* The end, or urgent data with the end somewhere behind it: recv knows. */
    if (got == 0) return copy(p, moved);
    errno = error;
    return read_nothing(p, got);
  }
  *moved += (size_t)got;
  count_bytes(p, (size_t)got);
  d->in_pipe = (size_t)got;
  d->small_reads = got < SMALL_BYTES ? d->small_reads + 1 : 0;
  if (d->small_reads == SMALL_READS) d->full_reads = d->small_reads = 0;
  return MOVED;
}

static enum step move(const struct passage *p, size_t *moved) {
  struct direction *d = p->direction;
  bool by_copying = d->full_reads < FULL_READS || *p->source_ready & EPOLLPRI || p->core->fallbacks & FALLBACK_SPLICE;
  if (by_copying) return copy(p, moved);
  if (pipe_take(p->core, &d->pipe)) return fill_pipe(p, moved);
  if (p->core->fallbacks & FALLBACK_PIPES) d->full_reads = NO_PIPE;
  return copy(p, moved);
}

static enum step pass_end(const struct passage *p) {
  /* Of the second end, close() tells. */
  bool is_last = p->relay->direction[!p->from].end_passed;
  if (!is_last && shutdown(p->target, SHUT_WR) != 0) return TARGET_FAILED;
  p->direction->end_passed = true;
  return WAITS;
}

static bool holds(const struct direction *d) {
  return d->kept != NULL || d->in_pipe > 0;
}

static enum step send_held(const struct passage *p) {
  if (!(*p->target_ready & EPOLLOUT)) return WAITS;
  return p->direction->kept != NULL ? send_kept(p) : send_pipe(p);
}

static enum step pump(struct core *core, struct relay *relay, int from) {
  const struct passage p = passage_of(core, relay, from);
  size_t moved = 0;
  for (int moves = 0; !p.direction->end_passed;) {
    enum step step;
    if (holds(p.direction)) step = send_held(&p);
    else if (p.direction->source_ended) step = pass_end(&p);
    else if (!(*p.source_ready & (EPOLLIN | EPOLLRDHUP))) step = WAITS;
    else if (moves++ == TURN_MOVES || moved >= TURN_BYTES) step = MORE;
    else step = move(&p, &moved);
    if (step != MOVED) return step;
  }
  return WAITS;
}

static void finish(struct core *core, struct relay *relay, enum end_reason reason) {
  int32_t client = relay->slot[CLIENT];
  struct counters *counters = relay->counters;
  if (reason != END_DONE && counters != NULL) counters->values[counters->resets] += 1;
  relay_close(core, relay, reason != END_DONE);
  event_push(core, EVENT_ENDED, client, reason);
}

/* Also a socket that nothing is read from and nothing can be written to tells of its reset. */
static bool is_reset(struct core *core, int32_t slot) {
  struct side *side = &core->tcp->sides[slot];
  if (!(side->ready & EPOLLERR)) return false;
  side->ready &= ~(uint32_t)EPOLLERR;
  return side->error != 0 || socket_error(core->slots[slot].fd) != 0;
}

void relay_turn(struct core *core, struct relay *relay) {
  if (is_reset(core, relay->slot[CLIENT])) return finish(core, relay, END_CLIENT_RESET);
  if (is_reset(core, relay->slot[UPSTREAM])) return finish(core, relay, END_UPSTREAM_RESET);
  bool more = false;
  for (int from = CLIENT; from <= UPSTREAM; from++) {
    enum step step = pump(core, relay, from);
    if (step == SOURCE_FAILED || step == TARGET_FAILED) {
      bool by_client = (from == CLIENT) == (step == SOURCE_FAILED);
      return finish(core, relay, by_client ? END_CLIENT_RESET : END_UPSTREAM_RESET);
    }
    more |= step == MORE;
  }
  if (relay->direction[CLIENT].end_passed && relay->direction[UPSTREAM].end_passed) finish(core, relay, END_DONE);
  else if (more) tcp_queue(core, relay->slot[CLIENT]);
}

void relay_close(struct core *core, struct relay *relay, bool reset) {
  for (int from = CLIENT; from <= UPSTREAM; from++) {
    struct direction *d = &relay->direction[from];
    free(d->kept);
    pipe_give(core->tcp, &d->pipe, d->in_pipe == 0);
    if (reset) socket_reset(core->slots[relay->slot[from]].fd);
    slot_close(core, relay->slot[from]);
  }
  free(relay);
}

int32_t relay_client(const struct relay *relay) {
  return relay->slot[CLIENT];
}

/* One write: header and first payload leave together. Whatever it says of the socket, the next turn finds out too. */
static bool send_early(const struct passage *p, const uint8_t *early, size_t length) {
  if (length == 0) return true;
  ssize_t sent = send(p->target, early, length, MSG_NOSIGNAL);
  size_t taken = sent > 0 ? (size_t)sent : 0;
  return taken == length || keep(p->direction, early + taken, length - taken);
}

int core_relay(struct core *core, int client, int upstream, const void *early, size_t length, size_t payload,
               int client_ended, struct counters *counters) {
  struct slot *slots[2] = {slot_at(core, client), slot_at(core, upstream)};
  if (slots[CLIENT] == NULL || slots[UPSTREAM] == NULL) return -EBADF;
  if (slots[CLIENT]->kind != SLOT_TCP_CLIENT || slots[UPSTREAM]->kind != SLOT_TCP_UPSTREAM) return -EINVAL;
  const struct side *side = &core->tcp->sides[upstream];
  if (!side->connected || side->error != 0) return -ENOTCONN;
  struct relay *relay = calloc(1, sizeof *relay);
  if (relay == NULL) return -ENOMEM;
  *relay = (struct relay){.slot = {client, upstream}, .counters = counters};
  const struct passage p = passage_of(core, relay, CLIENT);
  if (!send_early(&p, early, length)) {
    free(relay);
    return -ENOMEM;
  }
  for (int i = CLIENT; i <= UPSTREAM; i++) {
    slots[i]->kind = SLOT_TCP_RELAY;
    slots[i]->state = relay;
  }
  if (payload > 0) count_bytes(&p, payload);
  if (client_ended) source_ended(&p);
  /* Not a turn at once: a flow that ends is an event, and those of the last poll are still being read. */
  const uint32_t work = EPOLLIN | EPOLLRDHUP | EPOLLERR;
  if (client_ended || holds(p.direction) || (*p.source_ready | *p.target_ready) & work) tcp_queue(core, client);
  return 0;
}

int core_relay_abort(struct core *core, int client) {
  const struct slot *slot = slot_at(core, client);
  if (slot == NULL || slot->kind != SLOT_TCP_RELAY) return -EBADF;
  relay_close(core, slot->state, true);
  return 0;
}
