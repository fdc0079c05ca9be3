/*
 * What the kernel may say of datagrams, and more: recvmmsg, sendmmsg, sendmsg, send and epoll_wait answer as the input
 * has it: lengths, trains, control messages that are cut, foreign or wrong, senders, errors, half-done calls. Nothing
 * is read but what was received (the rest of a buffer is poisoned), no message is sent that the kernel would not take
 * as meant.
 *
 * As long as an input has no failures and no nonsense it is held to the order, too: the payloads of each client and of
 * each upstream are streams of bytes in which every datagram begins with MARK; all of it must go on or be shown, once
 * and in order.
 */
#include "fuzz.h"

#include <netinet/udp.h>
#include <sanitizer/asan_interface.h>

/* What looks at each byte would be most of what the fuzzer measures. */
#define NO_COVERAGE __attribute__((no_sanitize("coverage")))

enum { MARK = 255, PEERS = 6, LOCALS = 3, LISTENERS = 2, KEYS = LISTENERS * PEERS * LOCALS, MAX_STEPS = 64, MOST_IN_TRAIN = 200 };

/* Received so far, and passed on or shown so far. */
struct stream {
  uint32_t bytes[2], datagrams[2];
};

static struct rig {
  struct input input;
  struct core *core;
  bool is_ipv6, is_lossy;
  int listeners[LISTENERS];
  int flow_of[KEYS];
  struct stream to_upstream[KEYS], to_client[KEYS];
  size_t budget; /* bytes that may still be received */
} rig;

enum { CAME, WENT };

static void lossy(void) {
  rig.is_lossy = true;
}

/* Streams */

static NO_COVERAGE uint8_t next_byte(struct stream *stream, int way) {
  return (uint8_t)(stream->bytes[way]++ % MARK);
}

static NO_COVERAGE void came(struct stream *stream, uint8_t *data, size_t length) {
  stream->datagrams[CAME]++;
  for (size_t i = 0; i < length; i++) data[i] = i == 0 ? MARK : next_byte(stream, CAME);
}

static NO_COVERAGE void went(struct stream *stream, const uint8_t *data, size_t length) {
  stream->datagrams[WENT]++;
  for (size_t i = 0; i < length; i++) {
    uint8_t expected = i == 0 ? MARK : next_byte(stream, WENT);
    CHECK(data[i] == expected || rig.is_lossy);
  }
}

/* Who is who: a peer by its port, a local address by its last byte. */

static struct endpoint address(uint8_t last, uint16_t port) {
  if (!rig.is_ipv6) return ipv4(0x7f000000 | last, port);
  return (struct endpoint){.address = {[0] = 0xfd, [15] = last}, .port = port};
}

static uint16_t port_of(uint32_t peer) {
  return (uint16_t)(peer == 0 ? 0 : 1000 + peer);
}

static int key_of(int listener, uint16_t port, uint8_t local) {
  CHECK(listener < LISTENERS && port > 1000 && port < 1000 + PEERS && local < LOCALS);
  return (listener * PEERS + port - 1000) * LOCALS + local;
}

static int listener_of(int slot) {
  int listener = 0;
  while (listener < LISTENERS && rig.listeners[listener] != slot) listener++;
  return listener;
}

static const struct slot *slot_of_fd(int fd) {
  for (int i = 0; i < SLOTS; i++)
    if (rig.core->slots[i].kind != SLOT_FREE && rig.core->slots[i].fd == fd) return &rig.core->slots[i];
  return NULL;
}

static int key_of_flow(const struct flow *flow) {
  int key = 0;
  while (key < KEYS && rig.flow_of[key] != flow->slot) key++;
  return key;
}

/* What is received */

static void put_control(struct msghdr *message, size_t room, int level, int type, const void *data, size_t length) {
  struct cmsghdr control = {.cmsg_level = level, .cmsg_type = type, .cmsg_len = CMSG_LEN(length)};
  size_t left = room > message->msg_controllen ? room - message->msg_controllen : 0;
  if (left < sizeof control) return;
  uint8_t *at = (uint8_t *)message->msg_control + message->msg_controllen;
  if (control.cmsg_len > left) control.cmsg_len = left, message->msg_flags |= MSG_CTRUNC;
  memcpy(at, &control, sizeof control);
  memcpy(at + sizeof control, data, control.cmsg_len - sizeof control);
  message->msg_controllen += CMSG_SPACE(length) < left ? CMSG_SPACE(length) : left;
}

static void put_local(struct msghdr *message, size_t room, uint8_t local) {
  struct endpoint at = address(local, 0);
  struct in_pktinfo info = {.ipi_ifindex = 1};
  struct in6_pktinfo info6 = {.ipi6_ifindex = 1};
  memcpy(&info.ipi_spec_dst, at.address + 12, 4);
  memcpy(&info6.ipi6_addr, at.address, 16);
  if (rig.is_ipv6) put_control(message, room, IPPROTO_IPV6, IPV6_PKTINFO, &info6, sizeof info6);
  else put_control(message, room, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
}

/* Anything: what is known too short or twice, what is foreign, sizes of trains that cannot be. */
static void put_nonsense(struct msghdr *message, size_t room) {
  static const int kinds[][2] = {{IPPROTO_UDP, UDP_GRO},       {IPPROTO_IP, IP_PKTINFO},      {IPPROTO_IPV6, IPV6_PKTINFO},
                                 {SOL_SOCKET, SO_TIMESTAMPNS}, {IPPROTO_UDP, IP_PKTINFO}, {IPPROTO_IP, UDP_GRO}};
  lossy();
  if (take(&rig.input, 1) & 1) room = take(&rig.input, 1) % (room + 1);
  for (uint32_t count = 1 + take(&rig.input, 1) % 3; count > 0; count--) {
    const int *kind = kinds[take(&rig.input, 1) % 6];
    int data[8];
    for (int i = 0; i < 8; i++) data[i] = (int)take(&rig.input, i == 0 ? 4 : 1);
    put_control(message, room, kind[0], kind[1], data, take(&rig.input, 1) % sizeof data);
  }
}

static uint32_t length_of(uint32_t choice) {
  static const uint32_t lengths[] = {0, 1, 2, 100, 1200, 1472, 9000, 65507, 65535};
  uint32_t length = choice < 9 ? lengths[choice] : choice < 128 ? choice : take(&rig.input, 2);
  return length < rig.budget ? length : 0;
}

static NO_COVERAGE void datagrams_came(struct stream *stream, uint8_t *data, uint32_t length, uint32_t each) {
  uint32_t at = 0;
  do {
    uint32_t size = length - at < each ? length - at : each;
    if (stream != NULL) came(stream, data + at, size);
    at += size;
  } while (at < length);
}

static void receive_one(struct mmsghdr *into, const struct slot *slot) {
  struct msghdr *message = &into->msg_hdr;
  struct iovec *piece = message->msg_iov;
  size_t room = message->msg_controllen;
  CHECK(message->msg_iovlen == 1 && piece->iov_len >= 65535 && room == sizeof(union control));
  ASAN_UNPOISON_MEMORY_REGION(piece->iov_base, piece->iov_len);
  ASAN_UNPOISON_MEMORY_REGION(message->msg_control, room);
  message->msg_controllen = 0;
  message->msg_flags = 0;
  bool is_client = slot->kind == SLOT_UDP_LISTENER;
  uint32_t who = take(&rig.input, 1), peer = who % PEERS, local = who / PEERS % LOCALS, odd = take(&rig.input, 1);
  uint32_t length = length_of(take(&rig.input, 1));
  const struct listener *listener = is_client ? slot->state : NULL;
  struct endpoint from = address(9, port_of(peer));
  message->msg_namelen = endpoint_to_sockaddr(&from, message->msg_name);
  if (odd == 1) ((struct sockaddr *)message->msg_name)->sa_family = AF_UNIX;
  if (odd == 2) message->msg_flags |= MSG_TRUNC;
  uint32_t each = odd & 8 && length > 1 ? 1 + take(&rig.input, 2) % length : length;
  if (is_client && listener->is_wildcard) put_local(message, room, (uint8_t)local);
  if (each < length / MOST_IN_TRAIN) each = length / MOST_IN_TRAIN;
  int train = (int)each;
  if (each < length || odd & 16) put_control(message, room, IPPROTO_UDP, UDP_GRO, &train, sizeof train);
  if (odd > 240) put_nonsense(message, room);
  if (odd == 1) lossy();
  rig.budget -= length;
  into->msg_len = length;
  struct stream *stream = NULL;
  if (!is_client) {
    int key = key_of_flow(slot->state);
    if (key < KEYS) stream = &rig.to_client[key];
  } else if (peer > 0 && listener_of(listener->slot) < LISTENERS) {
    uint8_t known = listener->is_wildcard ? (uint8_t)local : 1;
    stream = &rig.to_upstream[key_of(listener_of(listener->slot), port_of(peer), known)];
  }
  datagrams_came(stream, piece->iov_base, length, each);
  ASAN_POISON_MEMORY_REGION((uint8_t *)piece->iov_base + length, piece->iov_len - length);
  ASAN_POISON_MEMORY_REGION((uint8_t *)message->msg_control + message->msg_controllen, room - message->msg_controllen);
}

static int failure(void) {
  static const int errors[] = {EAGAIN, ECONNREFUSED, EHOSTUNREACH, EMSGSIZE, ENOBUFS, EIO, EINVAL, EINTR, EPERM};
  lossy();
  errno = errors[take(&rig.input, 1) % (sizeof errors / sizeof *errors)];
  return -1;
}

int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned room, int flags, struct timespec *timeout);
int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned room, int flags, struct timespec *timeout) {
  const struct slot *slot = slot_of_fd(fd);
  CHECK(slot != NULL && room > 0 && room <= BATCH && flags == MSG_DONTWAIT && timeout == NULL);
  uint32_t count = take(&rig.input, 1);
  if (count > 250) return failure();
  if (count > 200) count = room;
  if (count == 0 || rig.input.left == 0) {
    errno = EAGAIN;
    return -1;
  }
  if (count > room) count = room;
  for (uint32_t i = 0; i < count; i++) receive_one(&messages[i], slot);
  return (int)count;
}

/* What is sent */

/* The size of a train's datagrams, or 0. Only what is known may be in it, whole. */
static uint32_t check_control(const struct msghdr *message) {
  uint16_t each = 0;
  CHECK(message->msg_controllen <= sizeof(union control));
  for (struct cmsghdr *control = message->msg_controllen ? CMSG_FIRSTHDR(message) : NULL; control != NULL;
       control = CMSG_NXTHDR((struct msghdr *)message, control)) {
    if (control->cmsg_level == IPPROTO_UDP) {
      CHECK(control->cmsg_type == UDP_SEGMENT && control->cmsg_len == CMSG_LEN(sizeof each) && each == 0);
      memcpy(&each, CMSG_DATA(control), sizeof each);
      CHECK(each > 0);
    } else if (control->cmsg_level == IPPROTO_IPV6) {
      CHECK(control->cmsg_type == IPV6_PKTINFO && control->cmsg_len == CMSG_LEN(sizeof(struct in6_pktinfo)));
    } else {
      CHECK(control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO);
      CHECK(control->cmsg_len == CMSG_LEN(sizeof(struct in_pktinfo)));
    }
  }
  return each;
}

static size_t gather(const struct msghdr *message, uint8_t *to, size_t room) {
  size_t length = 0;
  for (size_t i = 0; i < message->msg_iovlen; i++) {
    const struct iovec *piece = &message->msg_iov[i];
    CHECK(piece->iov_len <= room - length);
    memcpy(to + length, piece->iov_base, piece->iov_len);
    length += piece->iov_len;
  }
  return length;
}

/* Whose answer it is can be told by the receiver's port alone, if it has one flow only. */
static struct stream *stream_of_answer(const struct slot *slot, const struct msghdr *message) {
  struct sockaddr_storage name = {0};
  struct endpoint to;
  struct stream *found = NULL;
  CHECK(message->msg_name != NULL);
  memcpy(&name, message->msg_name, message->msg_namelen);
  endpoint_from_sockaddr(&to, &name);
  for (uint8_t local = 0; local < LOCALS; local++) {
    if (to.port <= 1000 || to.port >= 1000 + PEERS) break;
    int key = key_of(listener_of(((const struct listener *)slot->state)->slot), to.port, local);
    if (rig.to_client[key].datagrams[CAME] == 0) continue;
    if (found != NULL) return NULL;
    found = &rig.to_client[key];
  }
  return found;
}

static void check_message(int fd, const struct msghdr *message, bool is_sent) {
  static uint8_t data[TRAIN_BYTES + 8192];
  const struct slot *slot = slot_of_fd(fd);
  CHECK(slot != NULL);
  uint32_t each = check_control(message);
  size_t length = gather(message, data, sizeof data), header = 0;
  CHECK(each == 0 || (length > each && length <= TRAIN_BYTES && (length + each - 1) / each <= TRAIN_DATAGRAMS));
  if (!is_sent) return;
  struct stream *stream = NULL;
  if (slot->kind == SLOT_UDP_LISTENER) stream = stream_of_answer(slot, message);
  else {
    const struct flow *flow = slot->state;
    CHECK(message->msg_name == NULL);
    header = flow->prefix_length;
    if (key_of_flow(flow) < KEYS) stream = &rig.to_upstream[key_of_flow(flow)];
  }
  for (size_t at = 0, size; at < length || (at == 0 && length == 0); at += size) {
    size = each > 0 && length - at > each ? each : length - at;
    CHECK(size >= header);
    for (size_t i = 0; i < header; i++) CHECK(data[at + i] == 'p');
    if (stream != NULL) went(stream, data + at + header, size - header);
    if (size == 0) break;
  }
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags) {
  CHECK(flags == MSG_DONTWAIT);
  bool fails = take(&rig.input, 1) > 128;
  check_message(fd, message, !fails);
  return fails ? failure() : 1;
}

ssize_t __wrap_send(int fd, const void *data, size_t length, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t length, int flags) {
  struct iovec piece = {(void *)data, length};
  return __wrap_sendmsg(fd, &(struct msghdr){.msg_iov = &piece, .msg_iovlen = 1}, flags);
}

int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
  CHECK(count > 0 && count <= BATCH && flags == MSG_DONTWAIT);
  uint32_t choice = take(&rig.input, 1);
  if (choice > 224) return failure();
  if (choice > 128) count = 1 + choice % count;
  for (unsigned i = 0; i < count; i++) check_message(fd, &messages[i].msg_hdr, true);
  return (int)count;
}

/* The caller */

static uint32_t chosen; /* slots that epoll calls ready */

int __wrap_epoll_wait(int epoll, struct epoll_event *ready, int room, int timeout);
int __wrap_epoll_wait(int epoll, struct epoll_event *ready, int room, int timeout) {
  (void)epoll, (void)room, (void)timeout;
  int count = 0;
  /* There is hardly any room left for what is shown. */
  if (chosen & 1u << 15) rig.core->arena_used = ARENA_BYTES - 8 * take(&rig.input, 1);
  for (int i = 0; i < SLOTS; i++) {
    const struct slot *slot = &rig.core->slots[i];
    const struct flow *flow = slot->kind == SLOT_UDP_FLOW ? slot->state : NULL;
    bool is_watched = flow == NULL ? slot->kind == SLOT_UDP_LISTENER : flow->listener != NULL;
    uint64_t tag = (uint32_t)i | (uint64_t)slot->generation << 32;
    if (is_watched && chosen & 1u << i) ready[count++] = (struct epoll_event){.events = EPOLLIN, .data.u64 = tag};
  }
  ready[count++] = (struct epoll_event){.events = EPOLLIN, .data.u64 = UINT64_MAX};
  ready[count++] = (struct epoll_event){.events = EPOLLIN, .data.u64 = 0xfffffff0};
  return count;
}

static void shown(const struct event *event) {
  int listener = listener_of(event->slot);
  if (listener == LISTENERS || event->peer.port <= 1000 || event->peer.port >= 1000 + PEERS) return;
  uint8_t local = event->local.address[15];
  if (local >= LOCALS) return;
  int key = key_of(listener, event->peer.port, local);
  went(&rig.to_upstream[key], fuzz_arena + event->offset, event->length);
  if (rig.flow_of[key] >= 0 || take(&rig.input, 1) & 1) return;
  const struct endpoint upstream = rig.is_ipv6 ? (struct endpoint){.address = {[15] = 1}, .port = 9} : ipv4(0x7f000001, 9);
  rig.flow_of[key] = core_udp_flow(rig.core, event->slot, &event->peer, &event->local, &upstream, NULL, &fuzz_counters);
}

static void poll_core(uint32_t slots) {
  chosen = slots;
  int count = core_poll(rig.core, 0);
  CHECK(count >= 0 && count <= MAX_EVENTS);
  for (int i = 0; i < count; i++) check_event(rig.core, &fuzz_events[i]);
  for (int i = 0; i < count; i++)
    if (fuzz_events[i].kind == EVENT_DATAGRAM) shown(&fuzz_events[i]);
}

static void close_one(int slot) {
  for (int key = 0; key < KEYS; key++)
    if (rig.flow_of[key] == slot) rig.flow_of[key] = NOBODY;
  if (listener_of(slot) < LISTENERS) {
    lossy(); /* what it had received is forgotten */
    rig.listeners[listener_of(slot)] = NOBODY;
  }
  core_close(rig.core, slot, 0);
}

static void set_prefix(int flow) {
  uint32_t length = take(&rig.input, 1) * 20;
  uint8_t *header = aligned_alloc(1, length + 1);
  CHECK(header != NULL);
  memset(header, 'p', length + 1);
  core_udp_prefix(rig.core, flow, header, length);
  free(header);
}

/* Of the datagrams that came, some answers go on. */
static void limit_answers(int slot) {
  lossy();
  const struct reply_budget budget = {take(&rig.input, 1), take(&rig.input, 2), take(&rig.input, 1) % 4, take(&rig.input, 1)};
  core_udp_budget(rig.core, slot, &budget);
}

static void step(void) {
  static const struct endpoint elsewhere = {.address = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 2}, .port = 9};
  uint32_t what = take(&rig.input, 1);
  int slot = (int)(what >> 4) % SLOTS;
  switch (what & 15) {
    case 0: close_one(slot); break;
    case 1: core_udp_inspect(rig.core, slot, (int)take(&rig.input, 1) & 1); break;
    case 2: set_prefix(slot); break;
    case 3: core_udp_connect(rig.core, slot, &elsewhere, NULL); break;
    case 4: limit_answers(slot); break;
    default: poll_core(take(&rig.input, 2)); break;
  }
  check_core(rig.core);
}

/* Strangers wait for room; polls without new datagrams show them all. */
static void finish(void) {
  for (int polls = 0; udp_has_more(rig.core); polls++) {
    CHECK(polls < 65536 / 64);
    poll_core(0);
  }
  for (int key = 0; key < KEYS && !rig.is_lossy; key++) {
    const struct stream *up = &rig.to_upstream[key];
    CHECK(up->bytes[CAME] == up->bytes[WENT] && up->datagrams[CAME] == up->datagrams[WENT]);
  }
}

static int listen_at(struct endpoint at) {
  int slot = core_udp_listen(rig.core, &at, &fuzz_counters);
  CHECK(slot >= 0);
  return slot;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  int open_before = descriptors();
  rig = (struct rig){.input = {data, size}, .budget = 128 * 1024};
  for (int key = 0; key < KEYS; key++) rig.flow_of[key] = NOBODY;
  rig.is_ipv6 = take(&rig.input, 1) & 1;
  rig.core = fuzz_core();
  CHECK(rig.core != NULL);
  rig.listeners[0] = listen_at(rig.is_ipv6 ? (struct endpoint){0} : ipv4(0, 0));
  rig.listeners[1] = listen_at(rig.is_ipv6 ? (struct endpoint){.address = {[15] = 1}} : ipv4(0x7f000001, 0));
  for (int steps = 0; rig.input.left > 0 && steps < MAX_STEPS; steps++) step();
  rig.input.left = 0;
  finish();
  core_shut(rig.core);
  CHECK(descriptors() == open_before);
  return 0;
}
