/*
 * A core with one upstream socket, and a caller that does what the engine does: it makes a flow for each unknown
 * sender and sends what it was shown. Included by each UDP test; everything is on loopback.
 */
#ifndef UDP_WORLD_H
#define UDP_WORLD_H

#include "table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define CHECK(condition)                                                                                  \
  do {                                                                                                    \
    if (!(condition)) {                                                                                   \
      fprintf(stderr, "%s:%d: %s (errno %d: %s)\n", __FILE__, __LINE__, #condition, errno, strerror(errno)); \
      exit(1);                                                                                            \
    }                                                                                                     \
  } while (0)

#define EQUAL(actual, expected)                                                                        \
  do {                                                                                                 \
    long long a_ = (long long)(actual), e_ = (long long)(expected);                                    \
    if (a_ != e_) {                                                                                    \
      fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #actual, a_, e_);           \
      exit(1);                                                                                         \
    }                                                                                                  \
  } while (0)

enum { FROM_CLIENT, FROM_UPSTREAM, IN, OUT, RESETS, SOURCE, OVERSIZE, QUEUE, PLACES };

struct world {
  struct shared shared;
  struct core *core;
  double values[PLACES];
  struct counters counters;
  struct endpoint upstream_at;
  int upstream; /* fd of a socket that answers when it is told to */
  int listener;
  struct endpoint listens_at;
  int flow, flows; /* the last that was made, and how many */
  int datagrams, answered, refused, last_error;
  bool makes_no_flows;
};

static void *zeroed(size_t count, size_t size) {
  void *memory = calloc(count, size);
  CHECK(memory != NULL);
  return memory;
}

static struct endpoint at(const char *host, int port) {
  struct endpoint endpoint = {.port = (uint16_t)port};
  if (strchr(host, ':')) {
    CHECK(inet_pton(AF_INET6, host, endpoint.address) == 1);
  } else {
    memset(endpoint.address + 10, 0xff, 2);
    CHECK(inet_pton(AF_INET, host, endpoint.address + 12) == 1);
  }
  return endpoint;
}

static struct endpoint local_of(int fd) {
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  CHECK(getsockname(fd, (struct sockaddr *)&name, &length) == 0);
  struct endpoint endpoint;
  endpoint_from_sockaddr(&endpoint, &name);
  return endpoint;
}

/* A bound socket with a large buffer. */
static __attribute__((unused)) int bound_at(struct endpoint where) {
  struct sockaddr_storage name;
  socklen_t length = endpoint_to_sockaddr(&where, &name);
  int fd = socket(name.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  int bytes = 4 << 20;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  if (bind(fd, (struct sockaddr *)&name, length) != 0) CHECK(!"bind");
  return fd;
}

static void connect_to(int fd, struct endpoint to) {
  struct sockaddr_storage name;
  socklen_t length = endpoint_to_sockaddr(&to, &name);
  CHECK(connect(fd, (struct sockaddr *)&name, length) == 0);
}

static __attribute__((unused)) int client_of(struct endpoint to, const char *from) {
  int fd = bound_at(at(from, 0));
  connect_to(fd, to);
  return fd;
}

static void world_open(struct world *world, const char *listen, const char *upstream, int slots) {
  size_t n = (size_t)slots;
  *world = (struct world){.counters = {NULL, FROM_CLIENT, FROM_UPSTREAM, IN, OUT, RESETS, SOURCE, OVERSIZE, QUEUE}};
  world->counters.values = world->values;
  world->shared = (struct shared){.events = zeroed(MAX_EVENTS, sizeof(struct event)),
                                  .arena = zeroed(ARENA_BYTES, 1),
                                  .bytes = zeroed(n, 8),
                                  .answer_bytes = zeroed(n, 8),
                                  .active_ms = zeroed(n, 8),
                                  .ended = zeroed(n, 1),
                                  .slots = slots};
  world->core = core_open(&world->shared);
  CHECK(world->core != NULL);
  world->upstream = bound_at(at(upstream, 0));
  world->upstream_at = local_of(world->upstream);
  struct endpoint where = at(listen, 0);
  world->listener = core_udp_listen(world->core, &where, &world->counters);
  CHECK(world->listener >= 0);
  EQUAL(core_local(world->core, world->listener, &world->listens_at), 0);
}

static void world_close(struct world *world) {
  core_shut(world->core);
  close(world->upstream);
  free(world->shared.events);
  free(world->shared.arena);
  free(world->shared.bytes);
  free(world->shared.answer_bytes);
  free(world->shared.active_ms);
  free(world->shared.ended);
}

static bool same(const struct endpoint *a, const struct endpoint *b) { return memcmp(a, b, sizeof *a) == 0; }

/* The flow that was made for this sender within this poll, or a new one. */
static int flow_for(struct world *world, const struct event *event, int made[], int count) {
  for (int i = 0; i < count; i++) {
    const struct event *before = &world->shared.events[i];
    if (made[i] >= 0 && same(&before->peer, &event->peer) && same(&before->local, &event->local)) return made[i];
  }
  world->flows++;
  world->flow =
      core_udp_flow(world->core, event->slot, &event->peer, &event->local, &world->upstream_at, NULL, &world->counters);
  CHECK(world->flow >= 0);
  return world->flow;
}

/* One poll and what the caller makes of it; returns the number of events. */
static __attribute__((unused)) int turn(struct world *world, int timeout_ms) {
  int count = core_poll(world->core, timeout_ms), made[MAX_EVENTS];
  CHECK(count >= 0 && count <= MAX_EVENTS);
  for (int i = 0; i < count; i++) {
    const struct event *event = &world->shared.events[i];
    made[i] = -1;
    if (event->kind == EVENT_ANSWERED) world->answered++;
    if (event->kind == EVENT_REFUSED) {
      world->refused++;
      world->last_error = event->value;
    }
    if (event->kind != EVENT_DATAGRAM) continue;
    world->datagrams++;
    CHECK(event->local.zone == 0 || event->local.address[0] == 0xfe); /* none but of link-local addresses */
    if (world->makes_no_flows) continue;
    int flow = event->value >= 0 ? event->value : (made[i] = flow_for(world, event, made, i));
    const uint8_t *payload = world->shared.arena + event->offset;
    if (core_udp_send(world->core, flow, NULL, 0, payload, event->length) == -ECONNREFUSED) {
      world->refused++;
      core_udp_send(world->core, flow, NULL, 0, payload, event->length);
    }
  }
  return count;
}

/* Lets the core do all there is to do now. */
static __attribute__((unused)) void settle_down(struct world *world) {
  struct pollfd epoll = {core_epoll(world->core), POLLIN, 0};
  for (int i = 0; i < 1000 && poll(&epoll, 1, 3) > 0; i++) turn(world, 0);
}

/* The next datagram within a second, -1 if there is none. */
static ssize_t take(int fd, void *to, size_t size) {
  struct pollfd ready = {fd, POLLIN, 0};
  return poll(&ready, 1, 1000) > 0 ? recv(fd, to, size, 0) : -1;
}

static __attribute__((unused)) bool is_silent(int fd) {
  struct pollfd ready = {fd, POLLIN, 0};
  return poll(&ready, 1, 5) == 0;
}

/* Datagrams that differ from each other in every place. */
static void fill(uint8_t *data, size_t size, unsigned seed) {
  for (size_t i = 0; i < size; i++) data[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

static __attribute__((unused)) void expect(int fd, size_t size, unsigned seed) {
  static uint8_t got[65536], wanted[65536];
  fill(wanted, size, seed);
  EQUAL(take(fd, got, sizeof got), size);
  CHECK(memcmp(got, wanted, size) == 0);
}

static __attribute__((unused)) void say(int fd, size_t size, unsigned seed) {
  static uint8_t data[65536];
  fill(data, size, seed);
  EQUAL(send(fd, data, size, 0), size);
}

/* The upstream answers whoever sent its next datagram, with the same. */
static __attribute__((unused)) ssize_t echo(struct world *world) {
  static uint8_t data[65536];
  struct sockaddr_storage from;
  socklen_t length = sizeof from;
  struct pollfd ready = {world->upstream, POLLIN, 0};
  if (poll(&ready, 1, 1000) <= 0) return -1;
  ssize_t size = recvfrom(world->upstream, data, sizeof data, 0, (struct sockaddr *)&from, &length);
  EQUAL(sendto(world->upstream, data, (size_t)size, 0, (struct sockaddr *)&from, length), size);
  return size;
}

/* A client whose first datagram was answered. */
static __attribute__((unused)) int known_client(struct world *world, const char *from) {
  int client = client_of(world->listens_at, from);
  say(client, 5, 99);
  settle_down(world);
  EQUAL(echo(world), 5);
  settle_down(world);
  expect(client, 5, 99);
  return client;
}

/* A train as QUIC senders make it: one send, parted by the kernel or by nobody. */
static __attribute__((unused)) void say_train(int fd, const uint8_t *data, size_t length, uint16_t each) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof each)];
  } control = {0};
  struct iovec piece = {(void *)data, length};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control};
  message.msg_controllen = sizeof control.bytes;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  *header = (struct cmsghdr){.cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT, .cmsg_len = CMSG_LEN(sizeof each)};
  memcpy(CMSG_DATA(header), &each, sizeof each);
  EQUAL(sendmsg(fd, &message, 0), length);
}

struct promise {
  const char *promise;
  void (*test)(void);
};

static void keep_promises(const struct promise *promises, size_t count) {
  for (size_t i = 0; i < count; i++) {
    promises[i].test();
    printf("ok %s\n", promises[i].promise);
    fflush(stdout);
  }
}

#endif
