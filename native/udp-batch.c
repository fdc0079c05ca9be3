/*
 * Datagrams in, many a call, as datagrams or as the trains the kernel makes of them (UDP_GRO, platform/gso-gro-loopback.c),
 * and what becomes of them.
 *
 *   a listener ─► arrivals ─► of a known flow: its upstream's socket
 *                        └──► else: EVENT_DATAGRAM for each
 *   an upstream ─► arrivals ─► the listener's socket, for all flows at the end of the poll
 *
 * All that one flow has in a batch goes out together and in order, however its datagrams were mixed with others':
 * that makes the longer trains. Answers of several flows share the buffers, so that one call sends them all.
 *
 * Order. In one poll either all datagrams of a sender pass here or all are shown, because flows change only between
 * polls. Where there is no room to show one, it and all behind it that must be shown stay in their buffers; until they
 * are shown, in the next poll, nothing more is received from clients. So nothing overtakes, and nothing is lost but
 * what the kernel's buffers have no room for.
 */
#include "udp.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>

enum {
  /* No datagram and no train is longer than 16 bits can say, so none is ever cut. */
  BUFFER = 65536,
  /* With fewer buffers than this for a flow's answers, those that wait go out first. */
  LEAST_FREE = 16,
  /* What a socket may do in one turn, so that a flood does not keep others waiting. */
  TURN_ROUNDS = 4,
  TURN_BYTES = 1024 * 1024,
  /* Strangers leave the other events to connections, answers and refusals. */
  MAX_SHOWN = MAX_EVENTS * 3 / 4,
};

struct inbox {
  int used; /* of the buffers, by what has not been sent yet */
  struct mmsghdr messages[BATCH];
  struct iovec pieces[BATCH];
  struct sockaddr_storage names[BATCH];
  union control controls[BATCH];
  uint8_t *buffers;
};

struct batches {
  struct inbox from_clients, from_upstreams;
  struct outbox to_upstream, to_clients;
  struct arrival arrivals[BATCH];
  /* Arrivals that are to be relayed or shown, in order, and whose they are. */
  int16_t due[BATCH];
  int due_count;
  struct listener *due_listener;
};

/* ---- made once ---- */

/* The kernel writes over both. */
static void make_ready(struct msghdr *message) {
  message->msg_namelen = sizeof(struct sockaddr_storage);
  message->msg_controllen = sizeof(union control);
}

static bool inbox_open(struct inbox *inbox) {
  inbox->buffers = malloc((size_t)BATCH * BUFFER); /* pages come with the datagrams that need them */
  if (inbox->buffers == NULL) return false;
  for (int i = 0; i < BATCH; i++) {
    struct msghdr *message = &inbox->messages[i].msg_hdr;
    inbox->pieces[i] = (struct iovec){inbox->buffers + (size_t)i * BUFFER, BUFFER};
    *message = (struct msghdr){.msg_name = &inbox->names[i], .msg_iov = &inbox->pieces[i], .msg_iovlen = 1};
    message->msg_control = &inbox->controls[i];
    make_ready(message);
  }
  return true;
}

struct batches *batches_open(void) {
  struct batches *batches = calloc(1, sizeof *batches);
  if (batches == NULL) return NULL;
  batches->to_upstream.direction = TO_UPSTREAM;
  batches->to_clients.direction = TO_CLIENT;
  if (inbox_open(&batches->from_clients) && inbox_open(&batches->from_upstreams)) return batches;
  batches_close(batches);
  return NULL;
}

void batches_close(struct batches *batches) {
  if (batches == NULL) return;
  free(batches->from_clients.buffers);
  free(batches->from_upstreams.buffers);
  free(batches);
}

/* ---- arrivals ---- */

/* The number of messages behind those that are still needed, or -errno. */
static int receive(struct inbox *inbox, int fd) {
  int received = recvmmsg(fd, inbox->messages + inbox->used, (unsigned)(BATCH - inbox->used), MSG_DONTWAIT, NULL);
  return received < 0 ? -errno : received;
}

/* Nothing can be sent from a multicast address, which is then left out. */
static void read_ipv6_info(struct endpoint *local, const void *data) {
  struct in6_pktinfo info;
  memcpy(&info, data, sizeof info);
  memset(local->address, 0, sizeof local->address);
  if (!IN6_IS_ADDR_MULTICAST(&info.ipi6_addr)) memcpy(local->address, &info.ipi6_addr, sizeof local->address);
  local->zone = IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr) ? info.ipi6_ifindex : 0;
}

/* ipi_spec_dst is what was dialled (platform/pktinfo-wildcard.c), of a broadcast the interface it came in by. */
static void read_ipv4_info(struct endpoint *local, const void *data) {
  struct in_pktinfo info;
  memcpy(&info, data, sizeof info);
  memcpy(local->address + 12, &info.ipi_spec_dst, sizeof info.ipi_spec_dst);
}

/* The size of a train's datagrams; the kernel says none for a single one. */
static uint32_t read_train(const void *data, uint32_t length) {
  int each;
  memcpy(&each, data, sizeof each);
  return each > 0 ? (uint32_t)each : length;
}

/* Whole: the kernel cuts what there is no room for, as on a socket that came with more options than ours. */
static bool holds(const struct cmsghdr *control, int level, int type, size_t length) {
  return control->cmsg_level == level && control->cmsg_type == type && control->cmsg_len >= CMSG_LEN(length);
}

static void read_control(struct arrival *arrival, struct msghdr *message) {
  for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control != NULL; control = CMSG_NXTHDR(message, control)) {
    struct endpoint *local = &arrival->key.local;
    const void *data = CMSG_DATA(control);
    if (holds(control, IPPROTO_UDP, UDP_GRO, sizeof(int))) arrival->each = read_train(data, arrival->length);
    else if (holds(control, IPPROTO_IPV6, IPV6_PKTINFO, sizeof(struct in6_pktinfo))) read_ipv6_info(local, data);
    else if (holds(control, IPPROTO_IP, IP_PKTINFO, sizeof(struct in_pktinfo))) read_ipv4_info(local, data);
  }
}

static void read_arrival(struct arrival *arrival, struct inbox *inbox, int i) {
  struct mmsghdr *message = &inbox->messages[i];
  arrival->data = inbox->pieces[i].iov_base;
  arrival->length = arrival->each = message->msg_len;
  read_control(arrival, &message->msg_hdr);
  make_ready(&message->msg_hdr);
  arrival->count = arrival->length > arrival->each ? (arrival->length + arrival->each - 1) / arrival->each : 1;
}

/* ---- from clients ---- */

static void count_from_client(struct core *core, struct flow *flow, const struct arrival *arrival) {
  core->shared.bytes[flow->slot] += arrival->length;
  core->shared.active_ms[flow->slot] = core->now_ms;
  struct counters *counters = flow->counters;
  if (counters == NULL) return;
  count(counters, counters->bytes_from_client, arrival->length);
  count(counters, counters->datagrams_from_client, arrival->count);
}

static void relay_to_upstream(struct core *core, struct flow *flow) {
  struct batches *batches = core->udp->batches;
  batches->to_upstream.fd = core->slots[flow->slot].fd;
  for (int i = flow->first; i >= 0; i = batches->arrivals[i].next) {
    count_from_client(core, flow, &batches->arrivals[i]);
    if (!flow->hears) budget_request(flow, batches->arrivals[i].count, batches->arrivals[i].length);
    outbox_put(core, &batches->to_upstream, flow, &batches->arrivals[i]);
  }
  flow->first = -1;
  outbox_flush(core, &batches->to_upstream);
}

/* True when the flow had none before. */
static bool enqueue(struct batches *batches, struct flow *flow, int16_t i) {
  bool is_first = flow->first < 0;
  if (is_first) flow->first = i;
  else batches->arrivals[flow->last].next = i;
  flow->last = i;
  batches->arrivals[i].next = -1;
  return is_first;
}

static bool show_datagram(struct core *core, const struct arrival *arrival, uint32_t length, int flow) {
  if (core->event_count >= MAX_SHOWN || core->arena_used + length > ARENA_BYTES) return false;
  struct event *event = event_push(core, EVENT_DATAGRAM, arrival->key.listener, flow);
  if (event == NULL) return false;
  memcpy(core->shared.arena + core->arena_used, arrival->data, length);
  event->offset = core->arena_used;
  event->length = length;
  event->peer = arrival->key.peer;
  event->local = arrival->key.local;
  core->arena_used += length;
  return true;
}

/* False when there is no more room; what was shown is off the arrival then. */
static bool show(struct core *core, struct arrival *arrival, int flow) {
  for (; arrival->count > 0; arrival->count--) {
    uint32_t length = arrival->length < arrival->each ? arrival->length : arrival->each;
    if (!show_datagram(core, arrival, length, flow)) return false;
    arrival->data += length;
    arrival->length -= length;
  }
  return true;
}

/* Relays and shows what is due; what there is no room for stays due. */
static void settle(struct core *core) {
  struct batches *batches = core->udp->batches;
  struct listener *listener = batches->due_listener;
  struct flow *touched[BATCH];
  int touched_count = 0, kept = 0;
  for (int n = 0; n < batches->due_count; n++) {
    int16_t i = batches->due[n];
    struct arrival *arrival = &batches->arrivals[i];
    struct flow *flow = listener->inspect ? NULL : flow_find(core->udp, &arrival->key);
    if (flow != NULL && !flow->inspect) {
      if (enqueue(batches, flow, i)) touched[touched_count++] = flow;
    } else if (kept > 0 || !show(core, arrival, flow == NULL ? -1 : flow->slot)) {
      batches->due[kept++] = i;
    }
  }
  batches->due_count = kept;
  for (int i = 0; i < touched_count; i++) relay_to_upstream(core, touched[i]);
}

/*
 * Nobody can be answered at port 0. Echo, daytime, quote of the day, character generator and time answer whatever they
 * get, also an answer: a datagram that claims to come from one of them would go to and fro for ever.
 */
static bool is_dropped_source(uint16_t port) {
  const uint64_t dropped = 1ull << 0 | 1ull << 7 | 1ull << 13 | 1ull << 17 | 1ull << 19 | 1ull << 37;
  return port < 64 && (dropped >> port & 1) != 0;
}

static void drop_source(const struct listener *listener, const struct arrival *arrival) {
  if (listener->counters != NULL) count(listener->counters, listener->counters->dropped_source, arrival->count);
}

/* Makes arrivals of what was received; returns the bytes. */
static size_t take_in(struct batches *batches, struct listener *listener, int received) {
  size_t bytes = 0;
  batches->due_listener = listener;
  for (int16_t i = 0; i < received; i++) {
    struct arrival *arrival = &batches->arrivals[i];
    arrival->key = (struct key){.local = listener->local, .listener = listener->slot};
    endpoint_from_sockaddr(&arrival->key.peer, &batches->from_clients.names[i]);
    read_arrival(arrival, &batches->from_clients, i);
    bytes += arrival->length;
    if (is_dropped_source(arrival->key.peer.port)) drop_source(listener, arrival);
    else batches->due[batches->due_count++] = i;
  }
  return bytes;
}

void batches_from_clients(struct core *core, struct listener *listener) {
  struct batches *batches = core->udp->batches;
  size_t bytes = 0;
  for (int round = 0; round < TURN_ROUNDS && bytes < TURN_BYTES && batches->due_count == 0; round++) {
    int received = receive(&batches->from_clients, core->slots[listener->slot].fd);
    /* An error is old news about an answer; the socket goes on. */
    if (received <= 0) return;
    bytes += take_in(batches, listener, received);
    settle(core);
    if (received < BATCH) return;
  }
}

bool batches_have_more(const struct batches *batches) {
  return batches != NULL && batches->due_count > 0;
}

void batches_forget(struct batches *batches, const struct listener *listener) {
  if (batches->due_listener == listener) batches->due_count = 0;
}

/* ---- from upstreams ---- */

static void count_from_upstream(struct core *core, struct flow *flow, const struct arrival *arrival) {
  core->shared.answer_bytes[flow->slot] += arrival->length;
  core->shared.active_ms[flow->slot] = core->now_ms;
  struct counters *counters = flow->counters;
  if (counters == NULL) return;
  count(counters, counters->bytes_from_upstream, arrival->length);
  count(counters, counters->datagrams_from_upstream, arrival->count);
}

static void send_answers(struct core *core) {
  struct batches *batches = core->udp->batches;
  outbox_flush(core, &batches->to_clients);
  batches->from_upstreams.used = 0;
}

/* Buffers to receive into, and an outbox for this listener's socket. */
static void make_room(struct core *core, int fd) {
  struct batches *batches = core->udp->batches;
  if (batches->to_clients.fd != fd || batches->from_upstreams.used > BATCH - LEAST_FREE) send_answers(core);
  batches->to_clients.fd = fd;
}

/* Returns the bytes. */
static size_t put_answers(struct core *core, struct flow *flow, int received) {
  struct batches *batches = core->udp->batches;
  struct inbox *inbox = &batches->from_upstreams;
  struct arrival arrival;
  size_t bytes = 0;
  for (int i = inbox->used; i < inbox->used + received; i++) {
    read_arrival(&arrival, inbox, i);
    count_from_upstream(core, flow, &arrival);
    bytes += arrival.length;
    if (!flow->hears) budget_spend(core, flow, &arrival);
    outbox_put(core, &batches->to_clients, flow, &arrival);
  }
  inbox->used += received;
  if (!flow->answered) flow->answered = event_push(core, EVENT_ANSWERED, flow->slot, 0) != NULL;
  return bytes;
}

void batches_from_upstream(struct core *core, struct flow *flow) {
  struct inbox *inbox = &core->udp->batches->from_upstreams;
  size_t bytes = 0;
  for (int round = 0; round < TURN_ROUNDS && bytes < TURN_BYTES; round++) {
    /* It stays in the socket until the caller can be told; answered flows need no event. */
    if (!flow->answered && !event_room(core)) return;
    make_room(core, core->slots[flow->listener->slot].fd);
    int room = BATCH - inbox->used;
    int received = receive(inbox, core->slots[flow->slot].fd);
    if (received == -EAGAIN || received == 0) return;
    if (received < 0) refused(core, flow, -received);
    else bytes += put_answers(core, flow, received);
    if (received > 0 && received < room) return;
  }
}

void batches_finish(struct core *core) {
  if (core->udp->batches == NULL) return;
  send_answers(core);
  if (core->udp->batches->due_count > 0) settle(core);
}
