/*
 * One poll: wait, hand each ready socket to tcp.c, udp.c or handover.c, then let flows go on that used up their turn.
 *
 *   core_poll: give freed slots back → epoll_wait → tcp_event / udp_event … → udp_more, tcp_more → count of events
 *
 * While anything has more to do an eventfd in the epoll is ready, so nobody sleeps, in core_poll or on core_epoll. It is
 * edge-triggered and never read: a write is one wake-up.
 */
#include "tcp.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { EPOLL_BATCH = 256 };
static const uint64_t wake_tag = UINT64_MAX; /* no slot has this number */

double core_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static bool open_table(struct core *core) {
  size_t slots = (size_t)core->shared.slots;
  core->slots = calloc(slots, sizeof *core->slots);
  core->free_now = calloc(slots, sizeof *core->free_now);
  core->free_later = calloc(slots, sizeof *core->free_later);
  if (core->slots == NULL || core->free_now == NULL || core->free_later == NULL) return false;
  while (core->free_count < core->shared.slots) {
    core->free_now[core->free_count] = core->shared.slots - 1 - core->free_count;
    core->free_count++;
  }
  return true;
}

static bool open_epoll(struct core *core) {
  core->epoll = epoll_create1(EPOLL_CLOEXEC);
  core->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (core->epoll < 0 || core->wake < 0) return false;
  struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = wake_tag};
  return epoll_ctl(core->epoll, EPOLL_CTL_ADD, core->wake, &event) == 0;
}

struct core *core_open(const struct shared *shared) {
  struct core *core = calloc(1, sizeof *core);
  if (core == NULL) return NULL;
  core->shared = *shared;
  core->epoll = core->wake = -1;
  core->now_ms = core_now();
  if (open_epoll(core) && open_table(core) && (core->tcp = tcp_open(core)) != NULL &&
      (core->udp = udp_open(core)) != NULL)
    return core;
  int error = errno;
  core_shut(core);
  errno = error;
  return NULL;
}

void core_shut(struct core *core) {
  if (core->slots != NULL) handover_shut(core);
  if (core->tcp != NULL) tcp_shut(core);
  if (core->udp != NULL) udp_shut(core);
  if (core->wake >= 0) close(core->wake);
  if (core->epoll >= 0) close(core->epoll);
  free(core->slots);
  free(core->free_now);
  free(core->free_later);
  free(core);
}

int core_epoll(const struct core *core) {
  return core->epoll;
}

void core_wake(struct core *core) {
  if (core->woken) return;
  const uint64_t one = 1;
  /* Only a full counter is refused, and such an eventfd is readable. */
  core->woken = write(core->wake, &one, sizeof one) > 0;
}

static void dispatch(struct core *core, uint64_t tag, uint32_t epoll_events) {
  if (tag == wake_tag) {
    core->woken = false;
    return;
  }
  int number = (int)(uint32_t)tag;
  const struct slot *slot = slot_at(core, number);
  if (slot == NULL || slot->generation != (uint32_t)(tag >> 32)) return;
  if (slot->kind < SLOT_UDP_LISTENER) tcp_event(core, number, epoll_events);
  else if (slot->kind < SLOT_HANDOVER) udp_event(core, number, epoll_events);
  else handover_event(core, number);
}

static bool has_more(const struct core *core) {
  return tcp_has_more(core) || udp_has_more(core);
}

int core_poll(struct core *core, int timeout_ms) {
  while (core->free_later_count > 0) core->free_now[core->free_count++] = core->free_later[--core->free_later_count];
  core->event_count = 0;
  core->arena_used = 0;
  struct epoll_event ready[EPOLL_BATCH];
  int count = epoll_wait(core->epoll, ready, EPOLL_BATCH, timeout_ms);
  core->now_ms = core_now();
  /* Without room for an event tcp.c and udp.c remember what the edge said, so none is lost here. */
  for (int i = 0; i < count; i++) dispatch(core, ready[i].data.u64, ready[i].events);
  /* Datagrams first: they are lost where they wait for long. */
  udp_more(core);
  tcp_more(core);
  if (has_more(core)) core_wake(core);
  core->was_idle = count <= 0;
  return core->event_count;
}

int core_was_idle(const struct core *core) {
  return core->was_idle;
}

static int option(int fd, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  return getsockopt(fd, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
}

/* Whatever else a descriptor may be: events and calls of it would mean something else. */
static bool is_ip_socket(int fd, bool is_udp) {
  int family = option(fd, SO_DOMAIN);
  if (family != AF_INET && family != AF_INET6) return false;
  return is_udp ? option(fd, SO_PROTOCOL) == IPPROTO_UDP : option(fd, SO_TYPE) == SOCK_STREAM;
}

int core_adopt(struct core *core, int fd, int is_udp, struct counters *counters) {
  if (!is_ip_socket(fd, is_udp)) {
    close(fd);
    return -EINVAL;
  }
  return is_udp ? udp_adopt(core, fd, counters) : tcp_adopt(core, fd);
}

int core_local(struct core *core, int number, struct endpoint *local) {
  const struct slot *slot = slot_at(core, number);
  if (slot == NULL) return -EBADF;
  struct sockaddr_storage address;
  socklen_t length = sizeof address;
  if (getsockname(slot->fd, (struct sockaddr *)&address, &length) != 0) return -errno;
  endpoint_from_sockaddr(local, &address);
  return 0;
}

void core_close(struct core *core, int number, int reset) {
  const struct slot *slot = slot_at(core, number);
  if (slot == NULL) return;
  if (slot->kind < SLOT_UDP_LISTENER) tcp_close_slot(core, number, reset);
  else if (slot->kind < SLOT_HANDOVER) udp_close_slot(core, number);
  else handover_close_slot(core, number);
}

int core_fallbacks(const struct core *core) {
  return core->fallbacks;
}
