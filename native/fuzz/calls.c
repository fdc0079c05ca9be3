/*
 * Any call of core.h at any time, with any number for a slot, on sockets of the kernel: the core's connections go to its
 * own listeners, or come from a few plain sockets. An input may have the n-th system call or allocation fail.
 */
#include "fuzz.h"

#include <limits.h>
#include <sys/un.h>

enum { PLAIN = 4, MAX_CALLS = 96, PLAIN_BYTES = 8 * 65536 };

struct rig {
  struct input input;
  struct core *core;
  int plain[PLAIN];
  int giver; /* a plain connection to the hand-over listener */
};

/* What fails */

static int failing_in, failing_error;

static bool fails(void) {
  if (failing_in == 0 || --failing_in > 0) return false;
  errno = failing_error;
  return true;
}

#define MAY_FAIL(type, name, failure, parameters, ...) \
  type __real_##name parameters;                       \
  type __wrap_##name parameters;                       \
  type __wrap_##name parameters { return fails() ? failure : __real_##name(__VA_ARGS__); }

struct timespec;
MAY_FAIL(void *, malloc, NULL, (size_t size), size)
MAY_FAIL(void *, calloc, NULL, (size_t count, size_t size), count, size)
MAY_FAIL(int, socket, -1, (int family, int type, int protocol), family, type, protocol)
MAY_FAIL(int, setsockopt, -1, (int fd, int level, int name, const void *value, socklen_t length), fd, level, name,
         value, length)
MAY_FAIL(int, bind, -1, (int fd, const void *at, socklen_t length), fd, at, length)
MAY_FAIL(int, connect, -1, (int fd, const void *to, socklen_t length), fd, to, length)
MAY_FAIL(int, accept4, -1, (int fd, void *from, socklen_t *length, int flags), fd, from, length, flags)
MAY_FAIL(int, getsockname, -1, (int fd, void *name, socklen_t *length), fd, name, length)
MAY_FAIL(int, pipe2, -1, (int ends[2], int flags), ends, flags)
MAY_FAIL(int, shutdown, -1, (int fd, int how), fd, how)
MAY_FAIL(ssize_t, recv, -1, (int fd, void *to, size_t length, int flags), fd, to, length, flags)
MAY_FAIL(ssize_t, send, -1, (int fd, const void *from, size_t length, int flags), fd, from, length, flags)
MAY_FAIL(ssize_t, sendmsg, -1, (int fd, const void *message, int flags), fd, message, flags)
MAY_FAIL(ssize_t, recvmsg, -1, (int fd, void *message, int flags), fd, message, flags)
MAY_FAIL(ssize_t, splice, -1, (int from, void *at, int to, void *to_at, size_t length, unsigned flags), from, at, to,
         to_at, length, flags)
MAY_FAIL(int, recvmmsg, -1, (int fd, void *to, unsigned count, int flags, struct timespec *timeout), fd, to, count,
         flags, timeout)
MAY_FAIL(int, sendmmsg, -1, (int fd, void *from, unsigned count, int flags), fd, from, count, flags)

int __real_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
  /* Taking out what is in never fails. */
  return operation != EPOLL_CTL_DEL && fails() ? -1 : __real_epoll_ctl(epoll, operation, fd, event);
}

static void fail_once(struct rig *rig) {
  static const int errors[] = {ENOMEM, EMFILE, EAGAIN, EINTR, ECONNRESET, ECONNREFUSED, EINVAL, EPERM, EPIPE, EIO, EMSGSIZE};
  failing_in = 1 + (int)take(&rig->input, 1) % 32;
  failing_error = errors[take(&rig->input, 1) % (sizeof errors / sizeof *errors)];
}

/* Arguments */

static bool flag(struct rig *rig) {
  return take(&rig->input, 1) & 1;
}

/* Most often one that is open and of this kind. */
static int slot(struct rig *rig, enum slot_kind kind) {
  static const int odd[] = {-1, SLOTS, INT_MAX, INT_MIN};
  uint32_t choice = take(&rig->input, 1);
  if (choice >= 0xf0) return odd[choice % 4];
  if (choice >= 0xc0) return (int)choice % SLOTS;
  for (int i = 0; i < SLOTS; i++) {
    int number = (int)(choice + (uint32_t)i) % SLOTS;
    if (rig->core->slots[number].kind == kind) return number;
  }
  return (int)choice % SLOTS;
}

/* Where to: a socket of the core, or wherever the input says. */
static struct endpoint somewhere(struct rig *rig, enum slot_kind kind) {
  struct endpoint at;
  if (core_local(rig->core, slot(rig, kind), &at) == 0) return at;
  static const uint32_t hosts[] = {0x7f000001, 0, 0xffffffff, 0xe0000001, 0x7f000002, 0x0a000001};
  uint32_t choice = take(&rig->input, 1);
  at = ipv4(hosts[choice % 6], choice & 0x40 ? (uint16_t)take(&rig->input, 2) : 0);
  if (!(choice & 0x80)) return at;
  at = (struct endpoint){.port = at.port, .address = {[15] = choice & 1}, .zone = choice & 0x20 ? choice : 0};
  if (choice & 0x10) at.address[0] = 0xfe, at.address[1] = 0x80;
  return at;
}

/* From where: any address, of whichever family and kind. */
static const struct source *source(struct rig *rig, struct source *from) {
  *from = (struct source){.at = somewhere(rig, SLOT_FREE), .kind = (int)take(&rig->input, 1) % 4};
  return from;
}

static struct counters *counters(struct rig *rig) {
  return flag(rig) ? &fuzz_counters : NULL;
}

/* As many bytes as asked for, in a block of just that size. */
static uint8_t *block(size_t size) {
  uint8_t *bytes = aligned_alloc(1, size > 0 ? size : 1); /* which never fails here */
  CHECK(bytes != NULL);
  memset(bytes, 'x', size > 0 ? size : 1);
  return bytes;
}

static size_t size_of(struct rig *rig) {
  uint32_t size = take(&rig->input, 2);
  return size & 1 ? size : size % 64;
}

/* Plain sockets */

/* So that one turn finds enough to splice. */
static void widen(int fd) {
  const int bytes = 4 * PLAIN_BYTES;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
}

static int listen_at(struct rig *rig, const struct endpoint *at) {
  int listener = core_tcp_listen(rig->core, at, 16);
  if (listener >= 0) widen(rig->core->slots[listener].fd); /* those it accepts, too */
  return listener;
}

static void plain_connect(struct rig *rig, int *fd, int type) {
  struct endpoint to = somewhere(rig, type == SOCK_STREAM ? SLOT_TCP_LISTENER : SLOT_UDP_LISTENER);
  struct sockaddr_storage name;
  socklen_t length = endpoint_to_sockaddr(&to, &name);
  if (*fd != NOBODY) close(*fd);
  *fd = socket(name.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (*fd < 0) return;
  widen(*fd);
  (void)!connect(*fd, (struct sockaddr *)&name, length);
}

static void plain_call(struct rig *rig) {
  int *fd = &rig->plain[take(&rig->input, 1) % PLAIN];
  uint32_t call = take(&rig->input, 1) % 7;
  uint8_t *bytes = block(PLAIN_BYTES);
  if (call < 2) plain_connect(rig, fd, call == 0 ? SOCK_STREAM : SOCK_DGRAM);
  else if (*fd == NOBODY) plain_connect(rig, fd, SOCK_STREAM);
  else if (call == 2) (void)!send(*fd, bytes, 8 * size_of(rig), MSG_NOSIGNAL);
  else if (call == 3) (void)!recv(*fd, bytes, PLAIN_BYTES, 0);
  else if (call == 4) shutdown(*fd, SHUT_WR);
  else {
    if (call == 5) socket_reset(*fd);
    close(*fd);
    *fd = NOBODY;
  }
  free(bytes);
}

/* In the abstract namespace: it begins with a zero byte and needs no file. */
static struct sockaddr_un handover_name(void) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "dualport-fuzz-%d", getpid());
  return name;
}

/* Records of any length with any number of descriptors, wanted or not. */
static void give(struct rig *rig) {
  uint32_t what = take(&rig->input, 1);
  int fds[8];
  size_t count = what % 8;
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof fds)];
  } control = {0};
  struct iovec piece = {block(1024), what & 8 ? size_of(rig) % 1024 : 20};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  for (size_t i = 0; i < count; i++) fds[i] = rig->giver;
  if (count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof *fds);
    *CMSG_FIRSTHDR(&message) = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN(count * sizeof *fds);
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), fds, count * sizeof *fds);
  }
  (void)!__real_sendmsg(rig->giver, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  free(piece.iov_base);
}

static void giver_call(struct rig *rig) {
  struct sockaddr_un name = handover_name();
  if (rig->giver != NOBODY && !flag(rig)) return give(rig);
  if (rig->giver != NOBODY) close(rig->giver);
  rig->giver = __real_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  CHECK(rig->giver >= 0);
  (void)!__real_connect(rig->giver, &name, sizeof name);
}

static int handover_call(struct rig *rig) {
  struct core *core = rig->core;
  struct sockaddr_un name = handover_name();
  uint8_t *bytes = block(64);
  int result = 0;
  switch (take(&rig->input, 1) % 6) {
    case 0: result = core_handover_listen(core, name.sun_path, sizeof name.sun_path - 1, 3); break;
    case 1: result = core_handover_take(core, slot(rig, SLOT_GIVER)); if (result >= 0) result = core_adopt(core, result, flag(rig), counters(rig)); break;
    case 2: result = core_handover_answer(core, slot(rig, SLOT_GIVER), bytes, 64); break;
    case 3: core_close(core, slot(rig, flag(rig) ? SLOT_GIVER : SLOT_HANDOVER), flag(rig)); break;
    default: giver_call(rig); break;
  }
  free(bytes);
  return result;
}

/* Any kind of socket, in any state. */
static int adopted(struct rig *rig) {
  uint32_t what = take(&rig->input, 1);
  if (what & 16) return handover_call(rig);
  int type = (what & 1 ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
  int fd = what & 8 ? open("/dev/null", O_RDWR | O_CLOEXEC) : socket(what & 2 ? AF_INET6 : AF_INET, type, 0);
  if (what & 4) listen(fd, 4); /* binds it, too */
  return core_adopt(rig->core, fd, flag(rig), counters(rig));
}

/* One of two sockets of an address; the other is somebody else's. */
static int grouped(struct rig *rig) {
  struct endpoint at = somewhere(rig, SLOT_FREE);
  int fds[2], is_udp = flag(rig);
  int result = core_bind_group(&at, is_udp, 16, fds, 2);
  if (result < 0) return result;
  close(fds[1]);
  return core_adopt(rig->core, fds[0], is_udp, counters(rig));
}

/* Calls */

static void poll_core(struct rig *rig) {
  int count = core_poll(rig->core, 0);
  CHECK(count >= 0 && count <= MAX_EVENTS && count == rig->core->event_count);
  for (int i = 0; i < count; i++) check_event(rig->core, &fuzz_events[i]);
}

static int relay(struct rig *rig, uint8_t *bytes, size_t size) {
  int client = slot(rig, SLOT_TCP_CLIENT), upstream = slot(rig, SLOT_TCP_UPSTREAM);
  size_t payload = size > 3 ? size - 3 : 0;
  return core_relay(rig->core, client, upstream, bytes, size, payload, flag(rig), counters(rig));
}

static int flow(struct rig *rig, bool bound) {
  int listener = slot(rig, SLOT_UDP_LISTENER);
  struct endpoint peer = somewhere(rig, SLOT_UDP_FLOW), local = somewhere(rig, SLOT_UDP_LISTENER);
  struct endpoint upstream = somewhere(rig, SLOT_UDP_LISTENER);
  struct source from;
  const struct source *bind_to = bound ? source(rig, &from) : NULL;
  return core_udp_flow(rig->core, listener, &peer, &local, &upstream, bind_to, counters(rig));
}

static int connects(struct rig *rig, bool bound) {
  struct endpoint to = somewhere(rig, SLOT_TCP_LISTENER);
  struct source from;
  return core_connect(rig->core, &to, bound ? source(rig, &from) : NULL);
}

static int connects_flow(struct rig *rig, bool bound) {
  struct endpoint to = somewhere(rig, SLOT_UDP_LISTENER);
  int number = slot(rig, SLOT_UDP_FLOW);
  struct source from;
  return core_udp_connect(rig->core, number, &to, bound ? source(rig, &from) : NULL);
}

static int with_bytes(struct rig *rig, uint32_t call) {
  struct core *core = rig->core;
  size_t size = size_of(rig);
  uint8_t *bytes = size == 0 ? NULL : block(size);
  int result = 0;
  switch (call % 5) {
    case 0: result = relay(rig, bytes, size); break;
    case 1: result = core_read(core, slot(rig, SLOT_TCP_CLIENT), bytes, size); break;
    case 2: result = core_write(core, slot(rig, SLOT_TCP_UPSTREAM), bytes, size); break;
    case 3: result = core_udp_prefix(core, slot(rig, SLOT_UDP_FLOW), bytes, size); break;
    case 4: result = core_udp_send(core, slot(rig, SLOT_UDP_FLOW), bytes, size, bytes, size); break;
  }
  free(bytes);
  return result;
}

static int one_call(struct rig *rig) {
  struct core *core = rig->core;
  struct endpoint at;
  uint32_t choice = take(&rig->input, 1), call = choice % 24;
  bool bound = choice >= 192;
  switch (call) {
    case 0: fail_once(rig); return 0;
    case 1: at = somewhere(rig, SLOT_FREE); return listen_at(rig, &at);
    case 2: at = somewhere(rig, SLOT_FREE); return core_udp_listen(core, &at, counters(rig));
    case 3: return connects(rig, bound);
    case 4: core_close(core, slot(rig, (enum slot_kind)(take(&rig->input, 1) % 7)), flag(rig)); return 0;
    case 5: return core_relay_abort(core, slot(rig, SLOT_TCP_RELAY));
    case 6: return core_accepting(core, slot(rig, SLOT_TCP_LISTENER), flag(rig));
    case 7: return flow(rig, bound);
    case 8: return connects_flow(rig, bound);
    case 9: return core_udp_inspect(core, slot(rig, flag(rig) ? SLOT_UDP_FLOW : SLOT_UDP_LISTENER), flag(rig));
    case 10: return adopted(rig);
    case 11: case 12: case 13: plain_call(rig); return 0;
    case 14: case 15: case 16: case 17: case 18: return with_bytes(rig, call);
    case 19: return grouped(rig);
    default: poll_core(rig); return 0;
  }
}

static void play(struct rig *rig) {
  for (int calls = 0; rig->input.left > 0 && calls < MAX_CALLS; calls++) {
    int result = one_call(rig);
    CHECK(result >= -4095);
    check_core(rig->core);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct rig rig = {.input = {data, size}, .plain = {NOBODY, NOBODY, NOBODY, NOBODY}, .giver = NOBODY};
  int open_before = descriptors();
  if (flag(&rig)) fail_once(&rig);
  rig.core = fuzz_core();
  if (rig.core != NULL) {
    play(&rig);
    failing_in = 0;
    core_shut(rig.core);
  }
  failing_in = 0;
  for (int i = 0; i < PLAIN; i++)
    if (rig.plain[i] != NOBODY) close(rig.plain[i]);
  if (rig.giver != NOBODY) close(rig.giver);
  CHECK(descriptors() == open_before);
  return 0;
}
