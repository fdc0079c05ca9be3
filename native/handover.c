/*
 * Taking over sockets that other processes have bound: dockerd's launchers (docker-proxy.c).
 *
 *   connect ─► greeting ─► [HANDED] one record with one descriptor ─► caller: core_handover_take, _answer
 *      └─ a stranger, or one too many ─► closed                  └─ end of the connection ─► [HANDED_BACK]
 *
 * A unix socket of records (SOCK_SEQPACKET), for root and this process's own user only. What is not exactly one record
 * with one descriptor ends its connection, and every descriptor that came is closed: what a caller hears of is whole.
 * Connections are watched level-triggered, one record a turn: what is left comes again.
 */
#include "table.h"

#include <errno.h>
#include <limits.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
  ACCEPTS = 64, /* per turn: all launchers of a host come at once when dualport starts again */
  LONGEST_RECORD = 512,
  MOST_DESCRIPTORS = 4, /* that are looked at; the kernel closes what does not fit */
};

/* The protocol's number; those to come are added behind it. */
static const char greeting[] = "dualport 1";

struct handover {
  int spare; /* a descriptor to give up, so that with none left a connection can be accepted and ended */
  int most;
};

struct giver {
  int listener;
  int handed; /* the descriptor, until it is taken; else -1 */
  uint32_t pid;
  bool told;
};

static int open_spare(void) {
  return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* The mode is that of the socket before it has a name, so nobody comes in between. */
static int bound(const char *path, size_t length) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (length == 0 || length >= sizeof address.sun_path) return -ENAMETOOLONG;
  memcpy(address.sun_path, path, length);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (fchmod(fd, S_IRUSR | S_IWUSR) == 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
      listen(fd, INT_MAX /* the kernel cuts it; musl's SOMAXCONN is 128 */) == 0)
    return fd;
  int error = errno;
  close(fd);
  return -error;
}

int core_handover_listen(struct core *core, const char *path, size_t length, int most) {
  struct handover *handover = calloc(1, sizeof *handover);
  if (handover == NULL) return -ENOMEM;
  int fd = bound(path, length);
  int slot = fd < 0 ? fd : slot_open(core, fd, SLOT_HANDOVER, EPOLLIN);
  if (slot < 0) {
    free(handover);
    return slot;
  }
  handover->spare = open_spare();
  handover->most = most;
  core->slots[slot].state = handover;
  return slot;
}

/* ---- who comes ---- */

static bool may_hand_over(int fd, uint32_t *pid) {
  struct ucred peer;
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  *pid = (uint32_t)peer.pid;
  return peer.uid == 0 || peer.uid == geteuid();
}

static void begin(struct core *core, int listener, int fd) {
  const struct handover *handover = core->slots[listener].state;
  uint32_t pid;
  struct giver *giver = NULL;
  if (core->givers < handover->most && may_hand_over(fd, &pid) &&
      send(fd, greeting, sizeof greeting - 1, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
    giver = calloc(1, sizeof *giver);
  if (giver == NULL) {
    close(fd);
    return;
  }
  int slot = slot_open(core, fd, SLOT_GIVER, EPOLLIN);
  if (slot < 0) {
    free(giver);
    return;
  }
  *giver = (struct giver){.listener = listener, .handed = -1, .pid = pid};
  core->slots[slot].state = giver;
  core->givers++;
}

/* Whoever hears the end before a greeting looks for another way; left waiting it would be ready again at once. */
static void turn_away(struct handover *handover, int listener_fd) {
  close(handover->spare);
  int fd = accept4(listener_fd, NULL, NULL, SOCK_CLOEXEC);
  if (fd >= 0) close(fd);
  handover->spare = open_spare();
}

static void accept_batch(struct core *core, int number) {
  int fd = core->slots[number].fd;
  for (int i = 0; i < ACCEPTS; i++) {
    int accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted >= 0) begin(core, number, accepted);
    else if (errno == EMFILE || errno == ENFILE) turn_away(core->slots[number].state, fd);
    else return;
  }
}

/* ---- what they hand over ---- */

struct record {
  char bytes[LONGEST_RECORD];
  ssize_t length;
  int descriptors[MOST_DESCRIPTORS], count;
  bool is_whole;
};

static void keep_descriptors(struct record *record, const struct cmsghdr *header) {
  if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) return;
  size_t bytes = header->cmsg_len - CMSG_LEN(0);
  for (size_t at = 0; at + sizeof(int) <= bytes && record->count < MOST_DESCRIPTORS; at += sizeof(int))
    memcpy(&record->descriptors[record->count++], CMSG_DATA(header) + at, sizeof(int));
}

/* -EAGAIN when there is none; an end of the connection is a record that is not whole. */
static int receive(int fd, struct record *record) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(MOST_DESCRIPTORS * sizeof(int))];
  } control;
  struct iovec piece = {record->bytes, sizeof record->bytes};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  record->count = 0;
  record->length = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (record->length < 0 && (errno == EAGAIN || errno == EINTR)) return -EAGAIN;
  if (record->length >= 0)
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header))
      keep_descriptors(record, header);
  record->is_whole = record->length > 0 && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
  return 0;
}

static void tell(struct core *core, int number, const struct record *record) {
  struct giver *giver = core->slots[number].state;
  struct event *event = event_push(core, EVENT_HANDED, number, giver->listener);
  memcpy(core->shared.arena + core->arena_used, record->bytes, (size_t)record->length);
  event->offset = core->arena_used;
  event->length = (uint32_t)record->length;
  event->pid = giver->pid;
  core->arena_used += (uint32_t)record->length;
  giver->handed = record->descriptors[0];
  giver->told = true;
}

/* Of one that the caller knows the slot stays, and what it handed over; epoll would tell of the end for ever. */
static void end(struct core *core, int number) {
  const struct slot *slot = &core->slots[number];
  const struct giver *giver = slot->state;
  if (!giver->told) return handover_close_slot(core, number);
  epoll_ctl(core->epoll, EPOLL_CTL_DEL, slot->fd, NULL);
  event_push(core, EVENT_HANDED_BACK, number, 0);
}

static void giver_turn(struct core *core, int number) {
  const struct slot *slot = &core->slots[number];
  const struct giver *giver = slot->state;
  struct record record;
  if (!event_room(core) || core->arena_used + LONGEST_RECORD > ARENA_BYTES) return;
  if (receive(slot->fd, &record) == -EAGAIN) return;
  if (record.is_whole && record.count == 1 && !giver->told) return tell(core, number, &record);
  for (int i = 0; i < record.count; i++) close(record.descriptors[i]);
  end(core, number);
}

/* ---- the caller's side ---- */

static struct giver *giver_at(struct core *core, int number) {
  const struct slot *slot = slot_at(core, number);
  return slot != NULL && slot->kind == SLOT_GIVER ? slot->state : NULL;
}

int core_handover_take(struct core *core, int number) {
  struct giver *giver = giver_at(core, number);
  if (giver == NULL || giver->handed < 0) return -EBADF;
  int fd = giver->handed;
  giver->handed = -1;
  return fd;
}

int core_handover_answer(struct core *core, int number, const void *record, size_t length) {
  if (giver_at(core, number) == NULL) return -EBADF;
  return send(core->slots[number].fd, record, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* ---- as core.c calls it ---- */

void handover_event(struct core *core, int number) {
  if (core->slots[number].kind == SLOT_HANDOVER) accept_batch(core, number);
  else giver_turn(core, number);
}

void handover_close_slot(struct core *core, int number) {
  struct slot *slot = &core->slots[number];
  if (slot->kind == SLOT_HANDOVER) {
    close(((struct handover *)slot->state)->spare);
  } else {
    struct giver *giver = slot->state;
    if (giver->handed >= 0) close(giver->handed);
    core->givers--;
  }
  free(slot->state);
  slot_close(core, number);
}

void handover_shut(struct core *core) {
  for (int i = 0; i < core->shared.slots; i++)
    if (core->slots[i].kind >= SLOT_HANDOVER) handover_close_slot(core, i);
}
