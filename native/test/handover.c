/* Sockets from other processes: who may hand them over, what is taken, and what becomes of everything else. */
#include "table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                                  \
  do {                                                                                                    \
    if (!(condition)) {                                                                                   \
      fprintf(stderr, "%s:%d: %s (errno %d: %s)\n", __FILE__, __LINE__, #condition, errno, strerror(errno)); \
      exit(1);                                                                                            \
    }                                                                                                     \
  } while (0)

enum { SLOTS = 2048, MOST = 1000, RECORD = 512 };

static char folder[64], path[96];
static const char *program;

struct world {
  struct shared shared;
  struct core *core;
  int handover, descriptors;
};

/* Open in this process. */
static int descriptors(void) {
  int count = 0;
  for (int fd = 0; fd < 4096; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

static void *zeroed(size_t count, size_t size) {
  void *memory = calloc(count, size);
  CHECK(memory != NULL);
  return memory;
}

static void world_open(struct world *world, int most) {
  world->descriptors = descriptors();
  world->shared = (struct shared){zeroed(MAX_EVENTS, sizeof(struct event)), zeroed(ARENA_BYTES, 1), zeroed(SLOTS, 8),
                                  zeroed(SLOTS, 8), zeroed(SLOTS, 8), zeroed(SLOTS, 1), SLOTS};
  world->core = core_open(&world->shared);
  unlink(path);
  CHECK(world->core != NULL);
  world->handover = core_handover_listen(world->core, path, strlen(path), most);
  CHECK(world->handover >= 0);
}

/* Whatever came in is closed by then, taken or not. */
static void world_close(struct world *world) {
  core_shut(world->core);
  free(world->shared.events), free(world->shared.arena), free(world->shared.bytes);
  free(world->shared.answer_bytes), free(world->shared.active_ms), free(world->shared.ended);
  unlink(path);
  CHECK(descriptors() == world->descriptors);
}

static const struct event *event_at(const struct world *world, int index) {
  return &world->shared.events[index];
}

static int settle(struct world *world) {
  int count = 0;
  for (int i = 0; i < 10 && count == 0; i++) count = core_poll(world->core, 2);
  return count;
}

static int connected(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

/* One that has been greeted. */
static int giver(struct world *world) {
  char record[64] = "";
  int fd = connected();
  CHECK(fd >= 0);
  core_poll(world->core, 10);
  CHECK(recv(fd, record, sizeof record - 1, MSG_DONTWAIT) == 10 && strcmp(record, "dualport 1") == 0);
  return fd;
}

static void give(int fd, const char *record, size_t length, const int *handed, int count) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(16 * sizeof(int))];
  } control = {0};
  struct iovec piece = {(void *)record, length};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    *CMSG_FIRSTHDR(&message) = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), handed, (size_t)count * sizeof(int));
  }
  CHECK(sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)length);
}

static bool has_ended(int fd) {
  char record[64];
  struct pollfd polled = {fd, POLLIN, 0};
  return poll(&polled, 1, 1000) == 1 && recv(fd, record, sizeof record, 0) <= 0;
}

static int bound_socket(int family, int type) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
  int fd = socket(family, type | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  if (family == AF_INET) CHECK(bind(fd, (struct sockaddr *)&v4, sizeof v4) == 0);
  else CHECK(bind(fd, (struct sockaddr *)&v6, sizeof v6) == 0);
  if (type == SOCK_STREAM) CHECK(listen(fd, 16) == 0);
  return fd;
}

static struct sockaddr_storage name_of(int fd) {
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  CHECK(getsockname(fd, (struct sockaddr *)&name, &length) == 0);
  return name;
}

static int client_of(const struct sockaddr_storage *name, int type) {
  int fd = socket(name->ss_family, type | SOCK_CLOEXEC, 0);
  CHECK(connect(fd, (const struct sockaddr *)name, sizeof(struct sockaddr_in6)) == 0);
  return fd;
}

static int adopt(struct world *world, int slot, int is_udp) {
  int fd = core_handover_take(world->core, slot);
  return fd < 0 ? fd : core_adopt(world->core, fd, is_udp, NULL);
}

/* ---- */

static void a_listener_is_handed_over_with_its_backlog(void) {
  struct world world;
  world_open(&world, MOST);
  int listener = bound_socket(AF_INET, SOCK_STREAM), fd = giver(&world);
  struct sockaddr_storage name = name_of(listener);
  int early = client_of(&name, SOCK_STREAM);
  give(fd, "words", 5, &listener, 1);
  CHECK(settle(&world) == 1);
  const struct event *event = event_at(&world, 0);
  CHECK(event->kind == EVENT_HANDED && event->value == world.handover && event->pid == (uint32_t)getpid());
  CHECK(event->length == 5 && memcmp(world.shared.arena + event->offset, "words", 5) == 0);
  int slot = event->slot, adopted = adopt(&world, slot, 0);
  CHECK(adopted >= 0 && adopt(&world, slot, 0) == -EBADF);
  CHECK(settle(&world) == 1 && event_at(&world, 0)->kind == EVENT_ACCEPTED && event_at(&world, 0)->value == adopted);
  core_close(world.core, event_at(&world, 0)->slot, 1);
  CHECK(core_handover_answer(world.core, slot, "ok", 2) == 0);
  char answer[8] = "";
  CHECK(recv(fd, answer, sizeof answer - 1, 0) == 2 && strcmp(answer, "ok") == 0);
  /* Its giver has it still: closing the copy here ends nothing there. */
  core_close(world.core, adopted, 0);
  core_poll(world.core, 0);
  int late = client_of(&name, SOCK_STREAM), accepted = accept(listener, NULL, NULL);
  CHECK(accepted >= 0 && core_poll(world.core, 0) == 0);
  close(accepted), close(late), close(early), close(fd), close(listener);
  world_close(&world);
}

static void both_families_and_protocols_are_adopted(void) {
  struct world world;
  world_open(&world, MOST);
  for (int i = 0; i < 4; i++) {
    bool is_udp = i & 1;
    int fd = giver(&world), port = bound_socket(i & 2 ? AF_INET6 : AF_INET, is_udp ? SOCK_DGRAM : SOCK_STREAM);
    struct sockaddr_storage name = name_of(port);
    give(fd, "x", 1, &port, 1);
    close(port);
    CHECK(settle(&world) == 1);
    CHECK(adopt(&world, event_at(&world, 0)->slot, is_udp) >= 0);
    int client = client_of(&name, is_udp ? SOCK_DGRAM : SOCK_STREAM);
    CHECK(!is_udp || send(client, "hello", 5, 0) == 5);
    CHECK(settle(&world) == 1);
    CHECK(event_at(&world, 0)->kind == (is_udp ? EVENT_DATAGRAM : EVENT_ACCEPTED));
    close(client), close(fd);
    settle(&world);
  }
  world_close(&world);
}

/* It has the right number of descriptors, but no socket that could be served as what it is said to be. */
static void nothing_else_is_adopted(void) {
  struct world world;
  world_open(&world, MOST);
  struct sockaddr_un nameless = {.sun_family = AF_UNIX};
  int local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(bind(local, (struct sockaddr *)&nameless, sizeof(sa_family_t)) == 0 && listen(local, 4) == 0);
  int others[] = {open("/dev/null", O_RDWR | O_CLOEXEC), local,
                  socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) /* does not listen */,
                  bound_socket(AF_INET, SOCK_DGRAM), socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  for (int is_udp = 0; is_udp < 2; is_udp++)
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
      if (is_udp && i == 3) continue;
      int fd = giver(&world);
      give(fd, "x", 1, &others[i], 1);
      CHECK(settle(&world) == 1);
      int slot = event_at(&world, 0)->slot;
      CHECK(adopt(&world, slot, is_udp) == -EINVAL);
      CHECK(core_handover_answer(world.core, slot, "refused", 7) == 0);
      core_close(world.core, slot, 0);
      close(fd);
    }
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) close(others[i]);
  world_close(&world);
}

static void the_end_of_a_giver_is_told_once(void) {
  for (int how = 0; how < 3; how++) {
    struct world world;
    world_open(&world, MOST);
    int port = bound_socket(AF_INET, SOCK_DGRAM), fd = giver(&world);
    give(fd, "x", 1, &port, 1);
    CHECK(settle(&world) == 1);
    int slot = event_at(&world, 0)->slot;
    if (how == 0) shutdown(fd, SHUT_WR); /* it waits for the answer */
    else if (how == 1) close(fd);
    else give(fd, "another record", 14, NULL, 0);
    CHECK(settle(&world) == 1);
    CHECK(event_at(&world, 0)->kind == EVENT_HANDED_BACK && event_at(&world, 0)->slot == slot);
    CHECK(core_poll(world.core, 20) == 0);
    /* Whoever was slow to adopt it may do so still. */
    CHECK(adopt(&world, slot, 1) >= 0);
    core_close(world.core, slot, 0);
    CHECK(how == 1 || has_ended(fd));
    if (how != 1) close(fd);
    close(port);
    world_close(&world);
  }
}

static void what_is_not_one_record_with_one_descriptor_ends_the_connection(void) {
  static char large[RECORD + 1];
  struct world world;
  world_open(&world, MOST);
  int ports[16];
  for (int i = 0; i < 16; i++) ports[i] = bound_socket(AF_INET, SOCK_DGRAM);
  int before = descriptors();
  static const struct {
    size_t length;
    int count;
  } cases[] = {{5, 0}, {5, 2}, {5, 3}, {5, 4}, {5, 5}, {5, 16}, {0, 1}, {0, 0}, {RECORD + 1, 1}, {RECORD + 1, 3}, {RECORD + 1, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int fd = giver(&world);
    give(fd, large, cases[i].length, ports, cases[i].count);
    CHECK(core_poll(world.core, 20) == 0);
    CHECK(has_ended(fd));
    close(fd);
    CHECK(descriptors() == before);
  }
  int fd = giver(&world);
  give(fd, large, RECORD, ports, 1); /* as long as it may be */
  CHECK(settle(&world) == 1 && event_at(&world, 0)->length == RECORD);
  give(fd, "again", 5, ports, 1);
  CHECK(settle(&world) == 1 && event_at(&world, 0)->kind == EVENT_HANDED_BACK);
  CHECK(descriptors() == before + 3); /* both ends, and the one that was told of */
  close(fd);
  for (int i = 0; i < 16; i++) close(ports[i]);
  world_close(&world);
}

/* What a process of this user is told: its exit status is the length of it, 99 when it cannot even connect. */
static int what_hears(struct world *world, const char *uid) {
  int status = 0;
  pid_t child = fork();
  if (child == 0) {
    /* Another program, because memcheck would have this one give everything back. */
    execl(program, program, "--hear", uid, path, (char *)NULL);
    _exit(98);
  }
  for (int i = 0; i < 1000 && waitpid(child, &status, WNOHANG) == 0; i++) CHECK(core_poll(world->core, 10) == 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int hear(uid_t uid, const char *where) {
  char record[64];
  strcpy(path, where);
  int fd = setresuid(uid, uid, uid) == 0 ? connected() : -1;
  ssize_t length = fd < 0 ? 99 : recv(fd, record, sizeof record, 0);
  return length < 0 ? 0 : (int)length;
}

/* The file's mode keeps strangers out; here they come in past it. */
static void strangers_hear_nothing(void) {
  struct world world;
  struct stat file;
  world_open(&world, MOST);
  CHECK(stat(path, &file) == 0 && (file.st_mode & 07777) == 0600);
  if (geteuid() != 0) {
    world_close(&world);
    return;
  }
  CHECK(chmod(path, 0666) == 0 && chmod(folder, 0755) == 0);
  CHECK(what_hears(&world, "65534") == 0);
  CHECK(what_hears(&world, "0") == 10);
  world_close(&world);
}

static void more_than_are_allowed_are_sent_away(void) {
  enum { FEW = 3 };
  struct world world;
  world_open(&world, FEW);
  int fds[FEW];
  for (int i = 0; i < FEW; i++) fds[i] = giver(&world);
  int fd = connected();
  CHECK(core_poll(world.core, 20) == 0 && has_ended(fd));
  close(fd), close(fds[0]);
  core_poll(world.core, 20);
  fds[0] = giver(&world); /* there is room again */
  for (int i = 0; i < FEW; i++) close(fds[i]);
  world_close(&world);
}

static void thousands_at_once_come_in_their_turn(void) {
  enum { MANY = 900 };
  struct world world;
  world_open(&world, MOST);
  static int fds[MANY];
  int port = bound_socket(AF_INET, SOCK_DGRAM), handed = 0;
  for (int i = 0; i < MANY; i++) {
    if ((fds[i] = connected()) < 0) CHECK(!"connect");
    give(fds[i], "x", 1, &port, 1); /* without having waited for the greeting */
  }
  for (int i = 0; i < 2000 && handed < MANY; i++) {
    int count = core_poll(world.core, 10);
    for (int n = 0; n < count; n++) handed += event_at(&world, n)->kind == EVENT_HANDED;
  }
  CHECK(handed == MANY);
  for (int i = 0; i < MANY; i++) close(fds[i]);
  int back = 0;
  for (int i = 0; i < 2000 && back < MANY; i++) {
    int count = core_poll(world.core, 10);
    for (int n = 0; n < count; n++) back += event_at(&world, n)->kind == EVENT_HANDED_BACK;
  }
  CHECK(back == MANY);
  close(port);
  world_close(&world);
}

/* Left in the backlog it would be ready at once again, for ever; its giver would wait for the greeting. */
static void without_descriptors_they_are_sent_away(void) {
  struct world world;
  struct rlimit before, none;
  world_open(&world, MOST);
  int fd = connected();
  CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
  none = before;
  none.rlim_cur = (rlim_t)fd + 1;
  CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
  int count = core_poll(world.core, 20), again = core_poll(world.core, 20);
  CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(count == 0 && again == 0 && has_ended(fd));
  close(fd);
  close(giver(&world));
  world_close(&world);
}

static void a_full_table_sends_them_away(void) {
  struct world world;
  world_open(&world, MOST);
  struct endpoint at = {.address = {[10] = 0xff, 0xff, 127, 0, 0, 1}};
  int slot, last = -1;
  while ((slot = core_tcp_listen(world.core, &at, 1)) >= 0) last = slot;
  CHECK(slot == -ENFILE);
  int fd = connected();
  CHECK(core_poll(world.core, 20) == 0);
  char record[16];
  CHECK(recv(fd, record, sizeof record, 0) == 10 && has_ended(fd));
  core_close(world.core, last, 0);
  core_poll(world.core, 0);
  close(giver(&world)), close(fd);
  world_close(&world);
}

/* Datagrams of strangers come first, and fill what there is for payloads but for 8 bytes. */
static void a_poll_without_room_for_records_leaves_them(void) {
  enum { COUNT = 63, SIZE = ARENA_BYTES / COUNT };
  static uint8_t datagram[SIZE];
  struct world world;
  world_open(&world, MOST);
  struct endpoint at = {.address = {[10] = 0xff, 0xff, 127, 0, 0, 1}};
  int port = bound_socket(AF_INET, SOCK_DGRAM), fd = giver(&world);
  int listener = core_udp_listen(world.core, &at, NULL);
  CHECK(listener >= 0);
  struct sockaddr_storage name = name_of(world.core->slots[listener].fd);
  int client = client_of(&name, SOCK_DGRAM);
  for (int i = 0; i < COUNT; i++) CHECK(send(client, datagram, SIZE, 0) == SIZE);
  give(fd, "x", 1, &port, 1);
  CHECK(core_poll(world.core, 0) == COUNT && event_at(&world, COUNT - 1)->kind == EVENT_DATAGRAM);
  CHECK(core_poll(world.core, 0) == 1 && event_at(&world, 0)->kind == EVENT_HANDED);
  close(fd), close(port), close(client);
  world_close(&world);
}

static void a_path_that_cannot_be_is_refused(void) {
  struct world world;
  char longest[200];
  memset(longest, 'x', sizeof longest);
  world_open(&world, MOST);
  CHECK(core_handover_listen(world.core, longest, 108, MOST) == -ENAMETOOLONG);
  CHECK(core_handover_listen(world.core, longest, 0, MOST) == -ENAMETOOLONG);
  CHECK(core_handover_listen(world.core, path, strlen(path), MOST) == -EADDRINUSE);
  CHECK(core_handover_listen(world.core, "/nonexistent/socket", 19, MOST) == -ENOENT);
  CHECK(core_handover_take(world.core, world.handover) == -EBADF);
  CHECK(core_handover_answer(world.core, world.handover, "ok", 2) == -EBADF);
  core_close(world.core, world.handover, 0);
  CHECK(connected() < 0);
  world_close(&world);
}

static const struct {
  const char *name;
  void (*run)(void);
} tests[] = {
#define TEST(name) {#name, name}
    TEST(a_listener_is_handed_over_with_its_backlog),
    TEST(both_families_and_protocols_are_adopted),
    TEST(nothing_else_is_adopted),
    TEST(the_end_of_a_giver_is_told_once),
    TEST(what_is_not_one_record_with_one_descriptor_ends_the_connection),
    TEST(strangers_hear_nothing),
    TEST(more_than_are_allowed_are_sent_away),
    TEST(thousands_at_once_come_in_their_turn),
    TEST(without_descriptors_they_are_sent_away),
    TEST(a_full_table_sends_them_away),
    TEST(a_poll_without_room_for_records_leaves_them),
    TEST(a_path_that_cannot_be_is_refused),
};

static void remove_folder(void) {
  unlink(path);
  rmdir(folder);
}

/* Of the tests whose names have this part; behind a minus, of all others. */
static bool is_wanted(const char *name, const char *part) {
  return *part == '-' ? strstr(name, part + 1) == NULL : strstr(name, part) != NULL;
}

int main(int count, char **arguments) {
  struct rlimit files;
  program = arguments[0];
  if (count == 4 && strcmp(arguments[1], "--hear") == 0) return hear((uid_t)atoi(arguments[2]), arguments[3]);
  signal(SIGPIPE, SIG_IGN);
  alarm(120);
  CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
  files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
  CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
  strcpy(folder, "/tmp/dualport-handover-XXXXXX");
  CHECK(mkdtemp(folder) != NULL);
  snprintf(path, sizeof path, "%s/socket", folder);
  atexit(remove_folder);
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    if (count > 1 && !is_wanted(tests[i].name, arguments[1])) continue;
    printf("  %s\n", tests[i].name);
    fflush(stdout);
    tests[i].run();
  }
  return 0;
}
