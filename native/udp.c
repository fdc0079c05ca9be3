/*
 * UDP sockets, flows, and the table that finds them. A listener is one bound socket for all its clients. A flow has
 * a connected socket to its upstream, so the kernel keeps strangers out and says whose datagram was refused.
 *
 * All of them are watched level-triggered. A socket is read until a call finds fewer datagrams than it has room for,
 * so none is asked twice whether it is empty; and what a turn leaves behind, because its budget is used up or no more
 * events can be told, the next epoll_wait announces again. Edge-triggered would need a list of what was left, also of
 * errors that recvmmsg keeps for its next call, which make no edge. The price is that epoll looks once more at each
 * socket that had something: 0.1 µs, where passing one answer on takes 3.8.
 *
 * Flows are found by a chained hash table that is made for all slots at once: at no moment does it have to grow,
 * and its pages cost nothing until a flow falls into them. Clients choose their ports and, with IPv6, their addresses,
 * so the hash has a secret, and no set of keys collides by plan.
 */
#include "udp.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum {
  /* A burst that waits while the caller is busy; the default of 208 KiB is full after 277 small datagrams. */
  LISTENER_BUFFER = 4 * 1024 * 1024,
  /* The same for the answers of one upstream. It is a limit: memory is used by what waits. */
  UPSTREAM_BUFFER = 1024 * 1024,
  MAX_PREFIX = 4096,
};

struct udp *udp_open(struct core *core) {
  struct udp *udp = calloc(1, sizeof *udp);
  if (udp == NULL) return NULL;
  size_t buckets = 1;
  while (buckets < (size_t)core->shared.slots) buckets *= 2;
  udp->bucket_mask = (uint32_t)buckets - 1;
  udp->buckets = calloc(buckets, sizeof *udp->buckets);
  udp->networks = calloc(NETWORKS, sizeof *udp->networks);
  if (udp->buckets != NULL && udp->networks != NULL &&
      getrandom(udp->hash_seed, sizeof udp->hash_seed, 0) == (ssize_t)sizeof udp->hash_seed)
    return udp;
  free(udp->networks);
  free(udp->buckets);
  free(udp);
  return NULL;
}

static bool is_udp(const struct slot *slot) {
  return slot->kind == SLOT_UDP_LISTENER || slot->kind == SLOT_UDP_FLOW;
}

void udp_shut(struct core *core) {
  for (int i = 0; i < core->shared.slots; i++)
    if (is_udp(&core->slots[i])) udp_close_slot(core, i);
  batches_close(core->udp->batches);
  free(core->udp->networks);
  free(core->udp->buckets);
  free(core->udp);
}

/* ---- the table of flows ---- */

/*
 * Multilinear hashing (Lemire and Kaser, with the trick of pairs): whatever two different keys are, for a random seed
 * they share a bucket by chance only.
 */
static struct flow **bucket_of(const struct udp *udp, const struct key *key) {
  uint32_t words[sizeof *key / 4];
  memcpy(words, key, sizeof words);
  const uint64_t *seed = udp->hash_seed;
  uint64_t sum = seed[0];
  for (size_t i = 0; i < sizeof words / 4; i += 2) sum += (seed[i + 1] + words[i]) * (seed[i + 2] + words[i + 1]);
  return &udp->buckets[(uint32_t)(sum >> 32) & udp->bucket_mask];
}

struct flow *flow_find(const struct udp *udp, const struct key *key) {
  struct flow *flow = *bucket_of(udp, key);
  while (flow != NULL && memcmp(&flow->key, key, sizeof *key) != 0) flow = flow->next;
  return flow;
}

static void table_add(struct udp *udp, struct flow *flow) {
  struct flow **bucket = bucket_of(udp, &flow->key);
  flow->next = *bucket;
  *bucket = flow;
}

static void table_remove(struct udp *udp, const struct flow *flow) {
  struct flow **link = bucket_of(udp, &flow->key);
  while (*link != flow) link = &(*link)->next;
  *link = flow->next;
}

/* ---- listeners ---- */

static int set(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value);
}

/* Past net.core.rmem_max and wmem_max where we may, else up to them. */
static void widen(int fd, int forced, int plain, int bytes) {
  if (set(fd, SOL_SOCKET, forced, bytes) < 0) set(fd, SOL_SOCKET, plain, bytes);
}

/* Trains arrive whole. Without it the kernel parts them: more calls, the same datagrams (platform/gso-gro-loopback.c). */
static void receive_trains(struct core *core, int fd) {
  if (set(fd, IPPROTO_UDP, UDP_GRO, 1) < 0) core->fallbacks |= FALLBACK_GRO;
}

/*
 * Asked, not tried: a kernel that does not know the control message may leave it unread and send the whole train
 * as one datagram.
 */
static void probe_trains(struct core *core, int fd) {
  int size;
  socklen_t length = sizeof size;
  core->udp->sends_trains = getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, &length) == 0;
  if (!core->udp->sends_trains) core->fallbacks |= FALLBACK_GSO;
}

static bool is_unspecified(const struct endpoint *at) {
  static const uint8_t none[16];
  return memcmp(at->address + (endpoint_is_ipv4(at) ? 12 : 0), none, endpoint_is_ipv4(at) ? 4 : 16) == 0;
}

static int describe(struct listener *listener, int fd) {
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  if (getsockname(fd, (struct sockaddr *)&name, &length) < 0) return -errno;
  listener->is_ipv6 = name.ss_family == AF_INET6;
  endpoint_from_sockaddr(&listener->local, &name);
  listener->is_wildcard = is_unspecified(&listener->local);
  return 0;
}

/* What datagrams are kept with and how many; for those that arrive from now on. */
static int set_listener_options(int fd, const struct listener *listener) {
  widen(fd, SO_RCVBUFFORCE, SO_RCVBUF, LISTENER_BUFFER);
  widen(fd, SO_SNDBUFFORCE, SO_SNDBUF, LISTENER_BUFFER);
  if (!listener->is_wildcard) return 0;
  int failed = listener->is_ipv6 ? set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) : set(fd, IPPROTO_IP, IP_PKTINFO, 1);
  return failed < 0 ? -errno : 0;
}

static int listener_open(struct core *core, struct listener *listener, int fd) {
  if (core->udp->batches == NULL) core->udp->batches = batches_open();
  if (core->udp->batches == NULL) return -ENOMEM;
  int error = describe(listener, fd);
  if (error == 0) error = set_listener_options(fd, listener);
  if (error < 0) return error;
  receive_trains(core, fd);
  probe_trains(core, fd);
  return 0;
}

int udp_adopt(struct core *core, int fd, struct counters *counters) {
  struct listener *listener = calloc(1, sizeof *listener);
  int result = listener != NULL ? listener_open(core, listener, fd) : -ENOMEM;
  if (result < 0) close(fd);
  else result = slot_open(core, fd, SLOT_UDP_LISTENER, EPOLLIN);
  if (result < 0) {
    free(listener);
    return result;
  }
  listener->slot = result;
  listener->counters = counters;
  core->slots[result].state = listener;
  core->slots[result].counters = counters;
  return result;
}

/* As in linux/filter.h, which comes with the kernel's headers and not with every libc. */
struct filter_step {
  uint16_t code;
  uint8_t if_true, if_false;
  uint32_t value;
};

struct filter {
  unsigned short length;
  struct filter_step *steps;
};

/* Of every datagram so many bytes are kept; of none is how to bind without hearing. */
static int keep_only(int fd, uint32_t bytes) {
  enum { RETURN_VALUE = 0x06 };
  struct filter_step step = {RETURN_VALUE, 0, 0, bytes};
  const struct filter filter = {1, &step};
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
}

int udp_hear(int fd) {
  struct listener listener = {0};
  int error = describe(&listener, fd);
  if (error == 0) error = set_listener_options(fd, &listener);
  /* qemu's user mode cannot take a filter off. */
  if (error == 0 && set(fd, SOL_SOCKET, SO_DETACH_FILTER, 0) < 0 && keep_only(fd, UINT32_MAX) < 0) error = -errno;
  return error;
}

/*
 * SO_REUSEADDR is left off: with it another process may bind a part of the address and take our datagrams. V6ONLY
 * leaves the same port of 0.0.0.0 free (platform/v6only-pair.c).
 */
int udp_bound(const struct endpoint *at, bool deaf, bool shared) {
  struct sockaddr_storage name;
  socklen_t length = endpoint_to_sockaddr(at, &name);
  int fd = socket(name.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  bool is_ipv6 = name.ss_family == AF_INET6;
  if ((!is_ipv6 || set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) == 0) && (!deaf || keep_only(fd, 0) == 0) &&
      (!shared || set(fd, SOL_SOCKET, SO_REUSEPORT, 1) == 0) && bind(fd, (struct sockaddr *)&name, length) == 0)
    return fd;
  int error = errno;
  close(fd);
  return -error;
}

int core_udp_listen(struct core *core, const struct endpoint *at, struct counters *counters) {
  int fd = udp_bound(at, false, false);
  return fd < 0 ? fd : udp_adopt(core, fd, counters);
}

/* The caller closes flows before their listener. One that it forgot is in nobody's way until it does. */
static void orphan(struct core *core, const struct listener *listener) {
  for (int i = 0; i < core->shared.slots; i++) {
    struct flow *flow = core->slots[i].kind == SLOT_UDP_FLOW ? core->slots[i].state : NULL;
    if (flow == NULL || flow->listener != listener) continue;
    table_remove(core->udp, flow);
    flow->listener = NULL;
    epoll_ctl(core->epoll, EPOLL_CTL_DEL, core->slots[i].fd, NULL);
  }
}

static void listener_close(struct core *core, struct listener *listener) {
  if (listener->flows > 0) orphan(core, listener);
  batches_forget(core->udp->batches, listener);
  free(listener);
}

/* ---- flows ---- */

static struct slot *slot_of_kind(struct core *core, int number, enum slot_kind kind) {
  struct slot *slot = slot_at(core, number);
  return slot != NULL && slot->kind == kind ? slot : NULL;
}

static struct flow *flow_at(struct core *core, int number) {
  struct slot *slot = slot_of_kind(core, number, SLOT_UDP_FLOW);
  return slot != NULL ? slot->state : NULL;
}

static int connected(struct core *core, const struct endpoint *to, const struct source *from) {
  struct sockaddr_storage name;
  socklen_t length = endpoint_to_sockaddr(to, &name);
  int fd = socket(name.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  widen(fd, SO_RCVBUFFORCE, SO_RCVBUF, UPSTREAM_BUFFER);
  receive_trains(core, fd);
  int error = source_bind(fd, from, to, false);
  if (error == 0 && connect(fd, (struct sockaddr *)&name, length) != 0) error = -errno;
  if (error == 0 && socket_met_itself(fd, to)) error = -ECONNREFUSED;
  if (error == 0) return fd;
  close(fd);
  return error;
}

/* A listener with an address of its own has that one only, whatever the caller says. */
static struct key key_of(const struct listener *listener, const struct endpoint *peer, const struct endpoint *local) {
  struct key key = {.peer = *peer, .local = listener->local, .listener = listener->slot};
  if (listener->is_wildcard) key.local = *local;
  key.peer.unused = key.local.unused = 0;
  key.local.port = listener->local.port;
  return key;
}

static struct flow *flow_make(struct core *core, struct listener *listener, const struct key *key) {
  struct flow *flow = calloc(1, sizeof *flow);
  if (flow == NULL) return NULL;
  flow->key = *key;
  flow->listener = listener;
  budget_begin(flow);
  flow->first = -1;
  for (int i = 0; i < 2; i++) flow->largest_in_train[i] = core->udp->sends_trains ? UINT16_MAX : 0;
  struct sockaddr_storage name;
  flow->peer_name_length = endpoint_to_sockaddr(&key->peer, &name);
  memcpy(&flow->peer_name, &name, sizeof flow->peer_name);
  return flow;
}

static void flow_start(struct core *core, struct flow *flow, int number, struct counters *counters) {
  flow->slot = number;
  flow->counters = counters;
  flow->listener->flows++;
  core->slots[number].state = flow;
  core->slots[number].counters = counters;
  core->shared.bytes[number] = core->shared.answer_bytes[number] = 0;
  core->shared.active_ms[number] = core->now_ms;
  table_add(core->udp, flow);
}

int core_udp_flow(struct core *core, int listener, const struct endpoint *peer, const struct endpoint *local,
                  const struct endpoint *upstream, const struct source *from, struct counters *counters) {
  struct slot *slot = slot_of_kind(core, listener, SLOT_UDP_LISTENER);
  if (slot == NULL) return -EBADF;
  int fd = connected(core, upstream, from);
  if (fd < 0) return fd;
  struct key key = key_of(slot->state, peer, local);
  struct flow *flow = flow_make(core, slot->state, &key);
  if (flow == NULL) close(fd);
  int number = flow != NULL ? slot_open(core, fd, SLOT_UDP_FLOW, EPOLLIN) : -ENOMEM;
  if (number < 0) free(flow);
  else flow_start(core, flow, number, counters);
  return number;
}

int core_udp_connect(struct core *core, int number, const struct endpoint *upstream, const struct source *from) {
  struct flow *flow = flow_at(core, number);
  if (flow == NULL || flow->listener == NULL) return -EBADF;
  int fd = connected(core, upstream, from);
  int result = fd < 0 ? fd : slot_replace(core, number, fd, EPOLLIN);
  if (result < 0) return result;
  flow->answered = false;
  budget_restart(flow);
  flow->largest_in_train[TO_UPSTREAM] = core->udp->sends_trains ? UINT16_MAX : 0;
  return 0;
}

int core_udp_inspect(struct core *core, int number, int on) {
  struct slot *slot = slot_at(core, number);
  if (slot == NULL || !is_udp(slot)) return -EBADF;
  if (slot->kind == SLOT_UDP_LISTENER) ((struct listener *)slot->state)->inspect = on != 0;
  else ((struct flow *)slot->state)->inspect = on != 0;
  return 0;
}

int core_udp_budget(struct core *core, int listener, const struct reply_budget *budget) {
  struct slot *slot = slot_of_kind(core, listener, SLOT_UDP_LISTENER);
  if (slot == NULL) return -EBADF;
  ((struct listener *)slot->state)->budget = *budget;
  return 0;
}

int core_udp_prefix(struct core *core, int number, const void *header, size_t length) {
  struct flow *flow = flow_at(core, number);
  if (flow == NULL) return -EBADF;
  if (length > MAX_PREFIX) return -EMSGSIZE;
  uint8_t *copy = length > 0 ? malloc(length) : NULL;
  if (length > 0 && copy == NULL) return -ENOMEM;
  if (copy != NULL) memcpy(copy, header, length);
  free(flow->prefix);
  flow->prefix = copy;
  flow->prefix_length = (uint16_t)length;
  return 0;
}

static bool is_about_one_datagram(int error) {
  return error == EMSGSIZE || error == EAGAIN || error == ENOBUFS || error == EINTR;
}

/*
 * The error may be an ICMP message about an earlier datagram; telling it clears it, so the caller may send again.
 * It counts as REFUSED does: the next answer is a first one.
 */
int core_udp_send(struct core *core, int number, const void *header, size_t header_length, const void *payload,
                  size_t length) {
  struct flow *flow = flow_at(core, number);
  if (flow == NULL) return -EBADF;
  if (!flow->hears) budget_request(flow, 1, (uint32_t)length);
  struct iovec parts[2] = {{(void *)header, header_length}, {(void *)payload, length}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  if (sendmsg(core->slots[number].fd, &message, MSG_DONTWAIT) >= 0) return 0;
  int error = errno;
  if (!is_about_one_datagram(error)) flow->answered = false;
  return -error;
}

static void flow_close(struct core *core, struct flow *flow) {
  if (flow->listener != NULL) {
    flow->listener->flows--;
    table_remove(core->udp, flow);
  }
  free(flow->prefix);
  free(flow);
}

/* ---- as core.c calls it ---- */

void udp_close_slot(struct core *core, int number) {
  struct slot *slot = &core->slots[number];
  if (slot->kind == SLOT_UDP_LISTENER) listener_close(core, slot->state);
  else flow_close(core, slot->state);
  slot->state = NULL;
  slot_close(core, number);
}

void udp_event(struct core *core, int number, uint32_t epoll_events) {
  (void)epoll_events; /* data and errors both come out of receiving */
  struct slot *slot = &core->slots[number];
  if (slot->kind == SLOT_UDP_LISTENER) batches_from_clients(core, slot->state);
  else batches_from_upstream(core, slot->state);
}

bool udp_has_more(const struct core *core) {
  return batches_have_more(core->udp->batches);
}

void udp_more(struct core *core) {
  batches_finish(core);
}
