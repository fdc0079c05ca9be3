/*
 * What both targets have in common: an input that is read number by number, a small core in a network of its own, and
 * what must hold of its tables whatever was done to it.
 */
#ifndef DUALPORT_FUZZ_H
#define DUALPORT_FUZZ_H

#include "../tcp.h"
#include "../udp.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CHECK(condition)                                                                              \
  do {                                                                                                \
    if (!(condition)) {                                                                               \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                 \
      abort();                                                                                        \
    }                                                                                                 \
  } while (0)

enum { SLOTS = 12, PLACES = 9, NOBODY = -1 };

struct input {
  const uint8_t *next;
  size_t left;
};

/* Zero once the input is over. */
static uint32_t take(struct input *input, int bytes) {
  uint32_t value = 0;
  for (; bytes > 0 && input->left > 0; bytes--, input->left--) value = value << 8 | *input->next++;
  return value;
}

static struct event fuzz_events[MAX_EVENTS];
static uint8_t fuzz_arena[ARENA_BYTES];
static double fuzz_bytes[SLOTS], fuzz_answer_bytes[SLOTS], fuzz_active_ms[SLOTS], fuzz_values[PLACES];
static uint8_t fuzz_ended[SLOTS];
static struct counters fuzz_counters = {fuzz_values, 0, 1, 2, 3, 4, 5, 6, 7, 8};

static struct core *fuzz_core(void) {
  const struct shared shared = {fuzz_events, fuzz_arena, fuzz_bytes, fuzz_answer_bytes, fuzz_active_ms, fuzz_ended, SLOTS};
  return core_open(&shared);
}

/* ::ffff:a.b.c.d */
static struct endpoint ipv4(uint32_t address, uint16_t port) {
  struct endpoint endpoint = {.address = {[10] = 0xff, [11] = 0xff}, .port = port};
  for (int i = 0; i < 4; i++) endpoint.address[12 + i] = (uint8_t)(address >> (24 - 8 * i));
  return endpoint;
}

/* How many are in use, of the few that an input can come to. */
static int descriptors(void) {
  int count = 0;
  for (int fd = 0; fd < 128; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

/* Ports and TIME_WAIT sockets are nobody else's then. Without root it goes on where it is. */
int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  signal(SIGPIPE, SIG_IGN); /* as Node does: splice cannot be asked to leave it out */
  if (unshare(CLONE_NEWNET) != 0) return 0;
  struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  CHECK(ioctl(fd, SIOCSIFFLAGS, &loopback) == 0);
  close(fd);
  return 0;
}

const char *__asan_default_options(void);
const char *__asan_default_options(void) {
  return "quarantine_size_mb=16"; /* batches are megabytes, and each input has its own */
}

/* What must hold */

static void check_slots(const struct core *core) {
  int seen[SLOTS] = {0};
  for (int i = 0; i < core->free_count; i++) seen[core->free_now[i]]++;
  for (int i = 0; i < core->free_later_count; i++) seen[core->free_later[i]]++;
  for (int i = 0; i < SLOTS; i++) {
    const struct slot *slot = &core->slots[i];
    CHECK(seen[i] == (slot->kind == SLOT_FREE));
    CHECK((slot->fd >= 0) == (slot->kind != SLOT_FREE) || slot->generation == 0);
  }
}

static void check_relays(const struct core *core) {
  int sides[SLOTS] = {0}, relays = 0, queued = 0;
  for (int i = 0; i < SLOTS; i++) {
    const struct slot *slot = &core->slots[i];
    queued += core->tcp->sides[i].queued;
    if (slot->kind != SLOT_TCP_RELAY) continue;
    int client = relay_client(slot->state);
    CHECK(core->slots[client].state == slot->state);
    relays += ++sides[client] == 2;
  }
  for (int i = 0; i < SLOTS; i++) CHECK(sides[i] == 0 || sides[i] == 2);
  CHECK(queued == core->tcp->queue_length);
  CHECK(core->tcp->idle_pipes <= core->tcp->pipes && core->tcp->pipes <= core->tcp->idle_pipes + 2 * relays);
}

static void check_flows(const struct core *core) {
  int reachable = 0, flows = 0, listened = 0;
  for (uint32_t bucket = 0; bucket <= core->udp->bucket_mask; bucket++) {
    for (const struct flow *flow = core->udp->buckets[bucket]; flow != NULL; flow = flow->next, reachable++)
      CHECK(core->slots[flow->slot].state == flow && core->slots[flow->key.listener].state == flow->listener);
  }
  for (int i = 0; i < SLOTS; i++) {
    const struct slot *slot = &core->slots[i];
    if (slot->kind == SLOT_UDP_LISTENER) listened += ((const struct listener *)slot->state)->flows;
    if (slot->kind != SLOT_UDP_FLOW) continue;
    const struct flow *flow = slot->state;
    CHECK(flow->first < 0 && (flow->prefix != NULL) == (flow->prefix_length > 0));
    if (flow->listener == NULL) continue;
    flows++;
    CHECK(flow_find(core->udp, &flow->key) != NULL);
  }
  CHECK(reachable == flows && listened == flows);
}

/* Of the poll that has just ended. */
static void check_event(const struct core *core, const struct event *event) {
  static const int kinds[] = {
      [EVENT_ACCEPTED] = 1 << SLOT_TCP_CLIENT,     [EVENT_READABLE] = 1 << SLOT_TCP_CLIENT,
      [EVENT_GONE] = 1 << SLOT_TCP_CLIENT,         [EVENT_CONNECTED] = 1 << SLOT_TCP_UPSTREAM,
      [EVENT_ENDED] = 1 << SLOT_FREE,              [EVENT_DATAGRAM] = 1 << SLOT_UDP_LISTENER,
      [EVENT_ANSWERED] = 1 << SLOT_UDP_FLOW,       [EVENT_REFUSED] = 1 << SLOT_UDP_FLOW,
      [EVENT_ACCEPT_FAILED] = 1 << SLOT_TCP_LISTENER, [EVENT_HANDED] = 1 << SLOT_GIVER,
      [EVENT_HANDED_BACK] = 1 << SLOT_GIVER,
  };
  CHECK(event->kind >= EVENT_ACCEPTED && event->kind <= EVENT_HANDED_BACK);
  CHECK(event->slot >= 0 && event->slot < SLOTS);
  CHECK(kinds[event->kind] & 1 << core->slots[event->slot].kind);
  CHECK((uint64_t)event->offset + event->length <= core->arena_used && core->arena_used <= ARENA_BYTES);
}

static void check_givers(const struct core *core) {
  int givers = 0;
  for (int i = 0; i < SLOTS; i++) givers += core->slots[i].kind == SLOT_GIVER;
  CHECK(givers == core->givers);
}

static void check_core(const struct core *core) {
  check_givers(core);
  check_slots(core);
  check_relays(core);
  check_flows(core);
}

#endif
