/* UDP: more than there is room for: events, their payloads, turns; and thousands of flows. */
#include "udp-world.h"

/* Each datagram begins with its number, so that order and loss are seen. */
static void say_numbered(int fd, uint32_t number, size_t size) {
  static uint8_t data[65536];
  memcpy(data, &number, sizeof number);
  EQUAL(send(fd, data, size, 0), size);
}

/* As a train of datagrams of ten bytes each. */
static void say_numbered_train(int fd, uint32_t first, uint32_t count) {
  uint8_t data[64 * 10] = {0};
  for (uint32_t i = 0; i < count; i++) {
    uint32_t number = first + i;
    memcpy(data + 10 * i, &number, sizeof number);
  }
  say_train(fd, data, 10 * count, 10);
}

static uint32_t number_of(const struct world *world, const struct event *event) {
  uint32_t number;
  CHECK(event->length >= sizeof number);
  memcpy(&number, world->shared.arena + event->offset, sizeof number);
  return number;
}

/* Reads numbers in order until `until`. */
static void expect_numbers(int fd, uint32_t *next, uint32_t until) {
  static uint8_t got[65536];
  for (; *next < until; ++*next) {
    uint32_t number;
    CHECK(take(fd, got, sizeof got) >= (ssize_t)sizeof number);
    memcpy(&number, got, sizeof number);
    EQUAL(number, *next);
  }
}

/* One call takes in more than there is room for, and the small ones must not overtake what waits. */
static size_t size_of(uint32_t number) {
  return number % 3 != 0 ? 60000 : 10;
}

static void payloads_without_room_wait(void) {
  enum { COUNT = 64 }; /* all taken in at once, so that no socket announces what is left */
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  world.makes_no_flows = true;
  int client = client_of(world.listens_at, "127.0.0.1");
  for (uint32_t i = 0; i < COUNT; i++) say_numbered(client, i, size_of(i));
  int polls = 0;
  for (uint32_t seen = 0; seen < COUNT; polls++) {
    struct pollfd epoll = {core_epoll(world.core), POLLIN, 0};
    EQUAL(poll(&epoll, 1, 1000), 1); /* whoever waits for it is woken for what is left */
    int count = turn(&world, 0);
    for (int i = 0; i < count; i++, seen++) {
      EQUAL(number_of(&world, &world.shared.events[i]), seen);
      EQUAL(world.shared.events[i].length, size_of(seen));
    }
  }
  CHECK(polls >= 2);
  EQUAL(turn(&world, 0), 0);
  close(client);
  world_close(&world);
}

/* The caller makes the flow after the first poll; what waits then passes in the core, behind what was shown. */
static void order_is_kept_when_a_flow_begins(void) {
  enum { COUNT = 64 }; /* all taken in at once, so that no socket announces what is left */
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int client = client_of(world.listens_at, "127.0.0.1"), other = known_client(&world, "127.0.0.1");
  for (uint32_t i = 0; i < COUNT; i++) say_numbered(client, i, size_of(i));
  for (uint32_t next = 0; next < COUNT;) {
    CHECK(turn(&world, 0) <= MAX_EVENTS);
    expect_numbers(world.upstream, &next, next + 10 < COUNT ? next + 10 : COUNT);
  }
  EQUAL(world.flows, 2);
  CHECK(world.datagrams < COUNT);
  EQUAL(world.values[IN], COUNT + 1 - world.datagrams);
  close(client);
  close(other);
  world_close(&world);
}

static void events_without_room_wait(void) {
  enum { SENDERS = 10, EACH = 300 };
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 32);
  world.makes_no_flows = true;
  int clients[SENDERS];
  uint32_t seen[SENDERS] = {0};
  for (int s = 0; s < SENDERS; s++) clients[s] = client_of(world.listens_at, "127.0.0.1");
  for (uint32_t i = 0; i < EACH; i += 50)
    for (uint32_t s = 0; s < SENDERS; s++) say_numbered_train(clients[s], s * EACH + i, 50);
  for (int total = 0; total < SENDERS * EACH;) {
    int count = turn(&world, 1000);
    CHECK(count > 0 && count < MAX_EVENTS); /* strangers leave room for others */
    for (int i = 0; i < count; i++, total++) {
      uint32_t number = number_of(&world, &world.shared.events[i]);
      EQUAL(number % EACH, seen[number / EACH]++);
    }
  }
  for (int s = 0; s < SENDERS; s++) close(clients[s]);
  world_close(&world);
}

/* While strangers fill every poll, a flow's datagrams and answers pass. */
static void a_flood_of_strangers_does_not_stop_a_flow(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 32);
  int client = known_client(&world, "127.0.0.1"), stranger = client_of(world.listens_at, "127.0.0.1");
  world.makes_no_flows = true;
  for (uint32_t i = 0; i < 4000; i += 50) say_numbered_train(stranger, i, 50);
  struct sockaddr_storage from;
  socklen_t length = sizeof from;
  char got[16];
  core_udp_send(world.core, world.flow, NULL, 0, "x", 1);
  EQUAL(recvfrom(world.upstream, got, sizeof got, 0, (struct sockaddr *)&from, &length), 1);
  for (uint32_t i = 0; i < 3; i++) {
    EQUAL(sendto(world.upstream, &i, sizeof i, 0, (struct sockaddr *)&from, length), sizeof i);
    CHECK(turn(&world, 1000) > MAX_EVENTS / 2);
    uint32_t answer;
    EQUAL(take(client, &answer, sizeof answer), sizeof answer);
    EQUAL(answer, i);
  }
  close(stranger);
  close(client);
  world_close(&world);
}

static void a_closed_listener_forgets_what_waits(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  world.makes_no_flows = true;
  int client = client_of(world.listens_at, "127.0.0.1");
  for (uint32_t i = 0; i < 60; i++) say_numbered(client, i, 60000);
  CHECK(turn(&world, 1000) < 60);
  struct endpoint anywhere = at("127.0.0.1", 0), other;
  int second = core_udp_listen(world.core, &anywhere, NULL);
  EQUAL(core_local(world.core, second, &other), 0);
  core_close(world.core, world.listener, 0);
  say_numbered(client, 1, 100); /* to nobody */
  close(client);
  client = client_of(other, "127.0.0.1");
  say_numbered(client, 7, 100);
  EQUAL(turn(&world, 1000), 1);
  EQUAL(number_of(&world, world.shared.events), 7);
  close(client);
  world_close(&world);
}

/* A turn has an end while data keeps coming, so that others have theirs. */
static void a_turn_is_bounded(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int client = known_client(&world, "127.0.0.1");
  for (uint32_t i = 0; i < 1000; i++) say_numbered(client, i, 10);
  turn(&world, 0);
  EQUAL(world.values[IN], 4 * 64);
  uint32_t next = 0;
  expect_numbers(world.upstream, &next, 4 * 64);
  settle_down(&world);
  expect_numbers(world.upstream, &next, 1000);
  close(client);
  world_close(&world);
}

/* More than the kernel's default buffer holds, and more than one turn takes. */
static void a_burst_of_answers_waits(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int client = known_client(&world, "127.0.0.1");
  struct sockaddr_storage from;
  socklen_t length = sizeof from;
  char got[16];
  say(client, 10, 0);
  settle_down(&world);
  EQUAL(recvfrom(world.upstream, got, sizeof got, 0, (struct sockaddr *)&from, &length), 10);
  for (uint32_t i = 0; i < 400; i++)
    EQUAL(sendto(world.upstream, &i, sizeof i, 0, (struct sockaddr *)&from, length), sizeof i);
  settle_down(&world);
  uint32_t next = 0;
  expect_numbers(client, &next, 400);
  close(client);
  world_close(&world);
}

/* 127.0.0.0/8 is all ours, so one socket can be thousands of clients. */
static void send_from(int fd, uint32_t host, const struct endpoint *to, const void *data, size_t size) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
  } control = {0};
  struct sockaddr_storage name;
  socklen_t length = endpoint_to_sockaddr(to, &name);
  struct iovec piece = {(void *)data, size};
  struct msghdr message = {.msg_name = &name, .msg_namelen = length, .msg_iov = &piece, .msg_iovlen = 1};
  message.msg_control = &control;
  message.msg_controllen = sizeof control.bytes;
  struct in_pktinfo info = {.ipi_spec_dst = {htonl(0x7f000000 + host)}};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  *header = (struct cmsghdr){.cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO, .cmsg_len = CMSG_LEN(sizeof info)};
  memcpy(CMSG_DATA(header), &info, sizeof info);
  EQUAL(sendmsg(fd, &message, 0), size);
}

static void ask_as(int fd, const struct endpoint *to, uint32_t from, uint32_t until) {
  for (uint32_t host = from; host < until; host++) send_from(fd, host + 256, to, &host, sizeof host);
}

/* Every answer comes to the address that asked: it carries the number of the client. */
static void expect_answers(int fd, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    union {
      struct cmsghdr align;
      char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
    } control;
    uint32_t number;
    struct iovec piece = {&number, sizeof number};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control};
    message.msg_controllen = sizeof control.bytes;
    EQUAL(recvmsg(fd, &message, MSG_DONTWAIT), sizeof number);
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof info);
    EQUAL(ntohl(info.ipi_addr.s_addr), 0x7f000000 + number + 256);
  }
}

/* Closes every second flow; returns how many. */
static int close_half(struct world *world) {
  int closed = 0;
  for (int i = 0; i < world->shared.slots; i += 2) {
    if (world->core->slots[i].kind != SLOT_UDP_FLOW) continue;
    core_close(world->core, i, 0);
    closed++;
  }
  return closed;
}

/* Raised only where it is lower: under valgrind nobody changes the hard limit. */
static void open_files_at_least(rlim_t count) {
  struct rlimit files;
  CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
  if (files.rlim_max < count) files.rlim_max = count;
  if (files.rlim_cur < count) files.rlim_cur = count;
  CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
}

/* Fewer where FLOWS in the environment says so: under valgrind each of them takes 3 ms. */
static uint32_t flows_to_make(void) {
  const char *told = getenv("FLOWS");
  return told != NULL ? (uint32_t)atoi(told) : 5000;
}

static void thousands_of_flows(void) {
  enum { SLICE = 100 };
  const uint32_t flows = flows_to_make();
  open_files_at_least(flows + 100);
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", (int)flows + 10);
  int clients = bound_at(at("0.0.0.0", 0)), yes = 1, expected = (int)flows;
  setsockopt(clients, IPPROTO_IP, IP_PKTINFO, &yes, sizeof yes);
  for (int round = 0; round < 3; round++) {
    for (uint32_t from = 0; from < flows; from += SLICE) {
      ask_as(clients, &world.listens_at, from, from + SLICE);
      settle_down(&world);
      for (int i = 0; i < SLICE; i++) EQUAL(echo(&world), 4);
      settle_down(&world);
      expect_answers(clients, SLICE);
    }
    EQUAL(world.flows, expected);
    EQUAL(world.answered, expected);
    if (round == 0) expected += close_half(&world);
  }
  EQUAL(expected, flows + flows / 2);
  close(clients);
  world_close(&world);
}

/* Refusals, first answers and many strangers, more together than a poll can tell. */
static void answers_without_events_wait(void) {
  enum { FLOWS = 400, STRANGERS = 4000 };
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", FLOWS + 10);
  world.makes_no_flows = true;
  int clients = bound_at(at("0.0.0.0", 0)), yes = 1, stranger = client_of(world.listens_at, "127.0.0.1");
  setsockopt(clients, IPPROTO_IP, IP_PKTINFO, &yes, sizeof yes);
  struct sockaddr_storage from[FLOWS];
  socklen_t length = sizeof from[0];
  for (uint32_t i = 0; i < FLOWS; i++) {
    struct endpoint peer = at("127.0.0.0", local_of(clients).port);
    uint32_t host = htonl(0x7f000000 + 256 + i), got;
    memcpy(peer.address + 12, &host, 4);
    int flow = core_udp_flow(world.core, world.listener, &peer, &world.listens_at, &world.upstream_at, NULL, NULL);
    EQUAL(core_udp_send(world.core, flow, NULL, 0, &i, sizeof i), 0);
    EQUAL(recvfrom(world.upstream, &got, sizeof got, 0, (struct sockaddr *)&from[i], &length), sizeof got);
  }
  for (uint32_t i = 0; i < STRANGERS; i += 50) say_numbered_train(stranger, i, 50);
  for (uint32_t f = 0; f < FLOWS; f++)
    EQUAL(sendto(world.upstream, &f, sizeof f, 0, (struct sockaddr *)&from[f], length), sizeof f);
  close(world.upstream);
  for (int i = 0; i < world.shared.slots; i++)
    if (world.core->slots[i].kind == SLOT_UDP_FLOW) EQUAL(core_udp_send(world.core, i, NULL, 0, "x", 1), 0);
  world.upstream = bound_at(world.upstream_at);
  settle_down(&world);
  EQUAL(world.answered, FLOWS);
  EQUAL(world.datagrams, STRANGERS);
  uint32_t number;
  for (uint32_t f = 0; f < FLOWS; f++) EQUAL(recv(clients, &number, sizeof number, MSG_DONTWAIT), sizeof number);
  close(stranger);
  close(clients);
  world_close(&world);
}

static const struct promise tests[] = {
    {"payloads without room wait for the next poll, in order", payloads_without_room_wait},
    {"order is kept when a flow begins between two polls", order_is_kept_when_a_flow_begins},
    {"events without room wait for the next poll, in each sender's order", events_without_room_wait},
    {"a flood of strangers does not stop a flow", a_flood_of_strangers_does_not_stop_a_flow},
    {"first answers wait for an event to tell them", answers_without_events_wait},
    {"a closed listener forgets what waits", a_closed_listener_forgets_what_waits},
    {"a turn is bounded", a_turn_is_bounded},
    {"a burst of 400 answers waits, and none is lost", a_burst_of_answers_waits},
    {"5,000 flows (or FLOWS) of one listener, half of them closed and made anew", thousands_of_flows},
};

int main(void) {
  keep_promises(tests, sizeof tests / sizeof *tests);
}
