/*
 * Slots: from a small number to a descriptor and back.
 *
 *   free_now ──slot_open──► open ──slot_close──► free_later ──next core_poll──► free_now
 *
 * Two things keep an event with the socket it belongs to. Epoll carries slot and generation, and closing moves the
 * generation on, so what a batch of epoll still holds about a closed descriptor is recognised. And the caller, who
 * knows slots by number only, has until its next poll before a number means another socket.
 */
#include "table.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void socket_reset(int fd) {
  const struct linger linger = {.l_onoff = 1};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

void close_with_reset(int fd) {
  socket_reset(fd);
  close(fd);
}

static int watch(struct core *core, int slot, int fd, uint32_t generation, uint32_t epoll_events) {
  struct epoll_event event = {.events = epoll_events, .data.u64 = (uint32_t)slot | (uint64_t)generation << 32};
  if (epoll_ctl(core->epoll, EPOLL_CTL_ADD, fd, &event) == 0) return 0;
  int error = errno;
  close_with_reset(fd); /* a client that was accepted must not take it for an empty answer */
  return -error;
}

int slot_open(struct core *core, int fd, enum slot_kind kind, uint32_t epoll_events) {
  if (core->free_count == 0) {
    close_with_reset(fd);
    return -ENFILE;
  }
  int number = core->free_now[core->free_count - 1];
  struct slot *slot = &core->slots[number];
  int error = watch(core, number, fd, slot->generation, epoll_events);
  if (error < 0) return error;
  core->free_count--;
  *slot = (struct slot){.fd = fd, .generation = slot->generation, .kind = (uint8_t)kind};
  core->shared.bytes[number] = core->shared.answer_bytes[number] = 0;
  core->shared.active_ms[number] = core->now_ms;
  core->shared.ended[number] = 0;
  return number;
}

void slot_close(struct core *core, int number) {
  struct slot *slot = &core->slots[number];
  /* Epoll forgets a socket with its last descriptor, and a listener's may be another process's, too. */
  if (slot->kind == SLOT_TCP_LISTENER || slot->kind == SLOT_UDP_LISTENER)
    epoll_ctl(core->epoll, EPOLL_CTL_DEL, slot->fd, NULL);
  close(slot->fd);
  *slot = (struct slot){.fd = -1, .generation = slot->generation + 1, .kind = SLOT_FREE};
  core->free_later[core->free_later_count++] = number;
}

int slot_replace(struct core *core, int number, int fd, uint32_t epoll_events) {
  struct slot *slot = &core->slots[number];
  int error = watch(core, number, fd, slot->generation + 1, epoll_events);
  if (error < 0) return error;
  close(slot->fd);
  slot->fd = fd;
  slot->generation++;
  return 0;
}

struct slot *slot_at(struct core *core, int number) {
  if (number < 0 || number >= core->shared.slots || core->slots[number].kind == SLOT_FREE) return NULL;
  return &core->slots[number];
}

bool event_room(const struct core *core) {
  return core->event_count < MAX_EVENTS;
}

struct event *event_push(struct core *core, enum event_kind kind, int slot, int value) {
  if (!event_room(core)) return NULL;
  struct event *event = &core->shared.events[core->event_count++];
  *event = (struct event){.kind = kind, .slot = slot, .value = value};
  return event;
}

static const uint8_t ipv4_mapped[12] = {[10] = 0xff, [11] = 0xff};

bool endpoint_is_ipv4(const struct endpoint *endpoint) {
  return memcmp(endpoint->address, ipv4_mapped, sizeof ipv4_mapped) == 0;
}

socklen_t endpoint_to_sockaddr(const struct endpoint *endpoint, struct sockaddr_storage *to) {
  memset(to, 0, sizeof *to);
  if (endpoint_is_ipv4(endpoint)) {
    struct sockaddr_in *in = (struct sockaddr_in *)to;
    in->sin_family = AF_INET;
    in->sin_port = htons(endpoint->port);
    memcpy(&in->sin_addr, endpoint->address + 12, 4);
    return sizeof *in;
  }
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)to;
  in6->sin6_family = AF_INET6;
  in6->sin6_port = htons(endpoint->port);
  in6->sin6_scope_id = endpoint->zone;
  memcpy(&in6->sin6_addr, endpoint->address, 16);
  return sizeof *in6;
}

void endpoint_from_sockaddr(struct endpoint *endpoint, const struct sockaddr_storage *from) {
  *endpoint = (struct endpoint){0};
  if (from->ss_family == AF_INET) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)from;
    memcpy(endpoint->address, ipv4_mapped, sizeof ipv4_mapped);
    memcpy(endpoint->address + 12, &in->sin_addr, 4);
    endpoint->port = ntohs(in->sin_port);
  } else if (from->ss_family == AF_INET6) {
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
    memcpy(endpoint->address, &in6->sin6_addr, 16);
    endpoint->port = ntohs(in6->sin6_port);
    /* The kernel fills it for link-local addresses only, where the address means nothing without it. */
    endpoint->zone = in6->sin6_scope_id;
  }
}

bool socket_met_itself(int fd, const struct endpoint *to) {
  struct sockaddr_storage name;
  struct endpoint local;
  socklen_t length = sizeof name;
  if (getsockname(fd, (struct sockaddr *)&name, &length) != 0) return false;
  endpoint_from_sockaddr(&local, &name);
  return local.port == to->port && memcmp(local.address, to->address, sizeof local.address) == 0;
}
