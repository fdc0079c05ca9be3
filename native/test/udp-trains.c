/* UDP: trains, in and out, and what happens where they are refused. udp-trains.wrap names the calls stood before. */
#include "udp-world.h"

#include <sched.h>
#include <sys/wait.h>

/* What the wrapped calls do and have seen. */
static struct {
  int train_error;       /* for each message with UDP_SEGMENT */
  size_t longest_passed; /* but not when its datagrams are this short */
  int every_error;       /* for this many messages */
  int every_count;
  int full_after_trains; /* every_count once a train was refused twice */
  bool has_no_gro, has_no_gso;
  unsigned calls, messages, trains, single;
} kernel;

static size_t datagram_of_train(const struct msghdr *message) {
  struct msghdr copy = *message;
  for (struct cmsghdr *control = CMSG_FIRSTHDR(&copy); control; control = CMSG_NXTHDR(&copy, control)) {
    if (control->cmsg_level != IPPROTO_UDP || control->cmsg_type != UDP_SEGMENT) continue;
    uint16_t each;
    memcpy(&each, CMSG_DATA(control), sizeof each);
    return each;
  }
  return 0;
}

static int verdict(const struct msghdr *message) {
  size_t each = datagram_of_train(message);
  if (kernel.every_count > 0) {
    kernel.every_count--;
    return kernel.every_error;
  }
  if (each > 0 && ++kernel.trains == 2) kernel.every_count = kernel.full_after_trains;
  return each > kernel.longest_passed ? kernel.train_error : 0;
}

ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
int __real_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t length);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t length);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *length);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *length);

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags) {
  if (flags == 0) return __real_sendmsg(fd, message, flags); /* the test's own */
  kernel.single++;
  errno = verdict(message);
  return errno ? -1 : __real_sendmsg(fd, message, flags);
}

/* As the kernel does it: what comes before a failure is sent, and the failure is told if nothing does. */
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
  kernel.calls++;
  unsigned good = 0;
  while (good < count && (errno = verdict(&messages[good].msg_hdr)) == 0) good++;
  kernel.messages += good;
  return good == 0 ? -1 : __real_sendmmsg(fd, messages, good, flags);
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
  errno = ENOPROTOOPT;
  return level == IPPROTO_UDP && kernel.has_no_gro ? -1 : __real_setsockopt(fd, level, name, value, length);
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *length) {
  errno = ENOPROTOOPT;
  return level == IPPROTO_UDP && kernel.has_no_gso ? -1 : __real_getsockopt(fd, level, name, value, length);
}

static struct world world;
static int client;

static void start(const char *listen, const char *upstream) {
  memset(&kernel, 0, sizeof kernel);
  world_open(&world, listen, upstream, 256);
  client = known_client(&world, listen[0] == '0' ? "127.0.0.1" : listen);
  memset(&world.values, 0, sizeof world.values);
  kernel.calls = kernel.messages = kernel.trains = kernel.single = 0;
}

static void end(void) {
  close(client);
  world_close(&world);
}

/* A train of datagrams that each have their own content, in one send. */
static void train(int fd, size_t each, unsigned count, size_t last) {
  static uint8_t data[65536];
  for (unsigned i = 0; i < count; i++) fill(data + i * each, i + 1 < count ? each : last, i);
  say_train(fd, data, (count - 1) * each + last, (uint16_t)each);
}

static void expect_train(int fd, size_t each, unsigned count, size_t last) {
  for (unsigned i = 0; i < count; i++) expect(fd, i + 1 < count ? each : last, i);
  CHECK(is_silent(fd));
}

static void a_train_passes_as_a_train(const char *listen, const char *upstream) {
  start(listen, upstream);
  train(client, 1200, 40, 700);
  settle_down(&world);
  EQUAL(kernel.messages, 1);
  EQUAL(kernel.trains, 1);
  EQUAL(world.values[IN], 40);
  EQUAL(world.values[FROM_CLIENT], 39 * 1200 + 700);
  expect_train(world.upstream, 1200, 40, 700);
  end();
}

static void trains_both_families(void) {
  a_train_passes_as_a_train("127.0.0.1", "::1");
  a_train_passes_as_a_train("::1", "127.0.0.1");
}

/* The upstream's socket is connected to the flow's, to which it sends a train. */
static void answer_train(size_t each, unsigned count, size_t last) {
  struct sockaddr_storage from;
  socklen_t length = sizeof from;
  char got[16];
  say(client, 10, 0);
  settle_down(&world);
  EQUAL(recvfrom(world.upstream, got, sizeof got, 0, (struct sockaddr *)&from, &length), 10);
  CHECK(connect(world.upstream, (struct sockaddr *)&from, length) == 0);
  kernel.messages = kernel.trains = 0;
  train(world.upstream, each, count, last);
  settle_down(&world);
}

static void trains_come_back(void) {
  start("0.0.0.0", "::1"); /* so the source address and the train's size are in one message */
  answer_train(1200, 40, 1);
  EQUAL(kernel.messages, 1);
  EQUAL(kernel.trains, 1);
  expect_train(client, 1200, 40, 1);
  EQUAL(world.values[OUT], 40);
  EQUAL(world.values[FROM_UPSTREAM], 39 * 1200 + 1);
  end();
}

static void a_train_to_strangers_is_shown_one_by_one(void) {
  start("127.0.0.1", "127.0.0.1");
  int stranger = client_of(world.listens_at, "127.0.0.1");
  train(stranger, 1000, 30, 10);
  EQUAL(turn(&world, 1000), 30);
  EQUAL(world.flows, 2);
  expect_train(world.upstream, 1000, 30, 10);
  close(stranger);
  end();
}

static void runs_become_trains(void) {
  start("127.0.0.1", "127.0.0.1");
  for (unsigned i = 0; i < 128; i++) say(client, 400, i);
  settle_down(&world);
  EQUAL(kernel.messages, 2);
  EQUAL(kernel.trains, 2);
  for (unsigned i = 0; i < 128; i++) expect(world.upstream, 400, i);
  EQUAL(world.values[IN], 128);
  end();
}

static void uneven_runs_stay_what_they_are(void) {
  static const size_t sizes[] = {500, 500, 300, 500, 500, 0, 500, 500, 600, 0, 0, 1, 1, 1, 2, 65507, 65507, 500};
  enum { COUNT = sizeof sizes / sizeof *sizes };
  for (int back = 0; back < 2; back++) {
    start("127.0.0.1", "127.0.0.1");
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    char got[16];
    say(client, 10, 0);
    settle_down(&world);
    EQUAL(recvfrom(world.upstream, got, sizeof got, 0, (struct sockaddr *)&from, &length), 10);
    CHECK(connect(world.upstream, (struct sockaddr *)&from, length) == 0);
    kernel.messages = 0;
    for (unsigned i = 0; i < COUNT; i++) say(back ? world.upstream : client, sizes[i], i);
    settle_down(&world);
    for (unsigned i = 0; i < COUNT; i++) expect(back ? client : world.upstream, sizes[i], i);
    EQUAL(kernel.messages, 12); /* 500 500 300, 500 500, 0, 500 500, 600, 0, 0, 1 1 1, 2, 65507, 65507, 500 */
    CHECK(is_silent(back ? client : world.upstream));
    end();
  }
}

static void long_trains_are_parted(void) {
  start("127.0.0.1", "127.0.0.1");
  train(client, 10, 100, 10);
  settle_down(&world);
  EQUAL(kernel.messages, 2);
  expect_train(world.upstream, 10, 100, 10);
  for (unsigned i = 0; i < 5; i++) train(client, 1400, 40, 1400); /* 56,000 bytes each: two have no room in one */
  settle_down(&world);
  for (unsigned n = 0; n < 5; n++)
    for (unsigned i = 0; i < 40; i++) expect(world.upstream, 1400, i);
  CHECK(is_silent(world.upstream));
  EQUAL(kernel.single, 0);
  end();
}

static void a_prefix_in_front_of_each_of_a_train(void) {
  start("127.0.0.1", "127.0.0.1");
  EQUAL(core_udp_prefix(world.core, world.flow, "PROXY PROXY ", 12), 0);
  for (unsigned n = 0; n < 20; n++) train(client, 1200, 40, 700);
  settle_down(&world);
  CHECK(kernel.messages <= 40);
  EQUAL(kernel.trains, kernel.messages);
  for (unsigned i = 0; i < 20 * 40; i++) {
    uint8_t got[2000], wanted[1200];
    size_t size = i % 40 < 39 ? 1200 : 700;
    EQUAL(take(world.upstream, got, sizeof got), size + 12);
    fill(wanted, size, i % 40);
    CHECK(memcmp(got, "PROXY PROXY ", 12) == 0 && memcmp(got + 12, wanted, size) == 0);
  }
  end();
}

/* Refused by the system call, once; from then on datagrams go singly, and none was lost. */
static void a_refusal(int error, bool with_prefix, bool back) {
  start("0.0.0.0", "127.0.0.1");
  size_t prefix = with_prefix ? 5 : 0;
  EQUAL(core_udp_prefix(world.core, world.flow, "PROXY", prefix), 0);
  kernel.train_error = error;
  uint8_t got[2000];
  for (int round = 0; round < 2; round++) {
    if (back) answer_train(1200, 40, 700);
    else train(client, 1200, 40, 700);
    settle_down(&world);
    if (back) expect_train(client, 1200, 40, 700);
    for (unsigned i = 0; i < 40 && !back; i++) {
      uint8_t wanted[1200];
      size_t size = i < 39 ? 1200 : 700;
      EQUAL(take(world.upstream, got, sizeof got), size + prefix);
      fill(wanted, size, i);
      CHECK(memcmp(got + prefix, wanted, size) == 0);
    }
    if (back) {
      close(world.upstream);
      world.upstream = bound_at(world.upstream_at);
    }
    EQUAL(kernel.trains, round == 0 ? 2 : back ? 0 : 2); /* tried, tried again, and never more */
  }
  EQUAL(world.refused, 0);
  EQUAL(core_fallbacks(world.core) & FALLBACK_GSO, error == EMSGSIZE ? 0 : FALLBACK_GSO);
  EQUAL(world.values[QUEUE] + world.values[OVERSIZE], 0);
  end();
}

static void refusals_cost_nothing(void) {
  static const int errors[] = {EIO, EINVAL, EMSGSIZE, ENOPROTOOPT};
  for (unsigned i = 0; i < 4; i++) {
    a_refusal(errors[i], false, false);
    a_refusal(errors[i], true, false);
    a_refusal(errors[i], false, true);
  }
}

static void smaller_datagrams_still_make_trains(void) {
  start("127.0.0.1", "127.0.0.1");
  kernel.train_error = EMSGSIZE;
  kernel.longest_passed = 1400;
  train(client, 1472, 10, 1472);
  settle_down(&world);
  expect_train(world.upstream, 1472, 10, 1472);
  kernel.trains = kernel.single = 0;
  train(client, 1400, 10, 1400);
  settle_down(&world);
  expect_train(world.upstream, 1400, 10, 1400);
  EQUAL(kernel.trains, 1);
  EQUAL(kernel.single, 0);
  end();
}

/* Nothing passes, trains or not: then it is not the trains, and they are tried again. */
static void trains_are_not_blamed_for_everything(void) {
  start("127.0.0.1", "127.0.0.1");
  kernel.every_error = EINVAL;
  kernel.every_count = 2 + 10;
  train(client, 100, 10, 100);
  settle_down(&world);
  EQUAL(core_fallbacks(world.core) & FALLBACK_GSO, 0);
  EQUAL(world.refused, 1);
  EQUAL(world.last_error, EINVAL);
  train(client, 100, 10, 100);
  settle_down(&world);
  EQUAL(kernel.trains, 1);
  expect_train(world.upstream, 100, 10, 100);
  end();
}

/* The train is refused, and then the queue is full for all but the last. */
static void parts_that_are_lost_are_counted(void) {
  start("127.0.0.1", "127.0.0.1");
  kernel.every_error = ENOBUFS;
  kernel.train_error = EIO;
  kernel.full_after_trains = 9;
  train(client, 100, 10, 100);
  settle_down(&world);
  EQUAL(world.values[QUEUE], 9);
  expect(world.upstream, 100, 9);
  end();
}

static void full_queues_are_counted_by_datagram(void) {
  static const int errors[] = {EAGAIN, ENOBUFS};
  for (int i = 0; i < 2; i++) {
    start("127.0.0.1", "127.0.0.1");
    kernel.every_error = errors[i];
    kernel.every_count = 1;
    train(client, 100, 10, 100);
    say(client, 300, 7);
    settle_down(&world);
    EQUAL(world.values[QUEUE], 10);
    expect(world.upstream, 300, 7);
    EQUAL(world.values[IN], 11);
    EQUAL(world.refused, 0);
    end();
  }
}

static void a_late_refusal_loses_no_train(void) {
  start("127.0.0.1", "127.0.0.1");
  close(world.upstream);
  say(client, 10, 1);
  EQUAL(turn(&world, 1000), 0);
  world.upstream = bound_at(world.upstream_at);
  train(client, 1200, 40, 700);
  settle_down(&world);
  EQUAL(world.refused, 1);
  expect_train(world.upstream, 1200, 40, 700);
  EQUAL(core_fallbacks(world.core), 0);
  end();
}

static void everything_passes(void) {
  train(client, 1200, 40, 700);
  settle_down(&world);
  expect_train(world.upstream, 1200, 40, 700);
  for (unsigned i = 0; i < 10; i++) say(client, 100, i);
  settle_down(&world);
  for (unsigned i = 0; i < 10; i++) expect(world.upstream, 100, i);
  answer_train(900, 30, 20);
  expect_train(client, 900, 30, 20);
}

static void without_gro(void) {
  start("127.0.0.1", "::1");
  int with_gro = core_fallbacks(world.core);
  end();
  EQUAL(with_gro, 0);
  memset(&kernel, 0, sizeof kernel);
  kernel.has_no_gro = true;
  world_open(&world, "127.0.0.1", "::1", 16);
  client = known_client(&world, "127.0.0.1");
  EQUAL(core_fallbacks(world.core), FALLBACK_GRO);
  everything_passes();
  CHECK(kernel.trains > 0); /* made of the parts */
  end();
}

static void without_gso(void) {
  memset(&kernel, 0, sizeof kernel);
  kernel.has_no_gso = true;
  world_open(&world, "127.0.0.1", "::1", 16);
  client = known_client(&world, "127.0.0.1");
  EQUAL(core_fallbacks(world.core), FALLBACK_GSO);
  everything_passes();
  EQUAL(kernel.trains, 0);
  CHECK(kernel.calls < 15); /* many datagrams a call all the same */
  end();
}

static void flows_are_not_mixed(void) {
  enum { FLOWS = 64, EACH = 20 };
  memset(&kernel, 0, sizeof kernel);
  world_open(&world, "127.0.0.1", "127.0.0.1", 2 * FLOWS);
  int clients[FLOWS];
  for (unsigned f = 0; f < FLOWS; f++) clients[f] = known_client(&world, "127.0.0.1");
  for (unsigned i = 0; i < EACH; i++)
    for (unsigned f = 0; f < FLOWS; f++) say(clients[f], 64 + (f * i) % 3, f * 100 + i);
  settle_down(&world);
  for (unsigned i = 0; i < FLOWS * EACH; i++) {
    CHECK(echo(&world) > 0);
    if (i % 50 == 0) settle_down(&world);
  }
  settle_down(&world);
  for (unsigned f = 0; f < FLOWS; f++) {
    for (unsigned i = 0; i < EACH; i++) expect(clients[f], 64 + (f * i) % 3, f * 100 + i);
    CHECK(is_silent(clients[f]));
    close(clients[f]);
  }
  EQUAL(world.values[IN], FLOWS * EACH);
  EQUAL(world.values[OUT], FLOWS * EACH + FLOWS);
  world_close(&world);
}

/* No hook: lo with the MTU of Ethernet, and a train the kernel itself refuses. */
static void the_kernel_refuses(void) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(unshare(CLONE_NEWNET) == 0);
    EQUAL(system("ip link set lo mtu 1500 up"), 0);
    start("127.0.0.1", "::1");
    for (unsigned i = 0; i < 6; i++) say(client, 4000, i);
    train(client, 1460, 10, 1460); /* as long as IPv4 takes, and too long for IPv6 */
    settle_down(&world);
    for (unsigned i = 0; i < 6; i++) expect(world.upstream, 4000, i);
    expect_train(world.upstream, 1460, 10, 1460);
    CHECK(kernel.single > 0);
    EQUAL(world.values[OVERSIZE] + world.values[QUEUE], 0);
    EQUAL(world.refused, 0);
    kernel.trains = 0;
    train(client, 1200, 10, 1200);
    settle_down(&world);
    expect_train(world.upstream, 1200, 10, 1200);
    EQUAL(kernel.trains, 1);
    end();
    exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  EQUAL(status, 0);
}

static const struct promise tests[] = {
    {"a train of 40 with a shorter last one is one message, and arrives as 40 datagrams", trains_both_families},
    {"trains of answers are one message, too", trains_come_back},
    {"a train of a stranger is shown datagram by datagram", a_train_to_strangers_is_shown_one_by_one},
    {"single datagrams of one size become trains", runs_become_trains},
    {"runs of uneven sizes keep their order and bounds, empty ones too, both ways", uneven_runs_stay_what_they_are},
    {"trains that are too long for one message become two", long_trains_are_parted},
    {"a prefix stands in front of each datagram of a train", a_prefix_in_front_of_each_of_a_train},
    {"where trains are refused datagrams go singly, and none is lost", refusals_cost_nothing},
    {"where large datagrams make no train, smaller ones do", smaller_datagrams_still_make_trains},
    {"trains are given up only where single datagrams pass", trains_are_not_blamed_for_everything},
    {"what finds a full queue when a train was parted is counted", parts_that_are_lost_are_counted},
    {"what finds a full queue is counted by datagram", full_queues_are_counted_by_datagram},
    {"the refusal of an earlier datagram loses no train", a_late_refusal_loses_no_train},
    {"without UDP_GRO everything passes", without_gro},
    {"without UDP_SEGMENT everything passes", without_gso},
    {"64 flows at once: in order, and none mixed", flows_are_not_mixed},
    {"a train that the kernel itself refuses goes singly", the_kernel_refuses},
};

int main(void) {
  keep_promises(tests, sizeof tests / sizeof *tests);
}
