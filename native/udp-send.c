/*
 * Datagrams out, in as few and as large messages as their order allows. Most of the cost of UDP is the way of each
 * message through the kernel, and a train (UDP_SEGMENT) goes it once: 64 datagrams cost 0.9 µs each instead of 2.8.
 * Whoever receives them need not know of trains (platform/gso-gro-loopback.c).
 *
 *   arrivals of a flow ─► parcels ─► one sendmmsg
 *
 * Consecutive datagrams of one size share a parcel, whether they came as a train or one by one; the last may be
 * shorter. An empty one is a parcel of its own, in a train it would vanish. Nothing ever waits for a train to grow.
 *
 * A connected socket reports an ICMP message about an earlier datagram instead of sending the next one, so whatever
 * fails is tried again. Of several refusals within one sendmmsg some go untold, the last one never: it stays in the
 * socket, where receiving finds it.
 */
#include "udp.h"

#include <errno.h>
#include <netinet/udp.h>
#include <string.h>

/* ---- what could not be sent ---- */

/* Without room it goes untold: the upstream will refuse the next datagram as well. */
void refused(struct core *core, struct flow *flow, int error) {
  if (event_push(core, EVENT_REFUSED, flow->slot, error) != NULL) flow->answered = false;
}

static bool is_queue_full(int error) {
  return error == EAGAIN || error == ENOBUFS;
}

/* The device, the route or the kernel takes no trains, or none with datagrams of this size. */
static bool is_train_refusal(int error) {
  return error == EIO || error == EINVAL || error == EMSGSIZE || error == ENOPROTOOPT || error == EOPNOTSUPP;
}

static bool is_about_upstream(const struct outbox *out, unsigned datagrams, int error) {
  bool about_size = error == EMSGSIZE || (datagrams > 1 && is_train_refusal(error));
  return out->direction == TO_UPSTREAM && !about_size && !is_queue_full(error);
}

static void lost(const struct outbox *out, const struct parcel *parcel, int error, unsigned datagrams) {
  struct counters *counters = parcel->flow->counters;
  if (counters == NULL) return;
  if (error == EMSGSIZE) count(counters, counters->dropped_oversize, datagrams);
  else if (out->direction == TO_CLIENT || is_queue_full(error)) count(counters, counters->dropped_queue, datagrams);
}

static int send_one(int fd, const struct msghdr *message) {
  return sendmsg(fd, message, MSG_DONTWAIT) < 0 ? errno : 0;
}

/* ---- control messages ---- */

static void put_control(struct msghdr *message, int level, int type, const void *data, size_t length) {
  struct cmsghdr *control = (struct cmsghdr *)((uint8_t *)message->msg_control + message->msg_controllen);
  *control = (struct cmsghdr){.cmsg_level = level, .cmsg_type = type, .cmsg_len = CMSG_LEN(length)};
  memcpy(CMSG_DATA(control), data, length);
  message->msg_controllen += CMSG_SPACE(length);
}

/*
 * Answers leave from the address the client dialled (platform/pktinfo-wildcard.c). By which interface is the
 * kernel's choice, but for link-local addresses.
 */
static void put_source(struct msghdr *message, const struct flow *flow) {
  const struct endpoint *local = &flow->key.local;
  static const uint8_t none[16];
  if (!flow->listener->is_wildcard || memcmp(local->address, none, sizeof none) == 0) return;
  if (flow->listener->is_ipv6) {
    struct in6_pktinfo info = {.ipi6_ifindex = local->zone};
    memcpy(&info.ipi6_addr, local->address, sizeof info.ipi6_addr);
    put_control(message, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
  } else {
    struct in_pktinfo info = {0};
    memcpy(&info.ipi_spec_dst, local->address + 12, sizeof info.ipi_spec_dst);
    put_control(message, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
  }
}

static void address_message(struct msghdr *message, enum direction direction, struct flow *flow) {
  message->msg_controllen = 0;
  if (direction == TO_UPSTREAM) return; /* its socket is connected */
  message->msg_name = &flow->peer_name;
  message->msg_namelen = flow->peer_name_length;
  put_source(message, flow);
}

/* ---- trains that were refused ---- */

/* The next `size` bytes: of one piece, or of a header and the payload behind it. Returns how many pieces. */
static unsigned cut(struct iovec **from, size_t *offset, size_t size, struct iovec datagram[2]) {
  unsigned pieces = 0;
  while (size > 0) {
    size_t left = (*from)->iov_len - *offset;
    size_t taken = size < left ? size : left;
    if (taken > 0) datagram[pieces++] = (struct iovec){(uint8_t *)(*from)->iov_base + *offset, taken};
    size -= taken;
    *offset += taken;
    if (*offset < (*from)->iov_len) continue;
    (*from)++;
    *offset = 0;
  }
  return pieces;
}

/* Returns 0 if any of them passed, else why the last did not. */
static int send_singly(const struct outbox *out, const struct parcel *parcel, struct msghdr message) {
  struct iovec datagram[2], *from = message.msg_iov;
  size_t offset = 0;
  int error = 0;
  bool passed = false;
  address_message(&message, out->direction, parcel->flow);
  message.msg_iov = datagram;
  for (uint32_t left = parcel->bytes, size; left > 0; left -= size) {
    size = left < parcel->each ? left : parcel->each;
    message.msg_iovlen = cut(&from, &offset, size, datagram);
    error = send_one(out->fd, &message);
    if (error == 0) passed = true;
    else lost(out, parcel, error, 1);
  }
  return passed ? 0 : error;
}

/* For this flow. EMSGSIZE is about one size on one path, and says nothing of what can be done here. */
static void do_without_trains(struct core *core, enum direction direction, const struct parcel *parcel, int error) {
  parcel->flow->largest_in_train[direction] = error == EMSGSIZE ? (uint16_t)(parcel->each - 1) : 0;
  if (error != EMSGSIZE) core->fallbacks |= FALLBACK_GSO;
}

/* Trains are to blame only where single datagrams pass. */
static void part_train(struct core *core, const struct outbox *out, unsigned at, int train_error) {
  const struct parcel *parcel = &out->parcels[at];
  int error = send_singly(out, parcel, out->messages[at].msg_hdr);
  if (error == 0) do_without_trains(core, out->direction, parcel, train_error);
  else if (is_about_upstream(out, 1, error)) refused(core, parcel->flow, error);
}

static void try_again(struct core *core, const struct outbox *out, unsigned at, int error) {
  const struct parcel *parcel = &out->parcels[at];
  if (!is_queue_full(error)) {
    if (is_about_upstream(out, parcel->count, error)) refused(core, parcel->flow, error);
    error = send_one(out->fd, &out->messages[at].msg_hdr);
    if (error == 0) return;
  }
  if (parcel->count > 1 && is_train_refusal(error)) part_train(core, out, at, error);
  else lost(out, parcel, error, parcel->count);
}

/* Of many flows, most send one datagram at a time, for which the lists of lists of a sendmmsg are a tenth of the cost. */
static int send_messages(struct outbox *out, unsigned from) {
  unsigned count = out->parcels_used - from;
  const struct msghdr *message = &out->messages[from].msg_hdr;
  bool is_plain = count == 1 && message->msg_iovlen == 1 && message->msg_namelen == 0 && message->msg_controllen == 0;
  if (!is_plain) return sendmmsg(out->fd, out->messages + from, count, MSG_DONTWAIT);
  return send(out->fd, message->msg_iov->iov_base, message->msg_iov->iov_len, MSG_DONTWAIT) < 0 ? -1 : 1;
}

void outbox_flush(struct core *core, struct outbox *out) {
  for (unsigned at = 0; at < out->parcels_used;) {
    int sent = send_messages(out, at);
    if (sent < 0) try_again(core, out, at, errno);
    at += sent > 0 ? (unsigned)sent : 1;
  }
  out->parcels_used = out->pieces_used = 0;
}

/* ---- parcels ---- */

static void begin(struct core *core, struct outbox *out, struct flow *flow, uint32_t size) {
  /* A parcel has room for the longest train with a header in front of each datagram. */
  if (out->parcels_used == BATCH || out->pieces_used + 2 * TRAIN_DATAGRAMS > PIECES) outbox_flush(core, out);
  unsigned at = out->parcels_used++;
  struct msghdr *message = &out->messages[at].msg_hdr;
  *message = (struct msghdr){.msg_iov = &out->pieces[out->pieces_used], .msg_control = &out->controls[at]};
  address_message(message, out->direction, flow);
  bool open = size <= flow->largest_in_train[out->direction];
  out->parcels[at] = (struct parcel){.flow = flow, .each = size, .open = open};
}

static bool has_room(const struct parcel *parcel, const struct flow *flow, uint32_t size) {
  return parcel->open && parcel->flow == flow && size > 0 && size <= parcel->each &&
         parcel->count < TRAIN_DATAGRAMS && parcel->bytes + size <= TRAIN_BYTES;
}

static void put_piece(struct outbox *out, struct msghdr *message, uint8_t *data, size_t length) {
  struct iovec *last = message->msg_iovlen > 0 ? &message->msg_iov[message->msg_iovlen - 1] : NULL;
  if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == data) {
    last->iov_len += length; /* the datagrams of a train lie one behind the other */
  } else {
    out->pieces[out->pieces_used++] = (struct iovec){data, length};
    message->msg_iovlen++;
  }
}

static void put_datagram(struct core *core, struct outbox *out, struct flow *flow, uint8_t *data, uint32_t length) {
  uint16_t prefix = out->direction == TO_UPSTREAM ? flow->prefix_length : 0;
  uint32_t size = prefix + length;
  if (out->parcels_used == 0 || !has_room(&out->parcels[out->parcels_used - 1], flow, size))
    begin(core, out, flow, size);
  struct parcel *parcel = &out->parcels[out->parcels_used - 1];
  struct msghdr *message = &out->messages[out->parcels_used - 1].msg_hdr;
  uint16_t each = (uint16_t)parcel->each;
  if (++parcel->count == 2) put_control(message, IPPROTO_UDP, UDP_SEGMENT, &each, sizeof each);
  parcel->bytes += size;
  parcel->open = parcel->open && size == parcel->each;
  if (prefix > 0) put_piece(out, message, flow->prefix, prefix);
  put_piece(out, message, data, length);
}

void outbox_put(struct core *core, struct outbox *out, struct flow *flow, const struct arrival *arrival) {
  uint32_t offset = 0;
  for (uint32_t i = 0; i < arrival->count; i++, offset += arrival->each) {
    uint32_t left = arrival->length - offset;
    put_datagram(core, out, flow, arrival->data + offset, left < arrival->each ? left : arrival->each);
  }
}
