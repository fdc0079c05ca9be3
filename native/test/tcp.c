/* The relay and what leads to it, with real sockets on loopback. */
#include "tcp.h"

#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KIB = 1024, MIB = 1024 * 1024 };

/* ---- wrapped calls ---- */

size_t live_blocks, live_bytes;
int splice_error, pipe_error;
bool small_pipes;
unsigned splices, pipes_made;
int epoll_ctl_error, getsockname_error; /* of the next call */
void (*after_epoll_wait)(void);

void *__real_malloc(size_t);
void __real_free(void *);
ssize_t __real_splice(int, off64_t *, int, off64_t *, size_t, unsigned);
int __real_pipe2(int[2], int);
int __real_fcntl(int, int, ...);
int __real_epoll_wait(int, struct epoll_event *, int, int);
int __real_epoll_ctl(int, int, int, struct epoll_event *);
int __real_getsockname(int, struct sockaddr *, socklen_t *);

void *__wrap_malloc(size_t size) {
  void *block = __real_malloc(size);
  if (malloc_usable_size(block) >= KIB) live_blocks++, live_bytes += malloc_usable_size(block);
  return block;
}

void __wrap_free(void *block) {
  size_t size = malloc_usable_size(block);
  if (size >= KIB && live_blocks > 0 && live_bytes >= size) live_blocks--, live_bytes -= size;
  __real_free(block);
}

ssize_t __wrap_splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t length, unsigned flags) {
  splices++;
  if (splice_error == 0) return __real_splice(in, in_at, out, out_at, length, flags);
  errno = splice_error;
  return -1;
}

int __wrap_pipe2(int ends[2], int flags) {
  pipes_made++;
  if (pipe_error == 0) return __real_pipe2(ends, flags);
  errno = pipe_error;
  return -1;
}

int __wrap_fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  long argument = va_arg(arguments, long);
  va_end(arguments);
  if (small_pipes && command == F_SETPIPE_SZ) return errno = EPERM, -1;
  if (small_pipes && command == F_GETPIPE_SZ) return 8192;
  return __real_fcntl(fd, command, argument);
}

int __wrap_epoll_wait(int epoll, struct epoll_event *events, int length, int timeout) {
  int count = __real_epoll_wait(epoll, events, length, timeout);
  if (after_epoll_wait != NULL) after_epoll_wait();
  return count;
}

static bool fails(int *error) {
  if (*error == 0) return false;
  errno = *error, *error = 0;
  return true;
}

int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
  return fails(&epoll_ctl_error) ? -1 : __real_epoll_ctl(epoll, operation, fd, event);
}

int __wrap_getsockname(int fd, struct sockaddr *name, socklen_t *length) {
  return fails(&getsockname_error) ? -1 : __real_getsockname(fd, name, length);
}

/* ---- the rig ---- */

struct endpoint loopback(uint16_t port) {
  return (struct endpoint){.address = {[10] = 255, 255, 127, 0, 0, 1}, .port = port};
}

static int tcp_socket(int flags) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  CHECK(fd >= 0);
  return fd;
}

static uint16_t bind_loopback(int fd) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof at;
  CHECK(bind(fd, (struct sockaddr *)&at, sizeof at) == 0);
  CHECK(getsockname(fd, (struct sockaddr *)&at, &length) == 0);
  return ntohs(at.sin_port);
}

static int connect_to(uint16_t port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
  int fd = tcp_socket(0);
  CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
  CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
  return fd;
}

int descriptors(void) {
  DIR *directory = opendir("/proc/self/fd");
  int count = -1; /* its own */
  for (struct dirent *entry; (entry = readdir(directory)) != NULL;) count += entry->d_name[0] != '.';
  closedir(directory);
  return count;
}

static int descriptors_before;

struct rig *rig_open(void) {
  descriptors_before = descriptors();
  splice_error = pipe_error = 0;
  small_pipes = false;
  struct rig *rig = calloc(1, sizeof *rig);
  rig->shared = (struct shared){
      .events = calloc(MAX_EVENTS, sizeof(struct event)),
      .arena = calloc(1, 64),
      .bytes = calloc(SLOTS, sizeof(double)),
      .answer_bytes = calloc(SLOTS, sizeof(double)),
      .active_ms = calloc(SLOTS, sizeof(double)),
      .ended = calloc(SLOTS, 1),
      .slots = SLOTS,
  };
  rig->counters = (struct counters){rig->values, 0, 1, 2, 3, 4, 5, 6, 7, 8};
  rig->core = core_open(&rig->shared);
  CHECK(rig->core != NULL);
  struct endpoint at = loopback(0);
  rig->listener = core_tcp_listen(rig->core, &at, 4096);
  CHECK(rig->listener >= 0);
  CHECK(core_local(rig->core, rig->listener, &at) == 0 && endpoint_is_ipv4(&at));
  rig->port = at.port;
  rig->server = tcp_socket(SOCK_NONBLOCK);
  rig->server_port = bind_loopback(rig->server);
  CHECK(listen(rig->server, 4096) == 0);
  return rig;
}

void rig_close(struct rig *rig) {
  core_shut(rig->core);
  if (rig->server >= 0) close(rig->server);
  free(rig->shared.events);
  free(rig->shared.arena);
  free(rig->shared.bytes);
  free(rig->shared.answer_bytes);
  free(rig->shared.active_ms);
  free(rig->shared.ended);
  free(rig);
  CHECK(descriptors() == descriptors_before);
}

static void take(struct rig *rig, const struct event *event) {
  struct endpoint to = loopback(rig->server_port);
  struct known *known = &rig->known[event->slot];
  switch (event->kind) {
    case EVENT_ACCEPTED:
      CHECK(event->value == rig->listener && event->local.port == rig->port && event->peer.port != 0);
      *known = (struct known){.upstream = -1};
      rig->accepted[rig->accepted_count++ % SLOTS] = event->slot;
      if (rig->hold) return;
      known->upstream = core_connect(rig->core, &to, NULL);
      CHECK(known->upstream >= 0);
      rig->client_of[known->upstream] = event->slot;
      return;
    case EVENT_CONNECTED:
      rig->connected++;
      rig->connect_error = event->value;
      if (rig->hold) return;
      CHECK(event->value == 0);
      int client = rig->client_of[event->slot];
      rig->known[client].relayed = true;
      CHECK(core_relay(rig->core, client, event->slot, NULL, 0, 0, 0, &rig->counters) == 0);
      return;
    case EVENT_READABLE: known->readable++; return;
    case EVENT_GONE: known->gone = event->value; return;
    case EVENT_ENDED:
      CHECK(known->relayed && !known->ended);
      known->ended = true;
      known->reason = event->value;
      rig->ended++;
      return;
    case EVENT_ACCEPT_FAILED:
      CHECK(event->slot == rig->listener);
      rig->accept_error = event->value;
      return;
    default: CHECK(false);
  }
}

int rig_poll(struct rig *rig, int timeout_ms) {
  int count = core_poll(rig->core, timeout_ms);
  CHECK(count >= 0 && count <= MAX_EVENTS);
  for (int i = 0; i < count; i++) take(rig, &rig->shared.events[i]);
  return count;
}

static void settle(struct rig *rig) {
  for (int quiet = 0; quiet < 3;) quiet = rig_poll(rig, 2) > 0 || tcp_has_more(rig->core) ? 0 : quiet + 1;
}

int rig_client(struct rig *rig) { return connect_to(rig->port); }

int rig_server(struct rig *rig) {
  int fd;
  while ((fd = accept4(rig->server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0) rig_poll(rig, 1);
  return fd;
}

int rig_flow(struct rig *rig, int *client, int *server) {
  int before = rig->accepted_count;
  *client = rig_client(rig);
  *server = rig_server(rig);
  CHECK(rig->accepted_count == before + 1);
  int slot = rig->accepted[before % SLOTS];
  while (!rig->known[slot].relayed) rig_poll(rig, 1);
  return slot;
}

void reset(int fd) {
  const struct linger linger = {.l_onoff = 1};
  CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
  close(fd);
}

bool readable(int fd) {
  struct pollfd it = {.fd = fd, .events = POLLIN};
  return poll(&it, 1, 0) == 1;
}

static uint64_t hash(uint64_t before, const uint8_t *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) before = (before ^ bytes[i]) * 1099511628211U;
  return before;
}

bool stream_move(struct stream *s) {
  static uint8_t block[256 * KIB];
  if (s->sent < s->to_send) {
    /* Any part of the stream can be made again: a byte depends on its place only. */
    size_t length = s->to_send - s->sent < sizeof block ? s->to_send - s->sent : sizeof block;
    for (size_t i = 0; i < length; i++) block[i] = (uint8_t)((s->sent + i) * 2654435761U >> 13) ^ (uint8_t)s->seed;
    ssize_t sent = send(s->fd, block, length, MSG_NOSIGNAL);
    CHECK(sent > 0 || errno == EAGAIN);
    if (sent > 0) {
      s->sent_hash = hash(s->sent_hash, block, (size_t)sent);
      s->sent += (size_t)sent;
    }
    if (s->sent == s->to_send) shutdown(s->fd, SHUT_WR);
  }
  if (s->got < s->to_get) {
    ssize_t got = recv(s->fd, block, sizeof block, 0);
    CHECK(got > 0 || (got < 0 && errno == EAGAIN));
    if (got > 0) {
      s->got_hash = hash(s->got_hash, block, (size_t)got);
      s->got += (size_t)got;
    }
  }
  return s->sent < s->to_send || s->got < s->to_get;
}

static void must_end(struct rig *rig, int slot, int reason) {
  for (int i = 0; i < 2000 && !rig->known[slot].ended; i++) rig_poll(rig, 1);
  CHECK(rig->known[slot].ended);
  CHECK(rig->known[slot].reason == reason);
  CHECK(slot_at(rig->core, slot) == NULL);
}

static int last_word(int fd) {
  char byte;
  for (int i = 0; i < 2000; i++) {
    ssize_t got = recv(fd, &byte, 1, 0);
    if (got >= 0) return got == 0 ? 0 : -1;
    if (errno != EAGAIN) return errno;
    usleep(1000);
  }
  return -2;
}

/* The same behind whatever has come before. */
static int end_of(int fd) {
  static uint8_t sink[MIB];
  for (;;) {
    ssize_t got = recv(fd, sink, sizeof sink, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) return got == 0 ? 0 : errno;
    if (got < 0) usleep(1000);
  }
}

static void fill(struct rig *rig, int fd, size_t most) {
  static const uint8_t zeros[64 * KIB];
  size_t sent = 0;
  for (int refused = 0; refused < 20 && sent < most;) {
    ssize_t n = send(fd, zeros, sizeof zeros, MSG_NOSIGNAL);
    if (n > 0) sent += (size_t)n;
    refused = n > 0 ? 0 : refused + 1;
    rig_poll(rig, n > 0 ? 0 : 2);
  }
  CHECK(sent < most);
}

/* ---- relaying ---- */

/*
 * Clients' sockets have large buffers from the beginning. The kernel grows them only for who reads fast, and until then
 * no read is a full one: under valgrind a flow would never be bulk.
 */
static struct rig *rig_for_bulk(void) {
  struct rig *rig = rig_open();
  int listener = rig->core->slots[rig->listener].fd, bytes = 4 * MIB;
  if (setsockopt(listener, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
    CHECK(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) == 0);
  return rig;
}

static void transfer(struct rig *rig, size_t to_server, size_t to_client, unsigned slow) {
  int client, server;
  int slot = rig_flow(rig, &client, &server);
  struct stream a = {.fd = client, .to_send = to_server, .to_get = to_client, .seed = 17};
  struct stream b = {.fd = server, .to_send = to_client, .to_get = to_server, .seed = 99};
  if (to_server == 0) shutdown(client, SHUT_WR);
  if (to_client == 0) shutdown(server, SHUT_WR);
  bool more = true;
  for (unsigned i = 0; more; i++) {
    more = stream_move(&a);
    if (slow == 0 || i % slow == 0) stream_move(&b);
    more |= b.sent < b.to_send || b.got < b.to_get;
    rig_poll(rig, 0);
  }
  CHECK(a.sent_hash == b.got_hash && b.sent_hash == a.got_hash);
  must_end(rig, slot, END_DONE);
  CHECK(last_word(client) == 0 && last_word(server) == 0);
  CHECK(rig->shared.bytes[slot] == (double)to_server);
  close(client);
  close(server);
}

static void bytes_arrive_whole_both_ways(void) {
  struct rig *rig = rig_for_bulk();
  splices = 0;
  transfer(rig, 8 * MIB + 17, 8 * MIB + 5, 0);
  CHECK(splices > 0 && core_fallbacks(rig->core) == 0);
  CHECK(rig->values[0] == 8 * MIB + 17 && rig->values[1] == 8 * MIB + 5 && rig->values[4] == 0);
  transfer(rig, 8 * MIB, 1, 40);
  transfer(rig, 0, 0, 0);
  transfer(rig, 1, 64 * KIB, 0);
  CHECK(rig->core->tcp->pipes == rig->core->tcp->idle_pipes && live_blocks == 0);
  rig_close(rig);
}

static void refused_splice_is_copied(void) {
  const int errors[] = {EINVAL, EPERM, ENOSYS};
  for (int i = 0; i < 3; i++) {
    struct rig *rig = rig_for_bulk();
    splice_error = errors[i];
    splices = 0;
    transfer(rig, 4 * MIB + 3, 2 * MIB, 0);
    CHECK(core_fallbacks(rig->core) == FALLBACK_SPLICE && splices <= 2);
    rig_close(rig);
  }
}

static void without_pipes_it_is_copied(void) {
  for (int i = 0; i < 2; i++) {
    struct rig *rig = rig_for_bulk();
    pipe_error = i == 0 ? EMFILE : 0;
    small_pipes = i == 1;
    splices = pipes_made = 0;
    transfer(rig, 8 * MIB + 3, 2 * MIB, 0);
    CHECK(core_fallbacks(rig->core) == FALLBACK_PIPES);
    CHECK(splices == 0 && pipes_made > 0 && pipes_made <= 5);
    CHECK(rig->core->tcp->pipes == 0);
    rig_close(rig);
  }
}

static void many_flows_of_random_size(void) {
  enum { FLOWS = 200 };
  struct rig *rig = rig_open();
  struct stream a[FLOWS] = {0}, b[FLOWS] = {0};
  int slots[FLOWS];
  srand(4711);
  for (int i = 0; i < FLOWS; i++) {
    slots[i] = rig_flow(rig, &a[i].fd, &b[i].fd);
    a[i].seed = b[i].seed = (uint32_t)i;
    a[i].to_send = b[i].to_get = (size_t)(rand() % (1 << rand() % 19));
    b[i].to_send = a[i].to_get = (size_t)(rand() % (1 << rand() % 19));
    if (a[i].to_send == 0) shutdown(a[i].fd, SHUT_WR);
    if (b[i].to_send == 0) shutdown(b[i].fd, SHUT_WR);
  }
  for (bool more = true; more; rig_poll(rig, 0)) {
    more = false;
    for (int i = 0; i < FLOWS; i++) {
      if (rand() % 3) more |= stream_move(&a[i]);
      if (rand() % 3) more |= stream_move(&b[i]);
      more |= a[i].got < a[i].to_get || b[i].got < b[i].to_get;
    }
  }
  for (int i = 0; i < FLOWS; i++) {
    must_end(rig, slots[i], END_DONE);
    CHECK(a[i].sent_hash == b[i].got_hash && b[i].sent_hash == a[i].got_hash);
    CHECK(last_word(a[i].fd) == 0 && last_word(b[i].fd) == 0);
    close(a[i].fd);
    close(b[i].fd);
  }
  CHECK(rig->ended == FLOWS && live_blocks == 0);
  rig_close(rig);
}

static void a_stopped_reader_stops_its_writer(void) {
  struct rig *rig = rig_open();
  for (int i = 0; i < 2; i++) {
    splice_error = i == 0 ? 0 : EINVAL;
    int client, server;
    int slot = rig_flow(rig, &client, &server);
    int open_before = descriptors();
    fill(rig, client, 32 * MIB);
    CHECK(live_blocks <= 1 && live_bytes <= 65 * KIB);
    CHECK(rig->core->tcp->pipes - rig->core->tcp->idle_pipes <= 1);
    CHECK(!tcp_has_more(rig->core)); /* a stalled flow does not spin */
    static uint8_t sink[MIB];
    for (ssize_t got; (got = recv(server, sink, sizeof sink, 0)) > 0 || rig_poll(rig, 5) > 0 || readable(server);) {}
    /* Drained: no buffer, and no pipe but in the pool. */
    settle(rig);
    CHECK(live_blocks == 0);
    CHECK(rig->core->tcp->pipes == rig->core->tcp->idle_pipes);
    CHECK(descriptors() == open_before + 2 * rig->core->tcp->idle_pipes);
    if (i == 0) reset(client), must_end(rig, slot, END_CLIENT_RESET), close(server);
    else reset(server), must_end(rig, slot, END_UPSTREAM_RESET), close(client);
    core_shut(rig->core);
    rig->core = core_open(&rig->shared);
    struct endpoint at = loopback(rig->port);
    rig->listener = core_tcp_listen(rig->core, &at, 64);
  }
  rig_close(rig);
}

static void small_messages_are_copied_again(void) {
  struct rig *rig = rig_for_bulk();
  int client, server;
  rig_flow(rig, &client, &server);
  static uint8_t block[4 * MIB];
  splices = 0;
  for (size_t sent = 0, got = 0; got < 8 * MIB; rig_poll(rig, 0)) {
    ssize_t n = sent < 8 * MIB ? send(client, block, sent + MIB <= 8 * MIB ? MIB : 8 * MIB - sent, MSG_NOSIGNAL) : 0;
    if (n > 0) sent += (size_t)n;
    if ((n = recv(server, block, sizeof block, 0)) > 0) got += (size_t)n;
  }
  CHECK(splices > 0);
  for (int i = 0; i < 10; i++) {
    if (i == 4) splices = 0;
    CHECK(send(client, "x", 1, 0) == 1);
    while (recv(server, block, 1, 0) != 1) rig_poll(rig, 1);
  }
  CHECK(splices == 0);
  close(client);
  close(server);
  rig_close(rig);
}

/* Sent while the core does not look: plain bytes, an urgent one, and more plain ones. */
static size_t send_around_urgent(int fd, size_t before) {
  static uint8_t zeros[MIB];
  CHECK(send(fd, zeros, before, MSG_NOSIGNAL) == (ssize_t)before);
  CHECK(send(fd, "!", 1, MSG_OOB | MSG_NOSIGNAL) == 1);
  CHECK(send(fd, "behind", 6, MSG_NOSIGNAL) == 6);
  usleep(20 * 1000);
  return before + 6;
}

static size_t drain(struct rig *rig, int fd, size_t most) {
  static uint8_t sink[MIB];
  size_t got = 0;
  for (int i = 0; i < 500 && got < most; i++) {
    rig_poll(rig, 1);
    for (ssize_t n; (n = recv(fd, sink, sizeof sink, 0)) > 0;) got += (size_t)n;
  }
  return got;
}

static void bytes_behind_urgent_data_do_not_wait_for_more(void) {
  const size_t before[] = {0, 6, 200 * KIB, MIB};
  for (int bulk = 0; bulk <= 1; bulk++) {
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
      struct rig *rig = rig_for_bulk();
      int client, server;
      int slot = rig_flow(rig, &client, &server);
      size_t wanted = 0;
      if (bulk) {
        static uint8_t zeros[MIB];
        splices = 0;
        for (int j = 0; j < 8; j++) {
          CHECK(send(client, zeros, MIB, MSG_NOSIGNAL) == MIB);
          CHECK(drain(rig, server, MIB) == MIB);
        }
        CHECK(splices > 0);
      }
      for (int j = 0; j < 3; j++) {
        wanted = send_around_urgent(client, before[i]);
        CHECK(drain(rig, server, wanted) == wanted);
      }
      wanted = send_around_urgent(client, before[i]);
      shutdown(client, SHUT_WR);
      CHECK(drain(rig, server, wanted) == wanted); /* the end is behind it */
      close(server);
      must_end(rig, slot, END_DONE);
      close(client);
      rig_close(rig);
    }
  }
}

static void bulk_behind_urgent_data_is_spliced_again(void) {
  struct rig *rig = rig_for_bulk();
  int client, server;
  rig_flow(rig, &client, &server);
  static uint8_t zeros[MIB];
  CHECK(drain(rig, server, send_around_urgent(client, 6)) == 12);
  splices = 0;
  for (int i = 0; i < 8; i++) {
    CHECK(send(client, zeros, MIB, MSG_NOSIGNAL) == MIB);
    CHECK(drain(rig, server, MIB) == MIB);
  }
  CHECK(splices > 0);
  close(client);
  close(server);
  rig_close(rig);
}

static void urgent_data_before_the_relay_holds_nothing_back(void) {
  struct rig *rig = rig_open();
  rig->hold = true;
  int client = rig_client(rig);
  while (rig->accepted_count == 0) rig_poll(rig, 1);
  int slot = rig->accepted[0];
  send_around_urgent(client, 6);
  settle(rig);
  char early[64];
  CHECK(core_read(rig->core, slot, early, sizeof early) == 6);
  struct endpoint to = loopback(rig->server_port);
  int upstream = core_connect(rig->core, &to, NULL);
  int server = rig_server(rig);
  while (rig->connected == 0) rig_poll(rig, 1);
  rig->known[slot].relayed = true;
  CHECK(core_relay(rig->core, slot, upstream, early, 6, 6, 0, &rig->counters) == 0);
  CHECK(drain(rig, server, 12) == 12);
  close(server);
  close(client);
  rig_close(rig);
}

/* An urgent byte that comes when the core has looked already, and then the end. */
static int late_client;

static void come_late(void) {
  after_epoll_wait = NULL;
  send_around_urgent(late_client, 100);
  shutdown(late_client, SHUT_WR);
  usleep(20 * 1000);
}

static void an_urgent_byte_between_the_look_and_the_read_cuts_nothing(void) {
  struct rig *rig = rig_for_bulk();
  int client, server;
  int slot = rig_flow(rig, &client, &server);
  static uint8_t zeros[MIB];
  splices = 0;
  for (int i = 0; i < 8; i++) {
    CHECK(send(client, zeros, MIB, MSG_NOSIGNAL) == MIB);
    if (i == 7) {
      late_client = client;
      after_epoll_wait = come_late;
    }
    CHECK(drain(rig, server, i == 7 ? MIB + 106 : MIB) == (size_t)(i == 7 ? MIB + 106 : MIB));
  }
  CHECK(splices > 0);
  close(server);
  must_end(rig, slot, END_DONE);
  close(client);
  rig_close(rig);
}

static void one_turn_is_bounded(void) {
  struct rig *rig = rig_for_bulk();
  int client, server;
  rig_flow(rig, &client, &server);
  static const uint8_t zeros[MIB];
  size_t waiting = 0;
  for (ssize_t n; (n = send(client, zeros, sizeof zeros, MSG_NOSIGNAL)) > 0;) waiting += (size_t)n;
  CHECK(waiting > 512 * KIB);
  int slot = rig->accepted[0];
  static uint8_t sink[4 * MIB];
  bool goes_on = false;
  for (int polls = 0; polls < 400; polls++) {
    double before = rig->shared.bytes[slot];
    rig_poll(rig, 0);
    /* A turn for the edge and one from the queue, and each may end with a pipe full. */
    CHECK(rig->shared.bytes[slot] - before <= 4 * MIB);
    if (tcp_has_more(rig->core)) CHECK((goes_on = readable(core_epoll(rig->core))));
    if (recv(server, sink, sizeof sink, 0) > 0) while (send(client, zeros, sizeof zeros, MSG_NOSIGNAL) > 0) {}
  }
  CHECK(goes_on && rig->shared.bytes[slot] > 8 * MIB);
  close(client);
  close(server);
  rig_close(rig);
}

/* ---- ends ---- */

static void each_side_may_end_first(void) {
  struct rig *rig = rig_open();
  for (int first = 0; first < 2; first++) {
    int end[2];
    int slot = rig_flow(rig, &end[0], &end[1]);
    int upstream = rig->known[slot].upstream;
    char text[8] = "";
    CHECK(send(end[first], "one", 3, 0) == 3 && shutdown(end[first], SHUT_WR) == 0);
    settle(rig);
    CHECK(recv(end[!first], text, sizeof text, 0) == 3 && last_word(end[!first]) == 0);
    CHECK(rig->shared.ended[first == 0 ? slot : upstream] == 1);
    CHECK(rig->shared.ended[first == 0 ? upstream : slot] == 0 && !rig->known[slot].ended);
    CHECK(send(end[!first], "three", 5, 0) == 5);
    settle(rig);
    CHECK(recv(end[first], text, sizeof text, 0) == 5);
    close(end[!first]);
    must_end(rig, slot, END_DONE);
    CHECK(last_word(end[first]) == 0);
    close(end[first]);
  }
  CHECK(rig->values[4] == 0);
  rig_close(rig);
}

static void a_reset_is_passed_on(void) {
  struct rig *rig = rig_open();
  for (int by = 0; by < 2; by++) {
    for (int kind = 0; kind < 4; kind++) {
      int end[2];
      int slot = rig_flow(rig, &end[0], &end[1]);
      if (kind == 1) CHECK(send(end[by], "half an answ", 12, 0) == 12);
      if (kind == 2) CHECK(shutdown(end[!by], SHUT_WR) == 0);
      if (kind >= 2) settle(rig);
      if (kind == 3) fill(rig, end[by], 32 * MIB); /* its reader has stopped: nobody reads from it */
      reset(end[by]);
      must_end(rig, slot, by == 0 ? END_CLIENT_RESET : END_UPSTREAM_RESET);
      CHECK(end_of(end[!by]) == ECONNRESET);
      close(end[!by]);
    }
  }
  CHECK(rig->values[4] == 8 && live_blocks == 0);
  CHECK(rig->core->tcp->pipes == rig->core->tcp->idle_pipes);
  transfer(rig, 4 * MIB, 4 * MIB, 0); /* nothing of the old flows is in its pipes */
  rig_close(rig);
}

static void an_aborted_flow_resets_both(void) {
  for (int by_copying = 0; by_copying < 2; by_copying++) {
    struct rig *rig = rig_open();
    splice_error = by_copying ? EINVAL : 0;
    int client, server;
    int slot = rig_flow(rig, &client, &server);
    fill(rig, client, 32 * MIB);
    /* Something is held, in a pipe or in a buffer. */
    CHECK((int)live_blocks + rig->core->tcp->pipes - rig->core->tcp->idle_pipes == 1);
    if (by_copying) CHECK(live_blocks == 1);
    CHECK(core_relay_abort(rig->core, slot) == 0);
    CHECK(core_relay_abort(rig->core, slot) == -EBADF && live_blocks == 0);
    CHECK(last_word(client) == ECONNRESET && end_of(server) == ECONNRESET);
    settle(rig);
    CHECK(rig->ended == 0 && rig->values[4] == 0);
    close(client);
    close(server);
    rig_close(rig);
  }
}

/* ---- before the relay ---- */

static int held_client(struct rig *rig, int *client) {
  rig->hold = true;
  *client = rig_client(rig);
  int before = rig->accepted_count;
  while (rig->accepted_count == before) rig_poll(rig, 1);
  return rig->accepted[before];
}

static int held_upstream(struct rig *rig, int *server) {
  struct endpoint to = loopback(rig->server_port);
  int before = rig->connected, upstream = core_connect(rig->core, &to, NULL);
  CHECK(upstream >= 0);
  while (rig->connected == before) rig_poll(rig, 1);
  CHECK(rig->connect_error == 0);
  *server = rig_server(rig);
  return upstream;
}

static void early_bytes_go_first_and_edges_are_not_lost(void) {
  struct rig *rig = rig_open();
  int client, server;
  int slot = held_client(rig, &client);
  char text[64] = "";
  CHECK(core_read(rig->core, slot, text, sizeof text) == -EAGAIN);
  CHECK(send(client, "hello", 5, 0) == 5);
  while (rig->known[slot].readable == 0) rig_poll(rig, 1);
  settle(rig);
  CHECK(rig->known[slot].readable == 1);
  memcpy(text, "HEADER ", 7);
  CHECK(core_read(rig->core, slot, text + 7, 4) == 4); /* not all of it */
  int upstream = held_upstream(rig, &server);
  CHECK(core_relay(rig->core, server + SLOTS, upstream, NULL, 0, 0, 0, NULL) == -EBADF);
  CHECK(core_relay(rig->core, upstream, slot, NULL, 0, 0, 0, NULL) == -EINVAL);
  CHECK(send(server, "banner", 6, 0) == 6);
  settle(rig); /* its edge is seen before the relay begins */
  rig->known[slot] = (struct known){.upstream = upstream, .relayed = true};
  CHECK(core_relay(rig->core, slot, upstream, text, 11, 4, 0, &rig->counters) == 0);
  CHECK(recv(server, text, sizeof text, 0) == 11 && memcmp(text, "HEADER hell", 11) == 0);
  CHECK(readable(core_epoll(rig->core))); /* nobody is in core_poll just now */
  settle(rig);
  CHECK(recv(server, text, sizeof text, 0) == 1 && text[0] == 'o');
  CHECK(recv(client, text, sizeof text, 0) == 6);
  CHECK(rig->shared.bytes[slot] == 5 && rig->values[0] == 5 && rig->values[1] == 6);
  close(client);
  close(server);
  must_end(rig, slot, END_DONE);
  rig_close(rig);
}

static void an_upstream_may_have_spoken_before_the_relay_begins(void) {
  struct rig *rig = rig_open();
  int client, server;
  int slot = held_client(rig, &client);
  int upstream = held_upstream(rig, &server);
  char text[64];
  CHECK(send(server, "banner", 6, 0) == 6);
  settle(rig);
  CHECK(core_relay(rig->core, slot, upstream, NULL, 0, 0, 0, NULL) == 0);
  settle(rig);
  CHECK(recv(client, text, sizeof text, 0) == 6);
  close(client);
  close(server);
  rig_close(rig);
}

static void a_client_that_ended_early_is_still_served(void) {
  struct rig *rig = rig_open();
  int client, server;
  int slot = held_client(rig, &client);
  char text[64];
  CHECK(send(client, "early", 5, 0) == 5 && shutdown(client, SHUT_WR) == 0);
  while (rig->known[slot].readable == 0) rig_poll(rig, 1);
  CHECK(core_read(rig->core, slot, text, sizeof text) == 5 && core_read(rig->core, slot, text, sizeof text) == 0);
  int upstream = held_upstream(rig, &server);
  rig->known[slot].relayed = true;
  CHECK(core_relay(rig->core, slot, upstream, text, 5, 5, 1, &rig->counters) == 0);
  CHECK(rig->shared.ended[slot] == 1);
  settle(rig);
  CHECK(recv(server, text, sizeof text, 0) == 5 && last_word(server) == 0);
  CHECK(send(server, "bye", 3, 0) == 3);
  close(server);
  must_end(rig, slot, END_DONE);
  CHECK(recv(client, text, sizeof text, 0) == 3 && last_word(client) == 0);
  close(client);
  rig_close(rig);
}

/* More than the upstream's socket takes: the rest is kept, in order, and the client's end comes behind it. */
static void early_bytes_may_be_more_than_fit(void) {
  struct rig *rig = rig_open();
  enum { EARLY = 16 * MIB };
  int client, server;
  int slot = held_client(rig, &client);
  int upstream = held_upstream(rig, &server);
  uint8_t *early = malloc(EARLY), *got = malloc(EARLY);
  for (size_t i = 0; i < EARLY; i++) early[i] = (uint8_t)(i * 31 >> 7);
  rig->known[slot].relayed = true;
  CHECK(core_relay(rig->core, slot, upstream, early, EARLY, EARLY, 1, NULL) == 0);
  settle(rig);
  CHECK(live_bytes > 2 * EARLY && live_bytes < 3 * EARLY + 64 * KIB);
  size_t length = 0;
  for (int i = 0; i < 10000 && length < EARLY; i++) {
    ssize_t n = recv(server, got + length, EARLY - length, 0);
    if (n > 0) length += (size_t)n;
    rig_poll(rig, 1);
  }
  CHECK(length == EARLY && memcmp(early, got, EARLY) == 0 && last_word(server) == 0);
  free(early);
  free(got);
  CHECK(live_blocks == 0);
  close(server);
  must_end(rig, slot, END_DONE);
  close(client);
  rig_close(rig);
}

static void a_waiting_client_that_resets_is_gone(void) {
  struct rig *rig = rig_open();
  int client, server;
  int slot = held_client(rig, &client);
  int upstream = held_upstream(rig, &server);
  reset(client);
  while (rig->known[slot].gone == 0) rig_poll(rig, 1);
  CHECK(rig->known[slot].gone == ECONNRESET && slot_at(rig->core, slot) != NULL);
  /* The caller was about to start: the reset is still one. */
  rig->known[slot].relayed = true;
  CHECK(core_relay(rig->core, slot, upstream, "x", 1, 1, 0, &rig->counters) == 0);
  must_end(rig, slot, END_CLIENT_RESET);
  CHECK(rig->values[4] == 1 && end_of(server) == ECONNRESET);
  close(server);
  rig_close(rig);
}

/* The caller reads once more before it starts the relay, and it is that read which hears of the reset. */
static void a_reset_that_a_read_has_heard_of_is_not_forgotten(void) {
  struct rig *rig = rig_open();
  int client, server;
  int slot = held_client(rig, &client);
  int upstream = held_upstream(rig, &server);
  settle(rig);
  reset(client);
  char byte;
  CHECK(core_read(rig->core, slot, &byte, 1) == -ECONNRESET);
  rig->known[slot].relayed = true;
  CHECK(core_relay(rig->core, slot, upstream, "x", 1, 1, 0, &rig->counters) == 0);
  must_end(rig, slot, END_CLIENT_RESET);
  CHECK(end_of(server) == ECONNRESET);
  close(server);
  rig_close(rig);
}

static void a_reset_upstream_is_found_when_the_relay_begins(void) {
  struct rig *rig = rig_open();
  int client, server;
  int slot = held_client(rig, &client);
  int upstream = held_upstream(rig, &server);
  reset(server);
  settle(rig);
  rig->known[slot].relayed = true;
  CHECK(core_relay(rig->core, slot, upstream, "x", 1, 1, 0, &rig->counters) == 0);
  must_end(rig, slot, END_UPSTREAM_RESET);
  CHECK(last_word(client) == ECONNRESET);
  close(client);
  rig_close(rig);
}

static void a_failed_connect_is_told_once(void) {
  struct rig *rig = rig_open();
  rig->hold = true;
  close(rig->server); /* nobody listens there any more */
  rig->server = -1;
  struct endpoint to = loopback(rig->server_port);
  int slot = core_connect(rig->core, &to, NULL);
  CHECK(slot >= 0);
  settle(rig);
  CHECK(rig->connected == 1 && rig->connect_error == ECONNREFUSED && slot_at(rig->core, slot) != NULL);
  core_close(rig->core, slot, 0);
  core_close(rig->core, slot, 0);
  /* connect() itself refuses a multicast address. */
  to = (struct endpoint){.address = {[10] = 255, 255, 224, 0, 0, 1}, .port = 1};
  slot = core_connect(rig->core, &to, NULL);
  CHECK(slot >= 0 && readable(core_epoll(rig->core)));
  settle(rig);
  CHECK(rig->connected == 2 && rig->connect_error == ENETUNREACH);
  core_close(rig->core, slot, 0);
  rig_close(rig);
}

static int option(struct core *core, int slot, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  CHECK(getsockopt(core->slots[slot].fd, level, name, &value, &length) == 0);
  return value;
}

static void both_sockets_have_their_options(void) {
  struct rig *rig = rig_open();
  int client, server;
  int slot = rig_flow(rig, &client, &server);
  const int slots[] = {slot, rig->known[slot].upstream};
  CHECK(option(rig->core, slots[1], SOL_SOCKET, SO_KEEPALIVE) == 0);
  CHECK(core_keep_alive(rig->core, slots[1]) == 0);
  CHECK(core_keep_alive(rig->core, rig->listener) == -EBADF);
  for (int i = 0; i < 2; i++) {
    CHECK(option(rig->core, slots[i], IPPROTO_TCP, TCP_NODELAY) == 1);
    CHECK(option(rig->core, slots[i], SOL_SOCKET, SO_KEEPALIVE) == 1);
    CHECK(option(rig->core, slots[i], IPPROTO_TCP, TCP_KEEPIDLE) == 15);
    CHECK(option(rig->core, slots[i], IPPROTO_TCP, TCP_KEEPINTVL) == 1);
    CHECK(option(rig->core, slots[i], IPPROTO_TCP, TCP_KEEPCNT) == 10);
    CHECK(fcntl(rig->core->slots[slots[i]].fd, F_GETFL) & O_NONBLOCK);
    CHECK(fcntl(rig->core->slots[slots[i]].fd, F_GETFD) & FD_CLOEXEC);
  }
  close(client);
  close(server);
  rig_close(rig);
}

/* ---- listeners ---- */

static void a_paused_listener_leaves_clients_in_the_backlog(void) {
  struct rig *rig = rig_open();
  rig->hold = true;
  CHECK(core_accepting(rig->core, rig->listener, 0) == 0 && core_accepting(rig->core, rig->listener, 0) == 0);
  int clients[40];
  for (int i = 0; i < 40; i++) clients[i] = rig_client(rig);
  tcp_queue(rig->core, rig->listener); /* as one who had this slot before may have left it */
  settle(rig);
  CHECK(rig->accepted_count == 0);
  CHECK(core_accepting(rig->core, rig->listener, 1) == 0 && core_accepting(rig->core, rig->listener, 1) == 0);
  for (int i = 0, before = 0; i < 40; i++, before = rig->accepted_count) {
    rig_poll(rig, 1);
    CHECK(rig->accepted_count - before <= 16);
  }
  CHECK(rig->accepted_count == 40);
  for (int i = 0; i < 40; i++) close(clients[i]);
  rig_close(rig);
}

static void a_listener_without_descriptors_pauses(void) {
  struct rig *rig = rig_open();
  rig->hold = true;
  struct rlimit before, none;
  getrlimit(RLIMIT_NOFILE, &before);
  int client = rig_client(rig), lowest = dup(client);
  close(lowest);
  none = (struct rlimit){(rlim_t)lowest, before.rlim_max};
  CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
  CHECK(core_connect(rig->core, &(struct endpoint){0}, NULL) == -EMFILE);
  while (rig->accept_error == 0) rig_poll(rig, 1);
  CHECK(rig->accept_error == EMFILE && rig_poll(rig, 1) == 0);
  setrlimit(RLIMIT_NOFILE, &before);
  CHECK(core_accepting(rig->core, rig->listener, 1) == 0);
  while (rig->accepted_count == 0) rig_poll(rig, 1);
  close(client);
  rig_close(rig);
}

static void a_full_table_pauses_the_listener(void) {
  struct rig *rig = rig_open();
  rig->hold = true;
  int kept = rig->core->free_count;
  rig->core->free_count = 1;
  int first = rig_client(rig), second = rig_client(rig);
  settle(rig);
  CHECK(rig->accepted_count == 1 && rig->accept_error == ENFILE);
  core_close(rig->core, rig->accepted[0], 1);
  CHECK(core_accepting(rig->core, rig->listener, 1) == 0);
  while (rig->accepted_count == 1) rig_poll(rig, 1);
  rig->core->free_count = 0;
  (void)kept;
  close(first);
  close(second);
  rig_close(rig);
}

/* An end instead would be an empty answer. */
static void a_client_that_cannot_be_taken_in_is_reset(void) {
  struct rig *rig = rig_open();
  rig->hold = true;
  int client = rig_client(rig);
  epoll_ctl_error = ENOSPC;
  settle(rig);
  CHECK(rig->accepted_count == 0 && rig->accept_error == ENOSPC && end_of(client) == ECONNRESET);
  close(client);
  int fd = tcp_socket(SOCK_NONBLOCK);
  CHECK(listen(fd, 8) == 0);
  int listener = core_adopt(rig->core, fd, 0, NULL);
  struct endpoint at;
  CHECK(core_local(rig->core, listener, &at) == 0);
  client = connect_to(at.port);
  getsockname_error = ENOBUFS;
  settle(rig);
  CHECK(rig->accepted_count == 0 && end_of(client) == ECONNRESET);
  close(client);
  core_close(rig->core, listener, 0);
  rig_close(rig);
}

/* As a launcher that ends does; what else fails with EINVAL says nothing of the listener. */
static void a_listener_that_another_process_has_ended_is_known(void) {
  struct rig *rig = rig_open();
  rig->hold = true;
  int fd = tcp_socket(SOCK_NONBLOCK), launcher = dup(fd);
  CHECK(listen(fd, 8) == 0);
  int listener = core_adopt(rig->core, fd, 0, NULL);
  struct endpoint at;
  CHECK(core_local(rig->core, listener, &at) == 0);
  rig->listener = listener, rig->port = at.port;
  int client = connect_to(at.port);
  epoll_ctl_error = EINVAL;
  settle(rig);
  CHECK(rig->accept_error == EINVAL && end_of(client) == ECONNRESET);
  close(client);
  rig->accept_error = -1;
  CHECK(core_accepting(rig->core, listener, 1) == 0 && shutdown(launcher, SHUT_RD) == 0);
  settle(rig);
  CHECK(rig->accept_error == 0 && rig->accepted_count == 0 && !readable(core_epoll(rig->core)));
  close(launcher);
  rig_close(rig);
}

static void an_adopted_wildcard_listener_names_the_address_dialled(void) {
  struct rig *rig = rig_open();
  rig->hold = true;
  int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), shared = dup(fd);
  CHECK(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int)) == 0 && listen(fd, 8) == 0);
  int listener = core_adopt(rig->core, fd, 0, NULL);
  struct endpoint at;
  CHECK(core_local(rig->core, listener, &at) == 0);
  int client = connect_to(at.port), count = 0;
  while ((count = core_poll(rig->core, 1)) == 0) {}
  const struct event *event = &rig->shared.events[0];
  struct endpoint expected = loopback(at.port);
  CHECK(event->kind == EVENT_ACCEPTED && event->value == listener);
  CHECK(memcmp(&event->local, &expected, sizeof expected) == 0 && endpoint_is_ipv4(&event->peer));
  /* Somebody else has the socket, too: closing ours must end its events all the same. */
  core_close(rig->core, event->slot, 0);
  core_close(rig->core, listener, 0);
  close(client);
  client = connect_to(at.port);
  settle(rig);
  CHECK(!readable(core_epoll(rig->core)));
  close(client);
  close(shared);
  rig_close(rig);
}

static void an_adopted_listener_never_blocks_and_nothing_else_is_adopted(void) {
  struct rig *rig = rig_open();
  int blocking = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(listen(blocking, 8) == 0);
  CHECK(core_adopt(rig->core, blocking, 0, NULL) >= 0);
  CHECK(fcntl(blocking, F_GETFL) & O_NONBLOCK);
  int unbound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(core_adopt(rig->core, unbound, 0, NULL) == -EINVAL);
  int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  CHECK(core_adopt(rig->core, udp, 0, NULL) == -EINVAL);
  rig_close(rig);
}

static void an_ipv6_listener_is_for_ipv6_only(void) {
  struct rig *rig = rig_open();
  struct endpoint any = {.port = 0}, any4 = {.address = {[10] = 255, 255}};
  int listener = core_tcp_listen(rig->core, &any, 8);
  CHECK(listener >= 0 && core_local(rig->core, listener, &any) == 0);
  any4.port = any.port;
  CHECK(core_tcp_listen(rig->core, &any4, 8) >= 0);
  CHECK(core_tcp_listen(rig->core, &any4, 8) == -EADDRINUSE);
  rig_close(rig);
}

/* ---- batches ---- */

static void both_ends_of_a_flow_may_be_in_one_batch(void) {
  struct rig *rig = rig_open();
  enum { FLOWS = 32 };
  int client[FLOWS], server[FLOWS];
  for (int i = 0; i < FLOWS; i++) rig_flow(rig, &client[i], &server[i]);
  for (int i = 0; i < FLOWS; i++) reset(client[i]), reset(server[i]);
  CHECK(rig_poll(rig, 100) == FLOWS); /* each is told once, and by one of its two events */
  settle(rig);
  CHECK(rig->ended == FLOWS && rig->core->free_count == SLOTS - 1);
  rig_close(rig);
}

static void a_slot_is_not_used_again_before_its_end_is_told(void) {
  struct rig *rig = rig_open();
  int client, server;
  int slot = rig_flow(rig, &client, &server), upstream = rig->known[slot].upstream;
  reset(client);
  while (core_poll(rig->core, 1) == 0) {}
  CHECK(rig->shared.events[0].kind == EVENT_ENDED && rig->shared.events[0].slot == slot);
  struct endpoint to = loopback(rig->server_port);
  int other = core_connect(rig->core, &to, NULL);
  CHECK(other != slot && other != upstream);
  core_close(rig->core, slot, 1);
  core_close(rig->core, upstream, 1);
  close(server);
  rig_close(rig);
}

/* An event of a socket whose place another has taken between epoll_wait and its turn. */
static struct rig *stale_rig;
static int stale_slot;
static void replace_socket(void) {
  int ends[2];
  if (stale_slot < 0) return;
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  CHECK(slot_replace(stale_rig->core, stale_slot, ends[0], EPOLLIN | EPOLLET) == 0);
  close(ends[1]);
  stale_slot = -1;
}

static void a_stale_event_reaches_nobody(void) {
  struct rig *rig = stale_rig = rig_open();
  int client;
  int slot = stale_slot = held_client(rig, &client);
  settle(rig);
  CHECK(send(client, "x", 1, 0) == 1);
  after_epoll_wait = replace_socket;
  CHECK(rig_poll(rig, 100) == 0); /* "x" was the old socket's */
  after_epoll_wait = NULL;
  CHECK(stale_slot == -1 && rig_poll(rig, 100) == 1 && rig->known[slot].readable == 1);
  close(client);
  rig_close(rig);
}

static void leave_little_room(void) { stale_rig->core->event_count = MAX_EVENTS - 3; }

static void an_edge_without_room_for_its_event_is_told_next_time(void) {
  enum { CLIENTS = 10, FLOWS = 10 };
  struct rig *rig = stale_rig = rig_open();
  int client[CLIENTS], slot[CLIENTS], ends[FLOWS][2];
  for (int i = 0; i < FLOWS; i++) rig_flow(rig, &ends[i][0], &ends[i][1]);
  for (int i = 0; i < CLIENTS; i++) slot[i] = held_client(rig, &client[i]);
  settle(rig);
  for (int i = 0; i < CLIENTS; i++) CHECK(send(client[i], "x", 1, 0) == 1);
  for (int i = 0; i < FLOWS; i++) reset(ends[i][i % 2]);
  int polls = 0, told = 0;
  after_epoll_wait = leave_little_room;
  for (; told < CLIENTS + FLOWS; polls++) {
    CHECK(polls < 20);
    CHECK(core_poll(rig->core, 100) <= MAX_EVENTS);
    CHECK(!tcp_has_more(rig->core) || readable(core_epoll(rig->core)));
    for (int i = MAX_EVENTS - 3; i < rig->core->event_count; i++, told++) take(rig, &rig->shared.events[i]);
  }
  after_epoll_wait = NULL;
  CHECK(polls == 7 && rig->ended == FLOWS);
  for (int i = 0; i < CLIENTS; i++) CHECK(rig->known[slot[i]].readable == 1);
  for (int i = 0; i < CLIENTS; i++) close(client[i]);
  for (int i = 0; i < FLOWS; i++) close(ends[i][!(i % 2)]);
  rig_close(rig);
}

static void more_than_a_poll_can_tell_is_told_by_the_next(void) {
  struct rig *rig = rig_open();
  rig->hold = true;
  struct endpoint to = {.address = {[10] = 255, 255, 224, 0, 0, 1}, .port = 1};
  for (int i = 0; i < 1500; i++) CHECK(core_connect(rig->core, &to, NULL) >= 0);
  CHECK(rig_poll(rig, -1) == MAX_EVENTS);
  CHECK(readable(core_epoll(rig->core)));
  CHECK(rig_poll(rig, -1) == 1500 - MAX_EVENTS);
  rig_close(rig);
}

static const struct {
  const char *name;
  void (*run)(void);
} tests[] = {
#define TEST(name) {#name, name}
    TEST(bytes_arrive_whole_both_ways),
    TEST(refused_splice_is_copied),
    TEST(without_pipes_it_is_copied),
    TEST(many_flows_of_random_size),
    TEST(a_stopped_reader_stops_its_writer),
    TEST(small_messages_are_copied_again),
    TEST(bytes_behind_urgent_data_do_not_wait_for_more),
    TEST(bulk_behind_urgent_data_is_spliced_again),
    TEST(urgent_data_before_the_relay_holds_nothing_back),
    TEST(an_urgent_byte_between_the_look_and_the_read_cuts_nothing),
    TEST(one_turn_is_bounded),
    TEST(each_side_may_end_first),
    TEST(a_reset_is_passed_on),
    TEST(an_aborted_flow_resets_both),
    TEST(early_bytes_go_first_and_edges_are_not_lost),
    TEST(an_upstream_may_have_spoken_before_the_relay_begins),
    TEST(a_client_that_ended_early_is_still_served),
    TEST(early_bytes_may_be_more_than_fit),
    TEST(a_waiting_client_that_resets_is_gone),
    TEST(a_reset_that_a_read_has_heard_of_is_not_forgotten),
    TEST(a_reset_upstream_is_found_when_the_relay_begins),
    TEST(a_failed_connect_is_told_once),
    TEST(both_sockets_have_their_options),
    TEST(a_paused_listener_leaves_clients_in_the_backlog),
    TEST(a_listener_without_descriptors_pauses),
    TEST(a_full_table_pauses_the_listener),
    TEST(a_client_that_cannot_be_taken_in_is_reset),
    TEST(a_listener_that_another_process_has_ended_is_known),
    TEST(an_adopted_wildcard_listener_names_the_address_dialled),
    TEST(an_adopted_listener_never_blocks_and_nothing_else_is_adopted),
    TEST(an_ipv6_listener_is_for_ipv6_only),
    TEST(both_ends_of_a_flow_may_be_in_one_batch),
    TEST(a_slot_is_not_used_again_before_its_end_is_told),
    TEST(a_stale_event_reaches_nobody),
    TEST(an_edge_without_room_for_its_event_is_told_next_time),
    TEST(more_than_a_poll_can_tell_is_told_by_the_next),
};

/* Of the tests whose names have this part; behind a minus, of all others. */
static bool is_wanted(const char *name, const char *part) {
  return *part == '-' ? strstr(name, part + 1) == NULL : strstr(name, part) != NULL;
}

int main(int count, char **arguments) {
  signal(SIGPIPE, SIG_IGN);
  alarm(120);
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    if (count > 1 && !is_wanted(tests[i].name, arguments[1])) continue;
    printf("  %s\n", tests[i].name);
    fflush(stdout);
    tests[i].run();
  }
  return 0;
}
