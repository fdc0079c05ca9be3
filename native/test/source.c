/*
 * The addresses upstreams are connected from. What another host would see is for the tests in network namespaces;
 * here are the addresses that loopback has, and the answers of the kernel to those it has not.
 */
#include "udp-world.h"

#include <dirent.h>
#include <sched.h>
#include <sys/wait.h>

static struct source from_local(const char *host, int port) {
  return (struct source){.at = at(host, port), .kind = SOURCE_LOCAL};
}

static struct source from_foreign(const char *host, int port) {
  return (struct source){.at = at(host, port), .kind = SOURCE_FOREIGN};
}

static int descriptors(void) {
  DIR *directory = opendir("/proc/self/fd");
  int count = 0;
  while (readdir(directory) != NULL) count++;
  closedir(directory);
  return count;
}

/* ---- TCP ---- */

static int server_at(struct endpoint where, struct endpoint *bound) {
  struct sockaddr_storage name;
  socklen_t length = endpoint_to_sockaddr(&where, &name);
  int fd = socket(name.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&name, length) == 0 && listen(fd, 16) == 0);
  *bound = local_of(fd);
  return fd;
}

static int accepted(int server, struct endpoint *peer) {
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  int fd = accept(server, (struct sockaddr *)&name, &length);
  CHECK(fd >= 0);
  endpoint_from_sockaddr(peer, &name);
  return fd;
}

/* The errno that EVENT_CONNECTED tells. */
static int outcome(struct world *world, int slot) {
  for (int i = 0; i < 100; i++) {
    int count = core_poll(world->core, 50);
    for (int e = 0; e < count; e++) {
      const struct event *event = &world->shared.events[e];
      if (event->kind == EVENT_CONNECTED && event->slot == slot) return event->value;
    }
  }
  CHECK(!"connected");
  return 0;
}

static struct endpoint same_address(struct endpoint endpoint, const struct endpoint *other) {
  CHECK(memcmp(endpoint.address, other->address, 16) == 0);
  return endpoint;
}

static void tcp_comes_from_the_address_that_was_asked_for(void) {
  struct world world;
  struct endpoint to, peer;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int server = server_at(at("127.0.0.1", 0), &to);
  const struct source from = from_local("127.0.0.9", 0);
  int slot = core_connect(world.core, &to, &from);
  CHECK(slot >= 0);
  EQUAL(outcome(&world, slot), 0);
  close(accepted(server, &peer));
  CHECK(same_address(peer, &from.at).port != 0);
  struct endpoint local;
  EQUAL(core_local(world.core, slot, &local), 0);
  CHECK(same(&local, &peer));
  close(server);
  world_close(&world);
}

/* In a child, so that what it changes of itself is nobody else's. */
static void in_child(void (*run)(void)) {
  fflush(stdout);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    run();
    exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Two ports are enough for two connections to each of two upstreams; bind() would have given each away once. */
static void few_ports(void) {
  struct world world;
  struct endpoint to, peer;
  CHECK(unshare(CLONE_NEWNET) == 0);
  EQUAL(system("ip link set lo up && echo 40000 40001 > /proc/sys/net/ipv4/ip_local_port_range"), 0);
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  const struct source from = from_local("127.0.0.9", 0);
  for (int i = 0; i < 2; i++) {
    int server = server_at(at("127.0.0.1", 23450 + i), &to);
    for (int k = 0; k < 2; k++) {
      int slot = core_connect(world.core, &to, &from);
      CHECK(slot >= 0);
      EQUAL(outcome(&world, slot), 0);
      close(accepted(server, &peer));
    }
    close(server);
  }
  world_close(&world);
}

static void ports_are_chosen_for_each_upstream(void) {
  in_child(few_ports);
}

static void a_kept_port_is_used_again_behind_its_end(void) {
  struct world world;
  struct endpoint to, peer;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int server = server_at(at("127.0.0.1", 0), &to);
  /* Free a moment ago, and outside of what the kernel gives away on its own at 127.0.0.9. */
  const struct source from = from_local("127.0.0.9", 23456);
  for (int i = 0; i < 3; i++) {
    int slot = core_connect(world.core, &to, &from);
    CHECK(slot >= 0);
    EQUAL(outcome(&world, slot), 0);
    int client = accepted(server, &peer);
    CHECK(same(&peer, &from.at));
    core_close(world.core, slot, 0); /* its FIN is the first: TIME_WAIT is here */
    char byte;
    EQUAL(read(client, &byte, 1), 0);
    close(client);
  }
  close(server);
  world_close(&world);
}

static void a_clash_of_ports_is_told(void) {
  struct world world;
  struct endpoint to;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int server = server_at(at("127.0.0.1", 0), &to);
  const struct source from = from_local("127.0.0.9", 23457);
  int slot = core_connect(world.core, &to, &from);
  EQUAL(outcome(&world, slot), 0);
  int before = descriptors();
  /* Both ends are the same as those of a connection that is there. */
  int second = core_connect(world.core, &to, &from);
  CHECK(second >= 0);
  EQUAL(outcome(&world, second), EADDRNOTAVAIL);
  core_close(world.core, second, 0);
  /* A listener without SO_REUSEADDR has its port alone. */
  struct endpoint taken;
  int holder = server_at(at("127.0.0.9", 0), &taken);
  const struct source held = {.at = taken, .kind = SOURCE_LOCAL};
  EQUAL(core_connect(world.core, &to, &held), -EADDRINUSE);
  close(holder);
  EQUAL(descriptors(), before);
  close(server);
  world_close(&world);
}

/* ---- UDP ---- */

static int flow_from(struct world *world, const struct source *from, int client_port) {
  struct endpoint peer = at("127.0.0.1", client_port);
  return core_udp_flow(world->core, world->listener, &peer, &world->listens_at, &world->upstream_at, from, NULL);
}

/* Whom the upstream has its next datagram from. */
static struct endpoint sender(const struct world *world) {
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  char byte;
  CHECK(recvfrom(world->upstream, &byte, 1, 0, (struct sockaddr *)&name, &length) == 1);
  struct endpoint endpoint;
  endpoint_from_sockaddr(&endpoint, &name);
  return endpoint;
}

static void udp_comes_from_the_address_that_was_asked_for(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  const struct source any_port = from_local("127.0.0.9", 0), kept = from_local("127.0.0.8", 23458);
  int flow = flow_from(&world, &any_port, 1000);
  CHECK(flow >= 0);
  EQUAL(core_udp_send(world.core, flow, NULL, 0, "x", 1), 0);
  struct endpoint seen = sender(&world);
  CHECK(same_address(seen, &any_port.at).port != 0);
  EQUAL(core_udp_connect(world.core, flow, &world.upstream_at, &kept), 0);
  EQUAL(core_udp_send(world.core, flow, NULL, 0, "x", 1), 0);
  seen = sender(&world);
  CHECK(same(&seen, &kept.at));
  world_close(&world);
}

/* Two sockets with the same pair of addresses would take each other's answers. */
static void a_kept_udp_port_is_had_once(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  const struct source from = from_local("127.0.0.9", 23459);
  int before = descriptors(), flow = flow_from(&world, &from, 1000);
  CHECK(flow >= 0);
  EQUAL(flow_from(&world, &from, 1001), -EADDRINUSE);
  core_close(world.core, flow, 0);
  EQUAL(descriptors(), before);
  CHECK(flow_from(&world, &from, 1001) >= 0);
  world_close(&world);
}

/* ---- addresses that are not ours ---- */

static void a_source_is_of_the_family_of_its_upstream(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int before = descriptors();
  const struct source from = from_local("::1", 0);
  EQUAL(core_connect(world.core, &world.upstream_at, &from), -EAFNOSUPPORT);
  EQUAL(flow_from(&world, &from, 1000), -EAFNOSUPPORT);
  EQUAL(descriptors(), before);
  world_close(&world);
}

static void an_ipv4_address_without_a_route_is_refused(void) {
  struct world world;
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int before = descriptors();
  const struct source from = from_local("203.0.113.77", 0);
  EQUAL(core_connect(world.core, &world.upstream_at, &from), -EADDRNOTAVAIL);
  EQUAL(flow_from(&world, &from, 1000), -EADDRNOTAVAIL);
  EQUAL(descriptors(), before);
  world_close(&world);
}

/* Whether its packets are kept is a matter of routes; to have it needs nothing. */
static void an_ipv6_address_needs_no_privilege(void) {
  struct world world;
  struct endpoint local;
  world_open(&world, "::1", "::1", 16);
  const struct source from = from_local("2001:db8::77", 0);
  int slot = core_connect(world.core, &world.upstream_at, &from);
  CHECK(slot >= 0);
  EQUAL(core_local(world.core, slot, &local), 0);
  same_address(local, &from.at);
  world_close(&world);
}

static void foreign_addresses_are_had_with_the_privilege(void) {
  struct world world;
  struct endpoint local;
  if (core_allows_foreign() != 0) {
    puts("   (this user has not the privilege)");
    return;
  }
  static const char *const hosts[][2] = {{"127.0.0.1", "203.0.113.77"}, {"::1", "2001:db8::77"}};
  for (int i = 0; i < 2; i++) {
    world_open(&world, hosts[i][0], hosts[i][0], 16);
    const struct source from = from_foreign(hosts[i][1], 4567);
    int slot = core_connect(world.core, &world.upstream_at, &from);
    CHECK(slot >= 0);
    EQUAL(core_local(world.core, slot, &local), 0);
    CHECK(same(&local, &from.at));
    struct endpoint peer = at(hosts[i][0], 1000);
    int flow =
        core_udp_flow(world.core, world.listener, &peer, &world.listens_at, &world.upstream_at, &from, NULL);
    CHECK(flow >= 0);
    EQUAL(core_local(world.core, flow, &local), 0);
    CHECK(same(&local, &from.at));
    world_close(&world);
  }
}

/* Bound and not connected, of the caller's own descriptors, and of no core. */
static void a_socket_is_for_the_caller(void) {
  int before = descriptors(), type = 0;
  socklen_t size = sizeof type;
  static const char *const hosts[] = {"127.0.0.1", "::1"};
  for (int i = 0; i < 4; i++) {
    const int is_tcp = i / 2;
    const struct source from = from_local(hosts[i % 2], 4567);
    int fd = core_socket_from(&from, is_tcp);
    CHECK(fd >= 0);
    struct endpoint local = local_of(fd);
    CHECK(same(&local, &from.at));
    EQUAL(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size), 0);
    EQUAL(type, is_tcp ? SOCK_STREAM : SOCK_DGRAM);
    close(fd);
  }
  const struct source nobodys = from_local("203.0.113.77", 0);
  EQUAL(core_socket_from(&nobodys, 1), -EADDRNOTAVAIL);
  EQUAL(descriptors(), before);
}

static void without_privilege(void) {
  struct world world;
  if (geteuid() == 0) CHECK(setresuid(65534, 65534, 65534) == 0);
  world_open(&world, "127.0.0.1", "127.0.0.1", 16);
  int before = descriptors();
  const struct source from = from_foreign("203.0.113.77", 0), ipv6 = from_foreign("2001:db8::77", 0);
  EQUAL(core_allows_foreign(), -EPERM);
  EQUAL(core_connect(world.core, &world.upstream_at, &from), -EPERM);
  EQUAL(flow_from(&world, &from, 1000), -EPERM);
  struct endpoint loopback = at("::1", 9);
  EQUAL(core_connect(world.core, &loopback, &ipv6), -EPERM);
  EQUAL(core_socket_from(&from, 1), -EPERM);
  EQUAL(core_socket_from(&ipv6, 0), -EPERM);
  EQUAL(descriptors(), before);
  world_close(&world);
}

static void foreign_addresses_are_refused_without_it(void) {
  in_child(without_privilege);
}

static const struct promise tests[] = {
    {"TCP comes from the address that was asked for", tcp_comes_from_the_address_that_was_asked_for},
    {"a port is chosen by connect, for one upstream", ports_are_chosen_for_each_upstream},
    {"a kept port is used again behind its end", a_kept_port_is_used_again_behind_its_end},
    {"a clash of ports is told, and leaks nothing", a_clash_of_ports_is_told},
    {"UDP comes from the address that was asked for", udp_comes_from_the_address_that_was_asked_for},
    {"a kept UDP port is had once", a_kept_udp_port_is_had_once},
    {"a source is of the family of its upstream", a_source_is_of_the_family_of_its_upstream},
    {"an IPv4 address without a route is refused", an_ipv4_address_without_a_route_is_refused},
    {"an IPv6 address needs no privilege", an_ipv6_address_needs_no_privilege},
    {"a socket is for the caller", a_socket_is_for_the_caller},
    {"foreign addresses are had with the privilege", foreign_addresses_are_had_with_the_privilege},
    {"foreign addresses are refused without it", foreign_addresses_are_refused_without_it},
};

int main(void) {
  alarm(60);
  keep_promises(tests, sizeof tests / sizeof *tests);
  return 0;
}
