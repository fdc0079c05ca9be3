/* One address for several cores: how clients are spread, and that nobody else has it. */
#include "udp-world.h"

#include <dirent.h>
#include <netinet/tcp.h>
#include <pthread.h>

enum { CORES = 3, CLIENTS = 60, BACKLOG = 128, SLOTS = 256, DUELS = 500 };

static const char *const hosts[] = {"127.0.0.1", "::1", "0.0.0.0", "::"};
enum { HOSTS = sizeof hosts / sizeof *hosts };

/* Where no connection of another program has its end, so that a port that was free still is. */
static const char *const quiet_host = "127.77.0.1";

/* What a wildcard is dialled by. */
static struct endpoint dialled(const char *host, int fd) {
  const char *address = strcmp(host, "0.0.0.0") == 0 ? "127.0.0.2" : strcmp(host, "::") == 0 ? "::1" : host;
  return at(address, local_of(fd).port);
}

static int open_descriptors(void) {
  DIR *directory = opendir("/proc/self/fd");
  CHECK(directory != NULL);
  int count = 0;
  while (readdir(directory) != NULL) count++;
  closedir(directory);
  return count;
}

/* Somebody who sends to the address again and again while it is being bound, from one socket. */
static int pest = -1;
static struct endpoint pestered;

int __real_bind(int fd, const struct sockaddr *name, socklen_t length);
int __wrap_bind(int fd, const struct sockaddr *name, socklen_t length);
int __wrap_bind(int fd, const struct sockaddr *name, socklen_t length) {
  int result = __real_bind(fd, name, length);
  if (pest < 0) return result;
  struct sockaddr_storage to;
  socklen_t to_length = endpoint_to_sockaddr(&pestered, &to);
  for (int i = 0; i < 50; i++) (void)!sendto(pest, "early", 5, MSG_DONTWAIT, (struct sockaddr *)&to, to_length);
  return result;
}

static void bind_group(const char *host, int is_udp, int fds[CORES]) {
  struct endpoint where = at(host, 0);
  EQUAL(core_bind_group(&where, is_udp, BACKLOG, fds, CORES), 0);
  for (int i = 1; i < CORES; i++) EQUAL(local_of(fds[i]).port, local_of(fds[0]).port);
}

static void close_all(const int fds[], int count) {
  for (int i = 0; i < count; i++) close(fds[i]);
}

static void open_worlds(struct world worlds[CORES]) {
  for (int i = 0; i < CORES; i++) {
    world_open(&worlds[i], "127.0.0.1", "127.0.0.1", SLOTS);
    worlds[i].makes_no_flows = true;
  }
}

static void adopt_all(struct world worlds[CORES], const int fds[CORES], int is_udp) {
  for (int i = 0; i < CORES; i++) CHECK(core_adopt(worlds[i].core, fds[i], is_udp, &worlds[i].counters) >= 0);
}

static int events_of(struct world *world, enum event_kind kind, void (*look)(struct world *, const struct event *)) {
  int seen = 0, count;
  while ((count = core_poll(world->core, 5)) > 0) {
    for (int i = 0; i < count; i++) {
      const struct event *event = &world->shared.events[i];
      if (event->kind != kind) continue;
      seen++;
      if (look != NULL) look(world, event);
    }
  }
  return seen;
}

static void is_prepared(struct world *world, const struct event *accepted) {
  int fd = world->core->slots[accepted->slot].fd, value = 0;
  socklen_t length = sizeof value;
  CHECK(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &length) == 0 && value != 0);
  CHECK(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &length) == 0 && value != 0);
}

/* They connect before anybody accepts, and are accepted by the core of another thread later. */
static void connections_are_spread(void) {
  for (int h = 0; h < HOSTS; h++) {
    struct world worlds[CORES];
    int fds[CORES], clients[CLIENTS], all = 0;
    open_worlds(worlds);
    bind_group(hosts[h], false, fds);
    struct endpoint to = dialled(hosts[h], fds[0]);
    for (int i = 0; i < CLIENTS; i++) {
      clients[i] = socket(endpoint_is_ipv4(&to) ? AF_INET : AF_INET6, SOCK_STREAM, 0);
      connect_to(clients[i], to);
    }
    adopt_all(worlds, fds, false);
    for (int i = 0; i < CORES; i++) {
      int accepted = events_of(&worlds[i], EVENT_ACCEPTED, is_prepared);
      CHECK(accepted > 0);
      all += accepted;
    }
    EQUAL(all, CLIENTS);
    close_all(clients, CLIENTS);
    for (int i = 0; i < CORES; i++) world_close(&worlds[i]);
  }
}

static struct endpoint expected_local;

static void names_what_was_dialled(struct world *world, const struct event *datagram) {
  (void)world;
  CHECK(same(&datagram->local, &expected_local));
}

/* Also those that arrive before a core has the socket. */
static void datagrams_are_spread_by_peer(void) {
  for (int h = 0; h < HOSTS; h++) {
    struct world worlds[CORES];
    int fds[CORES], clients[CLIENTS], all = 0;
    open_worlds(worlds);
    bind_group(hosts[h], true, fds);
    expected_local = dialled(hosts[h], fds[0]);
    const char *from = endpoint_is_ipv4(&expected_local) ? "127.0.0.1" : "::1";
    for (int i = 0; i < CLIENTS; i++) clients[i] = client_of(expected_local, from);
    for (int i = 0; i < CLIENTS; i++) EQUAL(send(clients[i], "1", 1, 0), 1);
    adopt_all(worlds, fds, true);
    int first[CORES];
    for (int i = 0; i < CORES; i++) {
      first[i] = events_of(&worlds[i], EVENT_DATAGRAM, names_what_was_dialled);
      CHECK(first[i] > 0);
      all += first[i];
    }
    EQUAL(all, CLIENTS);
    for (int i = 0; i < CLIENTS; i++) EQUAL(send(clients[i], "2", 1, 0), 1);
    for (int i = 0; i < CORES; i++) EQUAL(events_of(&worlds[i], EVENT_DATAGRAM, names_what_was_dialled), first[i]);
    close_all(clients, CLIENTS);
    for (int i = 0; i < CORES; i++) world_close(&worlds[i]);
  }
}

static void nothing_is_heard_by_half_a_group(void) {
  int fds[CORES], probe = bound_at(at(quiet_host, 0));
  char data[8];
  pestered = local_of(probe);
  close(probe);
  pest = bound_at(at(quiet_host, 0));
  EQUAL(core_bind_group(&pestered, true, 0, fds, CORES), 0);
  for (int i = 0; i < CORES; i++) CHECK(recv(fds[i], data, sizeof data, MSG_DONTWAIT) < 0 && errno == EAGAIN);
  connect_to(pest, pestered);
  EQUAL(send(pest, "now", 3, 0), 3);
  int heard = 0;
  for (int i = 0; i < CORES; i++) heard += recv(fds[i], data, sizeof data, MSG_DONTWAIT) == 3;
  EQUAL(heard, 1);
  close_all(fds, CORES);
  close(pest);
  pest = -1;
}

static void the_address_is_in_use_for_others(void) {
  for (int h = 0; h < HOSTS; h++) {
    struct world world;
    world_open(&world, "127.0.0.1", "127.0.0.1", SLOTS);
    for (int is_udp = 0; is_udp < 2; is_udp++) {
      int fds[CORES], more[CORES];
      bind_group(hosts[h], is_udp, fds);
      struct endpoint taken = at(hosts[h], local_of(fds[0]).port);
      int before = open_descriptors();
      EQUAL(core_bind_group(&taken, is_udp, BACKLOG, more, CORES), -EADDRINUSE);
      EQUAL(is_udp ? core_udp_listen(world.core, &taken, NULL) : core_tcp_listen(world.core, &taken, BACKLOG),
            -EADDRINUSE);
      EQUAL(open_descriptors(), before);
      close_all(fds, CORES);
      EQUAL(core_bind_group(&taken, is_udp, BACKLOG, more, CORES), 0);
      close_all(more, CORES);
    }
    world_close(&world);
  }
}

struct duel {
  pthread_barrier_t *start;
  struct endpoint where;
  int is_udp, result, fds[CORES];
};

static void *duellist(void *data) {
  struct duel *duel = data;
  pthread_barrier_wait(duel->start);
  duel->result = core_bind_group(&duel->where, duel->is_udp, BACKLOG, duel->fds, CORES);
  pthread_barrier_wait(duel->start);
  return NULL;
}

static void of_two_at_once_one_has_it(void) {
  pthread_barrier_t start;
  CHECK(pthread_barrier_init(&start, NULL, 2) == 0);
  int probe = bound_at(at(quiet_host, 0));
  struct endpoint where = local_of(probe);
  close(probe);
  for (int i = 0; i < DUELS; i++) {
    struct duel duels[2];
    pthread_t other;
    for (int d = 0; d < 2; d++) duels[d] = (struct duel){.start = &start, .where = where, .is_udp = i % 2};
    CHECK(pthread_create(&other, NULL, duellist, &duels[1]) == 0);
    duellist(&duels[0]);
    CHECK(pthread_join(other, NULL) == 0);
    EQUAL((duels[0].result == 0) + (duels[1].result == 0), 1);
    for (int d = 0; d < 2; d++) {
      if (duels[d].result == 0) close_all(duels[d].fds, CORES);
      else EQUAL(duels[d].result, -EADDRINUSE);
    }
  }
  pthread_barrier_destroy(&start);
}

static void all_or_nothing(void) {
  struct rlimit limit, few;
  CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  for (int is_udp = 0; is_udp < 2; is_udp++) {
    for (int room = 0; room < CORES; room++) {
      int fds[CORES], before = open_descriptors(), next = dup(0);
      close(next);
      few = (struct rlimit){(rlim_t)(next + room), limit.rlim_max};
      CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
      struct endpoint where = at("127.0.0.1", 0);
      EQUAL(core_bind_group(&where, is_udp, BACKLOG, fds, CORES), -EMFILE);
      CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
      EQUAL(open_descriptors(), before);
    }
  }
}

static const struct promise tests[] = {
    {"connections are spread over all cores", connections_are_spread},
    {"datagrams are spread over all cores, and a peer stays with one", datagrams_are_spread_by_peer},
    {"nothing is heard before all sockets are there", nothing_is_heard_by_half_a_group},
    {"the address is in use for others, groups too, until all sockets are closed", the_address_is_in_use_for_others},
    {"of two that bind at once one has the address", of_two_at_once_one_has_it},
    {"without descriptors for all of them nothing is open", all_or_nothing},
};

int main(void) {
  keep_promises(tests, sizeof tests / sizeof *tests);
}
