/* UDP: datagrams and answers, addresses, refusals, headers, and what the caller is shown. */
#include "udp-world.h"

#include <netinet/ip.h>
#include <sched.h>
#include <sys/wait.h>

static const struct {
  const char *name, *listen, *upstream;
} paths[] = {{"4 to 4", "127.0.0.1", "127.0.0.1"},
             {"4 to 6", "127.0.0.1", "::1"},
             {"6 to 4", "::1", "127.0.0.1"},
             {"6 to 6", "::1", "::1"}};

static void every_size_both_ways(const char *listen, const char *upstream) {
  static const size_t sizes[] = {0, 1, 2, 1199, 1200, 1472, 1473, 9000, 65506, 65507, 0};
  struct world world;
  world_open(&world, listen, upstream, 16);
  int client = known_client(&world, listen);
  double bytes = 5;
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    say(client, sizes[i], i);
    settle_down(&world);
    EQUAL(echo(&world), sizes[i]);
    settle_down(&world);
    expect(client, sizes[i], i);
    bytes += (double)sizes[i];
  }
  EQUAL(world.datagrams, 1);
  EQUAL(world.answered, 1);
  /* What was shown is counted by the caller, and this one does not. */
  EQUAL(world.values[IN], 11);
  EQUAL(world.values[OUT], 12);
  EQUAL(world.values[FROM_CLIENT], bytes - 5);
  EQUAL(world.values[FROM_UPSTREAM], bytes);
  EQUAL(world.shared.bytes[world.flow], bytes - 5);
  EQUAL(world.shared.answer_bytes[world.flow], bytes);
  world.shared.active_ms[world.flow] = 0;
  say(client, 1, 1);
  settle_down(&world);
  CHECK(world.shared.active_ms[world.flow] > core_now() - 2000);
  world.shared.active_ms[world.flow] = 0;
  EQUAL(echo(&world), 1);
  settle_down(&world);
  CHECK(world.shared.active_ms[world.flow] > core_now() - 2000);
  expect(client, 1, 1);
  CHECK(is_silent(client) && is_silent(world.upstream));
  close(client);
  world_close(&world);
}

/* One client socket that dials several addresses of a wildcard listener, and hears each of them. */
static void answers_leave_from(const char *wildcard, const char *from, const char *const dialled[], int count) {
  struct world world;
  world_open(&world, wildcard, "127.0.0.1", 16);
  int client = bound_at(at(from, 0));
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < count; i++) {
      struct endpoint to = at(dialled[i], world.listens_at.port);
      struct sockaddr_storage name;
      socklen_t length = endpoint_to_sockaddr(&to, &name);
      EQUAL(sendto(client, dialled[i], 8, 0, (struct sockaddr *)&name, length), 8);
      settle_down(&world);
      EQUAL(echo(&world), 8);
      settle_down(&world);
      char got[16];
      length = sizeof name;
      struct pollfd ready = {client, POLLIN, 0};
      EQUAL(poll(&ready, 1, 1000), 1);
      EQUAL(recvfrom(client, got, sizeof got, 0, (struct sockaddr *)&name, &length), 8);
      struct endpoint heard;
      endpoint_from_sockaddr(&heard, &name);
      CHECK(same(&heard, &to) && memcmp(got, dialled[i], 8) == 0);
    }
  }
  EQUAL(world.flows, count);
  EQUAL(world.values[QUEUE], 0);
  close(client);
  world_close(&world);
}

/* As many flows as there are slots, so that some share a bucket. */
static void dialled_ipv4(void) {
  static const char *const dialled[] = {"127.0.0.1", "127.0.0.2", "127.1.2.3", "127.0.0.3", "127.0.0.4", "127.0.0.5",
                                        "127.0.0.6", "127.0.0.7", "127.0.0.8", "127.1.0.2", "127.2.0.3", "127.3.0.4"};
  answers_leave_from("0.0.0.0", "127.0.0.9", dialled, sizeof dialled / sizeof *dialled);
}

/* A link-local address means nothing without its interface, on both sides or on ours alone. */
static void dialled_link_local(const char *from, uint32_t zone) {
  struct world world;
  world_open(&world, "::", "::1", 16);
  struct endpoint mine = at(from, 0), to = at("fe80::1", world.listens_at.port);
  mine.zone = zone;
  to.zone = 1;
  int client = bound_at(mine);
  connect_to(client, to);
  say(client, 100, 1);
  EQUAL(turn(&world, 1000), 1);
  EQUAL(world.shared.events[0].peer.zone, zone);
  EQUAL(world.shared.events[0].local.zone, 1);
  EQUAL(echo(&world), 100);
  settle_down(&world);
  expect(client, 100, 1);
  EQUAL(world.values[QUEUE], 0);
  close(client);
  world_close(&world);
}

/* In a network of its own, where lo may have more addresses. */
static void in_own_network(void (*test)(void)) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(unshare(CLONE_NEWNET) == 0);
    EQUAL(system("ip link set lo up && ip addr add fd00::2/128 dev lo && ip addr add fe80::1/64 dev lo nodad &&"
                 "ip addr add fe80::7/64 dev lo nodad"), 0);
    test();
    exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  EQUAL(status, 0);
}

static void dialled_ipv6(void) {
  static const char *const dialled[] = {"0:0:0::1", "fd00:0::2"}; /* eight bytes of each are sent */
  answers_leave_from("::", "::1", dialled, 2);
  dialled_link_local("fe80::7", 1);
  dialled_link_local("::1", 0);
}

static void refusals_end_nothing(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int client = known_client(&world, "127.0.0.1"), upstream = world.upstream, flow = world.flow;
  close(upstream);
  say(client, 10, 1);
  settle_down(&world);
  EQUAL(world.refused, 1);
  EQUAL(world.last_error, ECONNREFUSED);
  say(client, 10, 2);
  EQUAL(turn(&world, 1000), 0); /* sent; what the kernel says to it is for the next poll */
  world.upstream = bound_at(world.upstream_at);
  say(client, 10, 3); /* meets the error of the one before, and passes */
  settle_down(&world);
  EQUAL(world.refused, 2);
  EQUAL(world.answered, 1);
  EQUAL(echo(&world), 10);
  settle_down(&world);
  expect(client, 10, 3);
  EQUAL(world.answered, 2);
  EQUAL(world.flows, 1);
  EQUAL(world.flow, flow);
  EQUAL(world.values[QUEUE] + world.values[OVERSIZE], 0);
  close(client);
  world_close(&world);
}

static void send_tells_the_refusal(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int client = known_client(&world, "127.0.0.1");
  close(world.upstream);
  EQUAL(core_udp_send(world.core, world.flow, "h", 1, "ello", 4), 0);
  EQUAL(core_udp_send(world.core, world.flow, "h", 1, "ello", 4), -ECONNREFUSED);
  world.upstream = bound_at(world.upstream_at);
  EQUAL(core_udp_send(world.core, world.flow, "h", 1, "ello", 4), 0);
  EQUAL(core_udp_send(world.core, world.flow, NULL, 0, NULL, 0), 0);
  char got[9];
  EQUAL(take(world.upstream, got, sizeof got), 5);
  CHECK(memcmp(got, "hello", 5) == 0);
  EQUAL(take(world.upstream, got, sizeof got), 0);
  static char big[65508];
  EQUAL(core_udp_send(world.core, world.flow, NULL, 0, big, sizeof big), -EMSGSIZE);
  EQUAL(world.values[OVERSIZE], 0); /* counts nothing */
  say(client, 3, 1);
  settle_down(&world);
  EQUAL(echo(&world), 3);
  settle_down(&world);
  EQUAL(world.answered, 2); /* since the refusal it is a first one */
  close(client);
  world_close(&world);
}

static void a_client_that_is_gone_disturbs_nobody(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int gone = known_client(&world, "127.0.0.1"), staying = known_client(&world, "127.0.0.1");
  for (unsigned i = 0; i < 5; i++) say(gone, 10, i);
  settle_down(&world);
  close(gone);
  for (unsigned i = 0; i < 5; i++) {
    EQUAL(echo(&world), 10);
    say(staying, 20, i);
    settle_down(&world);
  }
  for (unsigned i = 0; i < 5; i++) {
    EQUAL(echo(&world), 20);
    settle_down(&world);
    expect(staying, 20, i);
  }
  EQUAL(world.values[QUEUE], 0);
  close(staying);
  world_close(&world);
}

static void too_big_is_counted(void) {
  struct world world;
  world_open(&world, "::1", "127.0.0.1", 16);
  int client = known_client(&world, "::1");
  say(client, 65508, 1);
  say(client, 10, 2);
  settle_down(&world);
  EQUAL(world.values[OVERSIZE], 1);
  EQUAL(echo(&world), 10);
  settle_down(&world);
  expect(client, 10, 2);
  close(client);
  world_close(&world);

  world_open(&world, "127.0.0.1", "::1", 16);
  client = known_client(&world, "127.0.0.1");
  struct sockaddr_storage flow_at;
  socklen_t length = sizeof flow_at;
  say(client, 10, 1);
  settle_down(&world);
  char got[16];
  EQUAL(recvfrom(world.upstream, got, sizeof got, 0, (struct sockaddr *)&flow_at, &length), 10);
  static char big[65508];
  EQUAL(sendto(world.upstream, big, sizeof big, 0, (struct sockaddr *)&flow_at, length), sizeof big);
  EQUAL(sendto(world.upstream, got, 7, 0, (struct sockaddr *)&flow_at, length), 7);
  settle_down(&world);
  EQUAL(world.values[OVERSIZE], 1);
  EQUAL(take(client, got, sizeof got), 7);
  close(client);
  world_close(&world);
}

static void a_prefix_is_in_front_of_each(void) {
  enum { HEADER = 28 };
  static uint8_t got[65536];
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int client = known_client(&world, "127.0.0.1");
  char header[HEADER + 1] = "PROXY PROXY PROXY PROXY PROX";
  EQUAL(core_udp_prefix(world.core, world.flow, header, HEADER), 0);
  memset(header, 0, sizeof header); /* the core has a copy */
  static const size_t sizes[] = {10, 0, 1200, 1200, 1200, 0, 0, 7, 65507 - HEADER};
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) say(client, sizes[i], i);
  settle_down(&world);
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    EQUAL(take(world.upstream, got, sizeof got), sizes[i] + HEADER);
    CHECK(memcmp(got, "PROXY PROXY PROXY PROXY PROX", HEADER) == 0);
    uint8_t wanted[1200];
    fill(wanted, 7, i);
    CHECK(sizes[i] < 7 || memcmp(got + HEADER, wanted, 7) == 0);
  }
  double counted = world.values[FROM_CLIENT];
  EQUAL(counted, 10 + 3600 + 7 + 65507 - HEADER);
  say(client, 65508 - HEADER, 1);
  settle_down(&world);
  EQUAL(world.values[OVERSIZE], 1);
  EQUAL(core_udp_prefix(world.core, world.flow, NULL, 0), 0);
  say(client, 10, 3);
  settle_down(&world);
  expect(world.upstream, 10, 3);
  EQUAL(core_udp_prefix(world.core, world.flow, got, 4097), -EMSGSIZE);
  EQUAL(core_udp_prefix(world.core, world.flow, got, 4096), 0);
  close(client);
  world_close(&world);
}

static void inspected_flows_are_shown(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int client = known_client(&world, "127.0.0.1");
  EQUAL(core_udp_inspect(world.core, world.flow, 1), 0);
  world.makes_no_flows = true;
  say(client, 10, 1);
  EQUAL(turn(&world, 1000), 1);
  const struct event *event = world.shared.events;
  EQUAL(event->kind, EVENT_DATAGRAM);
  EQUAL(event->slot, world.listener);
  EQUAL(event->value, world.flow);
  EQUAL(event->length, 10);
  struct endpoint mine = local_of(client);
  CHECK(same(&event->peer, &mine) && same(&event->local, &world.listens_at));
  CHECK(is_silent(world.upstream));
  EQUAL(world.values[IN], 0);
  EQUAL(core_udp_inspect(world.core, world.flow, 0), 0);
  say(client, 10, 2);
  EQUAL(turn(&world, 1000), 0);
  expect(world.upstream, 10, 2);
  EQUAL(core_udp_inspect(world.core, 15, 1), -EBADF);
  close(client);
  world_close(&world);
}

static void an_inspected_listener_shows_all(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int client = known_client(&world, "127.0.0.1"), first = world.flow;
  struct endpoint mine = local_of(client);
  EQUAL(core_udp_inspect(world.core, world.listener, 1), 0);
  int second = core_udp_flow(world.core, world.listener, &mine, &world.listens_at, &world.upstream_at, NULL, NULL);
  CHECK(second >= 0 && second != first);
  world.makes_no_flows = true;
  say(client, 10, 1);
  EQUAL(turn(&world, 1000), 1);
  EQUAL(world.shared.events[0].value, -1);
  EQUAL(core_udp_send(world.core, second, "PROXY", 5, "x", 1), 0);
  EQUAL(echo(&world), 6);
  settle_down(&world);
  char got[16];
  EQUAL(take(client, got, sizeof got), 6);
  core_close(world.core, first, 0); /* the one behind it in the same bucket stays */
  EQUAL(core_udp_send(world.core, second, NULL, 0, "y", 1), 0);
  EQUAL(echo(&world), 1);
  settle_down(&world);
  EQUAL(take(client, got, sizeof got), 1);
  close(client);
  world_close(&world);
}

/* Flows without counters are relayed as well, in both directions. */
static void nothing_is_counted_without_counters(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int client = client_of(world.listens_at, "127.0.0.1");
  struct endpoint mine = local_of(client), wrong = at("127.0.0.77", 1); /* the listener knows where it is */
  CHECK(core_udp_flow(world.core, world.listener, &mine, &wrong, &world.upstream_at, NULL, NULL) >= 0);
  say(client, 10, 1);
  settle_down(&world);
  EQUAL(world.datagrams, 0);
  EQUAL(echo(&world), 10);
  settle_down(&world);
  expect(client, 10, 1);
  close(client);
  world_close(&world);
}

static void send_from_port_0(const struct endpoint *to) {
  struct {
    struct iphdr ip;
    uint16_t source, destination, length, sum;
    char payload[4];
  } packet = {.ip = {.version = 4, .ihl = 5, .ttl = 9, .protocol = IPPROTO_UDP, .saddr = htonl(INADDR_LOOPBACK)},
              .destination = htons(to->port), .length = htons(12), .payload = "boo"};
  memcpy(&packet.ip.daddr, to->address + 12, 4);
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {packet.ip.daddr}};
  int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  CHECK(raw >= 0);
  EQUAL(sendto(raw, &packet, 32, 0, (struct sockaddr *)&name, sizeof name), 32);
  close(raw);
}

static void port_0_is_dropped_first(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  core_udp_inspect(world.core, world.listener, 1);
  for (int i = 0; i < 3; i++) send_from_port_0(&world.listens_at);
  settle_down(&world);
  EQUAL(world.values[SOURCE], 3);
  EQUAL(world.datagrams, 0);
  world_close(&world);
}

static void another_upstream_in_the_same_slot(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int client = known_client(&world, "127.0.0.1"), other = bound_at(at("::1", 0)), flow = world.flow;
  say(client, 10, 1);
  settle_down(&world);
  EQUAL(echo(&world), 10); /* answers too late */
  struct endpoint there = local_of(other), nowhere = at("255.255.255.255", 9);
  EQUAL(core_udp_connect(world.core, flow, &nowhere, NULL), -EACCES);
  EQUAL(core_udp_connect(world.core, flow, &there, NULL), 0);
  say(client, 10, 2);
  settle_down(&world);
  expect(other, 10, 2);
  CHECK(is_silent(client));
  EQUAL(world.answered, 1);
  close(world.upstream);
  world.upstream = other;
  say(client, 10, 3);
  settle_down(&world);
  EQUAL(echo(&world), 10);
  settle_down(&world);
  expect(client, 10, 3);
  EQUAL(world.answered, 2);
  EQUAL(core_udp_flow(world.core, world.listener, &there, &there, &nowhere, NULL, NULL), -EACCES);
  close(client);
  world_close(&world);
}

static void closing_in_any_order(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int client = known_client(&world, "127.0.0.1"), flow = world.flow;
  say(client, 10, 1);
  settle_down(&world);
  EQUAL(echo(&world), 10);
  core_close(world.core, world.listener, 0);
  settle_down(&world);
  CHECK(is_silent(client)); /* there is nobody any more who could answer it */
  EQUAL(core_udp_send(world.core, flow, NULL, 0, "x", 1), 0);
  core_close(world.core, flow, 0);
  EQUAL(core_udp_send(world.core, flow, NULL, 0, "x", 1), -EBADF);
  EQUAL(core_udp_connect(world.core, flow, &world.upstream_at, NULL), -EBADF);
  EQUAL(core_udp_prefix(world.core, flow, "x", 1), -EBADF);
  const struct endpoint *there = &world.upstream_at;
  EQUAL(core_udp_flow(world.core, world.listener, there, there, there, NULL, NULL), -EBADF);
  close(client);
  world_close(&world);
}

static void addresses_are_ours_alone(void) {
  struct world world;
  world_open(&world, "0.0.0.0", "127.0.0.1", 16);
  struct endpoint part = at("127.0.0.1", world.listens_at.port), pair = at("::", world.listens_at.port);
  EQUAL(core_udp_listen(world.core, &part, NULL), -EADDRINUSE);
  CHECK(core_udp_listen(world.core, &pair, NULL) >= 0); /* IPv6 only, so both wildcards have room */
  world_close(&world);
}

/* Answers of one poll that go out by two sockets. */
static void each_listener_answers_its_own(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  struct endpoint first = world.listens_at, anywhere = at("::1", 0);
  int client = known_client(&world, "127.0.0.1");
  int second = core_udp_listen(world.core, &anywhere, &world.counters);
  EQUAL(core_local(world.core, second, &world.listens_at), 0);
  int other = known_client(&world, "::1");
  for (unsigned i = 0; i < 10; i++) {
    say(client, 10 + i, i);
    say(other, 30 + i, i);
  }
  settle_down(&world);
  for (int i = 0; i < 20; i++) CHECK(echo(&world) > 0);
  EQUAL(core_poll(world.core, 0), 0);
  for (unsigned i = 0; i < 10; i++) {
    expect(client, 10 + i, i);
    expect(other, 30 + i, i);
  }
  CHECK(!same(&first, &world.listens_at));
  close(client);
  close(other);
  world_close(&world);
}

static void a_bound_socket_is_adopted(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int fd = socket(AF_INET6, SOCK_DGRAM, 0), no = 0;
  setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
  struct sockaddr_in6 any = {.sin6_family = AF_INET6};
  CHECK(bind(fd, (struct sockaddr *)&any, sizeof any) == 0);
  CHECK(core_adopt(world.core, fd, 1, &world.counters) >= 0);
  /* It takes IPv4 as well, and answers from the right address. */
  world.listens_at = at("127.0.0.3", local_of(fd).port);
  close(known_client(&world, "127.0.0.1"));
  world_close(&world);
}

static int open_descriptors(void) {
  int count = 0;
  for (int fd = 0; fd < 256; fd++) count += lseek(fd, 0, SEEK_CUR) >= 0 || errno != EBADF;
  return count;
}

static void a_full_table_says_so(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 2);
  close(known_client(&world, "127.0.0.1"));
  int before = open_descriptors();
  const struct endpoint *there = &world.upstream_at;
  EQUAL(core_udp_flow(world.core, world.listener, there, there, there, NULL, NULL), -ENFILE);
  struct endpoint anywhere = at("127.0.0.1", 0);
  EQUAL(core_udp_listen(world.core, &anywhere, NULL), -ENFILE);
  EQUAL(open_descriptors(), before);
  world_close(&world);
}

static const struct promise tests[] = {
    {"0.0.0.0: answers leave from the address the client dialled", dialled_ipv4},
    {"a refused datagram ends nothing, and the error loses no other", refusals_end_nothing},
    {"core_udp_send tells a refusal, and counts nothing", send_tells_the_refusal},
    {"a client that is gone disturbs nobody", a_client_that_is_gone_disturbs_nobody},
    {"what is too big for the other family is counted, and the flow goes on", too_big_is_counted},
    {"a prefix is in front of every datagram", a_prefix_is_in_front_of_each},
    {"datagrams of an inspected flow are shown", inspected_flows_are_shown},
    {"an inspected listener shows all, and has several flows of one peer", an_inspected_listener_shows_all},
    {"flows without counters", nothing_is_counted_without_counters},
    {"source port 0 is dropped before anything else", port_0_is_dropped_first},
    {"a flow gets another upstream in the same slot", another_upstream_in_the_same_slot},
    {"listener and flow may be closed in any order", closing_in_any_order},
    {"nobody binds a part of our address, and both wildcards share a port", addresses_are_ours_alone},
    {"answers of two listeners in one poll leave by their own", each_listener_answers_its_own},
    {"a bound socket is adopted", a_bound_socket_is_adopted},
    {"a full table says so, and leaks nothing", a_full_table_says_so},
};

int main(void) {
  for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
    every_size_both_ways(paths[i].listen, paths[i].upstream);
    printf("ok %s: datagrams of every size pass both ways and are counted\n", paths[i].name);
  }
  keep_promises(tests, sizeof tests / sizeof *tests);
  in_own_network(dialled_ipv6);
  puts("ok [::]: answers leave from the address the client dialled, link-local ones included");
}
