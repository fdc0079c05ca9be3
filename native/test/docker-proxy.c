/*
 * The launcher between a dockerd and a dualport that are both played here: what it reports, what it hands over, when it
 * leaves everything to the stock program, and what it does while dualport is away.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
      exit(1);                                                                      \
    }                                                                               \
  } while (0)

static const char launcher_path[] = "build/docker-proxy" SUFFIX;
static char folder[64], socket_path[96], stock_path[96];

static long long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static bool readable(int fd, int ms) {
  struct pollfd polled = {fd, POLLIN, 0};
  return poll(&polled, 1, ms) == 1;
}

static void remove_folder(void) {
  char command[128];
  snprintf(command, sizeof command, "/bin/rm -rf %s", folder);
  CHECK(system(command) == 0);
}

/*
 * Says on fd 3 that it ran, with what: a program in the stock one's place. Signals are to be as they were, which is not to
 * be told of two that glibc has for itself: its posix_spawn, by which make starts this, leaves them ignored (qemu one of them).
 */
static void write_stock(const char *path) {
  FILE *file = fopen(path, "w");
  CHECK(file != NULL);
  fputs("#!/bin/sh\n"
        "has4=; [ -S /proc/$$/fd/4 ] && has4=' with 4'\n"
        "while read -r key value; do case $key in SigBlk:|SigIgn:) signals=$signals${value%[01]80000000} ;; esac; done </proc/$$/status\n"
        "case $signals in *[!0]*) has4=\"$has4 with signals $signals\" ;; esac\n"
        "printf '%s' \"stock$has4: $*\" >&3\n",
        file);
  CHECK(fclose(file) == 0 && chmod(path, 0755) == 0);
}

/* ---- a dualport ---- */

static int dualport_open(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, socket_path);
  unlink(socket_path);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 16) == 0);
  return fd;
}

static int dualport_greets(int dualport, const char *words) {
  CHECK(readable(dualport, 5000));
  int connection = accept4(dualport, NULL, NULL, SOCK_CLOEXEC);
  CHECK(connection >= 0 && send(connection, words, strlen(words), 0) == (ssize_t)strlen(words));
  return connection;
}

/* What was handed over, with the record that came with it. */
static int dualport_takes(int connection, char *record, size_t room) {
  char control[CMSG_SPACE(sizeof(int))];
  struct iovec piece = {record, room - 1};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  CHECK(readable(connection, 5000));
  ssize_t length = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
  CHECK(length > 0);
  record[length] = '\0';
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  CHECK(header != NULL && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof(int)));
  int fd;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

static void dualport_answers(int connection, const char *words) {
  CHECK(send(connection, words, strlen(words), 0) == (ssize_t)strlen(words));
}

/* The whole way of one that is served. */
static int dualport_serves(int dualport, int *port, char *record, size_t room) {
  int connection = dualport_greets(dualport, "dualport 1");
  *port = dualport_takes(connection, record, room);
  dualport_answers(connection, "ok");
  return connection;
}

/* ---- a dockerd ---- */

struct launched {
  pid_t pid;
  int status; /* what it reports */
};

enum { NO_STATUS = -2, NONE = -1 };

/* A place where dup2 does not meet it. */
static int out_of_the_way(int fd) {
  return fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 50) : fd;
}

/* fd 3 as given; a pipe that keeps writes apart where that is NONE, and none at all for NO_STATUS. */
static struct launched launch_with(char **arguments, int listen_fd, int status) {
  int pipes[2] = {-1, -1};
  if (status == NONE) CHECK(pipe2(pipes, O_DIRECT | O_CLOEXEC) == 0);
  pid_t parent = getpid(), pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    int write_end = out_of_the_way(status == NONE ? pipes[1] : status);
    int listener = out_of_the_way(listen_fd);
    close(3), close(4);
    if (write_end >= 0) dup2(write_end, 3);
    if (listener >= 0) dup2(listener, 4);
    execv(arguments[0], arguments);
    _exit(127);
  }
  if (pipes[1] >= 0) close(pipes[1]);
  return (struct launched){pid, pipes[0]};
}

#define WORDS(...) ((char *[]){(char *)launcher_path, __VA_ARGS__, NULL})
#define LAUNCH(...) launch_with(WORDS(__VA_ARGS__), NONE, NONE)

static char port_text[8];

/* A port that nobody has. */
static char *free_port(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(bind(fd, (struct sockaddr *)&address, length) == 0);
  CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
  close(fd);
  snprintf(port_text, sizeof port_text, "%d", ntohs(address.sin_port));
  return port_text;
}

static struct launched launch_port(const char *protocol, const char *host, char *port) {
  return LAUNCH("-proto", (char *)protocol, "-host-ip", (char *)host, "-host-port", port, "-container-ip", "198.18.0.2",
                "-container-port", "80");
}

/* One write of the launcher's. */
static const char *reports(struct launched launched) {
  static char text[2048];
  CHECK(readable(launched.status, 8000));
  ssize_t length = read(launched.status, text, sizeof text - 1);
  CHECK(length >= 0);
  text[length] = '\0';
  return text;
}

static bool is_report(struct launched launched, const char *expected) {
  const char *text = reports(launched);
  if (strcmp(text, expected) == 0) return true;
  fprintf(stderr, "found \"%s\", not \"%s\"\n", text, expected);
  return false;
}

/* Its exit status; -1 for a death by signal. */
static int ends(struct launched launched) {
  int status;
  long long until_ms = now_ms() + 8000;
  pid_t done;
  while ((done = waitpid(launched.pid, &status, WNOHANG)) == 0 && now_ms() < until_ms) usleep(500);
  CHECK(done == launched.pid);
  if (launched.status >= 0) close(launched.status);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int ends_by(struct launched launched, int signal_number) {
  CHECK(kill(launched.pid, signal_number) == 0);
  return ends(launched);
}

static int connect_to(const char *port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  address.sin_port = htons((uint16_t)atoi(port));
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

static int bound_listener(bool reuse) {
  const int one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (reuse) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  address.sin_port = htons((uint16_t)atoi(free_port()));
  CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 64) == 0);
  return fd;
}

static int option(int fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  CHECK(getsockopt(fd, level, name, &value, &length) == 0);
  return value;
}

/* ---- what is handed over ---- */

static void says(int dualport, char **arguments, const char *expected) {
  char record[256];
  int port;
  struct launched launched = launch_with(arguments, NONE, NONE);
  int connection = dualport_serves(dualport, &port, record, sizeof record);
  if (strcmp(record, expected) != 0) fprintf(stderr, "found \"%s\", not \"%s\"\n", record, expected);
  CHECK(strcmp(record, expected) == 0);
  CHECK(is_report(launched, "0\n"));
  close(port), close(connection);
  CHECK(ends_by(launched, SIGINT) == 0);
}

static void flags_are_read_as_go_reads_them(void) {
  int dualport = dualport_open();
  char *port = free_port(), expected[64], with_port[32], last[40];
  snprintf(expected, sizeof expected, "dualport 1 tcp 127.0.0.1 %s 198.18.0.2 80", port);
  snprintf(with_port, sizeof with_port, "--host-port=%s", port);
  snprintf(last, sizeof last, "-host-port=%s", port);
  says(dualport, WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", port, "-container-ip", "198.18.0.2",
                       "-container-port", "80"), expected);
  says(dualport, WORDS("--proto=tcp", "--host-ip=127.0.0.1", with_port, "--container-ip=198.18.0.2",
                       "--container-port=80"), expected);
  says(dualport, WORDS("-host-ip", "127.0.0.1", "--host-port", port, "-container-ip=198.18.0.2", "-container-port", "80",
                       "-use-listen-fd=false"), expected);
  says(dualport, WORDS("-host-port=1", "-host-ip", "127.0.0.1", last, "-container-ip", "198.18.0.2", "-container-port",
                       "80", "rest", "-unknown"), expected);
  says(dualport, WORDS("-host-ip", "127.0.0.1", last, "-container-ip", "198.18.0.2", "-container-port", "80", "--",
                       "-unknown"), expected);
  snprintf(expected, sizeof expected, "dualport 1 udp ::1 %s fd00::2 53", port);
  says(dualport, WORDS("-proto", "udp", "-host-ip", "::1", last, "-container-ip", "fd00::2", "-container-port", "53"),
       expected);
  snprintf(expected, sizeof expected, "dualport 1 tcp ::ffff:127.0.0.1 %s fd00::2 53", port);
  says(dualport, WORDS("-host-ip", "::ffff:127.0.0.1", last, "-container-ip", "fd00::2", "-container-port", "53"),
       expected);
  close(dualport);
}

static void the_listener_is_as_dockerd_expects(void) {
  static const struct {
    const char *protocol, *host;
    int family;
  } cases[] = {{"tcp", "0.0.0.0", AF_INET}, {"tcp", "::", AF_INET6}, {"udp", "0.0.0.0", AF_INET},
               {"udp", "::", AF_INET6},     {"tcp", "::ffff:127.0.0.1", AF_INET}};
  int dualport = dualport_open(), port;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char record[256];
    bool is_tcp = strcmp(cases[i].protocol, "tcp") == 0, is_ipv6 = cases[i].family == AF_INET6;
    struct launched launched = launch_port(cases[i].protocol, cases[i].host, free_port());
    int connection = dualport_serves(dualport, &port, record, sizeof record);
    CHECK(is_report(launched, "0\n"));
    CHECK(option(port, SOL_SOCKET, SO_DOMAIN) == cases[i].family);
    CHECK(option(port, SOL_SOCKET, SO_TYPE) == (is_tcp ? SOCK_STREAM : SOCK_DGRAM));
    CHECK(option(port, SOL_SOCKET, SO_ACCEPTCONN) == is_tcp);
    CHECK(option(port, SOL_SOCKET, SO_REUSEADDR) == is_tcp);
    if (is_ipv6) CHECK(option(port, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
    if (!is_tcp && is_ipv6) CHECK(option(port, IPPROTO_IPV6, IPV6_RECVPKTINFO) == 1);
    if (!is_tcp && !is_ipv6) CHECK(option(port, IPPROTO_IP, IP_PKTINFO) == 1);
    close(port), close(connection);
    CHECK(ends_by(launched, SIGTERM) == 0);
  }
  close(dualport);
}

/* As many as fit, and one more does not: the backlog is somaxconn and not a number of the launcher's. */
static void the_backlog_is_the_systems(void) {
  char record[256], command[128], found[16] = "", limit[16] = "";
  int dualport = dualport_open(), port;
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
  int connection = dualport_serves(dualport, &port, record, sizeof record);
  CHECK(is_report(launched, "0\n"));
  snprintf(command, sizeof command, "ss -Hltn 'sport = :%s' | awk '{print $3}'", port_text);
  FILE *ss = popen(command, "r"), *somaxconn = fopen("/proc/sys/net/core/somaxconn", "r");
  CHECK(fscanf(ss, "%15s", found) == 1 && fscanf(somaxconn, "%15s", limit) == 1);
  CHECK(strcmp(found, limit) == 0);
  pclose(ss), fclose(somaxconn), close(port), close(connection), close(dualport);
  CHECK(ends_by(launched, SIGINT) == 0);
}

/* dockerd 28: bound and listening, with clients that came before the proxy did. */
static void clients_that_wait_at_fd_4_are_handed_over_with_it(void) {
  char record[256];
  int dualport = dualport_open(), port, clients[5];
  int listener = bound_listener(true);
  for (int i = 0; i < 5; i++) CHECK((clients[i] = connect_to(port_text)) >= 0);
  struct launched launched =
      launch_with(WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", port_text, "-container-ip", "198.18.0.2",
                        "-container-port", "80", "-use-listen-fd"), listener, NONE);
  int connection = dualport_serves(dualport, &port, record, sizeof record);
  CHECK(is_report(launched, "0\n"));
  close(listener);
  for (int i = 0; i < 5; i++) {
    int accepted = accept(port, NULL, NULL);
    CHECK(accepted >= 0);
    close(accepted), close(clients[i]);
  }
  close(port), close(connection), close(dualport);
  CHECK(ends_by(launched, SIGINT) == 0);
}

static void fd_4_that_is_no_socket_is_a_failure(void) {
  int dualport = dualport_open(), null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int i = 0; i < 2; i++) {
    struct launched launched =
        launch_with(WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", free_port(), "-container-ip",
                          "198.18.0.2", "-container-port", "80", "-use-listen-fd"), i == 0 ? null : NONE, NONE);
    CHECK(strncmp(reports(launched), "1\nfailed to listen: ", 20) == 0);
    CHECK(ends(launched) == 1);
  }
  close(null), close(dualport);
}

/* ---- what is reported ---- */

static void a_port_that_cannot_be_bound_is_reported_in_the_words_of_go(void) {
  int dualport = dualport_open(), taken = bound_listener(false);
  char expected[128];
  struct launched launched = launch_port("tcp", "127.0.0.1", port_text);
  int connection = dualport_greets(dualport, "dualport 1");
  snprintf(expected, sizeof expected, "1\nlisten tcp4 127.0.0.1:%s: bind: address already in use", port_text);
  CHECK(is_report(launched, expected));
  CHECK(is_report(launched, ""));
  CHECK(ends(launched) == 1);
  close(taken), close(connection);

  launched = launch_port("udp", "2001:db8::1", free_port());
  connection = dualport_greets(dualport, "dualport 1");
  snprintf(expected, sizeof expected, "1\nlisten udp6 [2001:db8::1]:%s: bind: cannot assign requested address", port_text);
  CHECK(is_report(launched, expected));
  CHECK(ends(launched) == 1);
  close(connection), close(dualport);
}

static void success_is_one_write_of_two_bytes_and_the_end(void) {
  char record[256];
  int dualport = dualport_open(), port;
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
  int connection = dualport_greets(dualport, "dualport 1");
  port = dualport_takes(connection, record, sizeof record);
  CHECK(!readable(launched.status, 50)); /* not before dualport has it */
  dualport_answers(connection, "ok");
  CHECK(is_report(launched, "0\n"));
  CHECK(is_report(launched, ""));
  close(port), close(connection), close(dualport);
  CHECK(ends_by(launched, SIGINT) == 0);
}

/* dockerd 27 and later leave a proxy that was too slow alone; it must not keep the port. */
static void one_whom_nobody_listens_to_ends(void) {
  char record[256];
  int dualport = dualport_open(), pipes[2], port;
  CHECK(pipe2(pipes, O_CLOEXEC) == 0);
  struct launched launched = launch_with(WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", free_port(),
                                               "-container-ip", "198.18.0.2", "-container-port", "80"), NONE, pipes[1]);
  int connection = dualport_greets(dualport, "dualport 1");
  port = dualport_takes(connection, record, sizeof record);
  close(pipes[0]), close(pipes[1]);
  dualport_answers(connection, "ok");
  CHECK(ends(launched) == 1);
  close(port), close(connection), close(dualport);
}

static void started_by_hand_it_does_without_fd_3(void) {
  char record[256];
  int dualport = dualport_open(), port;
  struct launched launched = launch_with(WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", free_port(),
                                               "-container-ip", "198.18.0.2", "-container-port", "80"), NONE, NO_STATUS);
  int connection = dualport_serves(dualport, &port, record, sizeof record);
  CHECK(!readable(connection, 50)); /* "0\n" did not go there */
  close(port);
  int client = connect_to(port_text);
  CHECK(client >= 0);
  close(client), close(connection), close(dualport);
  CHECK(ends_by(launched, SIGINT) == 0);
}

static void the_version_is_printed(void) {
  char command[128], line[128];
  snprintf(command, sizeof command, "%s -v", launcher_path);
  FILE *output = popen(command, "r");
  CHECK(fgets(line, sizeof line, output) != NULL && strncmp(line, "docker-proxy (commit dualport) version ", 39) == 0);
  CHECK(line[39] >= '0' && line[39] <= '9' && pclose(output) == 0);
}

/* ---- when the stock program does it ---- */

static void what_is_not_plainly_a_port_is_the_stock_programs(void) {
  char **cases[] = {
      WORDS("-proto", "sctp", "-host-ip", "127.0.0.1", "-host-port", "9", "-container-ip", "198.18.0.2", "-container-port", "9"),
      WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "9", "-container-ip", "198.18.0.2", "-container-port", "9", "-new"),
      WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "0", "-container-ip", "198.18.0.2", "-container-port", "9"),
      WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "65536", "-container-ip", "198.18.0.2", "-container-port", "9"),
      WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "4294967305", "-container-ip", "198.18.0.2", "-container-port", "9"),
      WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "0x50", "-container-ip", "198.18.0.2", "-container-port", "9"),
      WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "", "-container-ip", "198.18.0.2", "-container-port", "9"),
      WORDS("-proto", "tcp", "-host-ip", "localhost", "-host-port", "9", "-container-ip", "198.18.0.2", "-container-port", "9"),
      WORDS("-proto", "tcp", "-host-ip", "fe80::1%lo", "-host-port", "9", "-container-ip", "198.18.0.2", "-container-port", "9"),
      WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "9", "-container-ip", "198.18.0.2 x", "-container-port", "9"),
      WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "9", "-container-port", "9"),
      WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "9", "-container-ip", "198.18.0.2", "-container-port"),
      WORDS("-use-listen-fd=maybe", "-host-ip", "127.0.0.1"),
      WORDS("---proto", "tcp"),
      WORDS("-=", "tcp"),
      WORDS("-help", ""),
  };
  int dualport = dualport_open();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char expected[512] = "stock:";
    for (char **word = cases[i] + 1; *word != NULL; word++) strcat(strcat(expected, " "), *word);
    struct launched launched = launch_with(cases[i], NONE, NONE);
    CHECK(is_report(launched, expected));
    CHECK(ends(launched) == 0);
  }
  CHECK(!readable(dualport, 0)); /* which has heard of none of them */
  close(dualport);
}

static const char *stock_says(char *port) {
  static char text[256];
  snprintf(text, sizeof text,
           "stock: -proto tcp -host-ip 127.0.0.1 -host-port %s -container-ip 198.18.0.2 -container-port 80", port);
  return text;
}

static void without_dualport_the_stock_program_runs(void) {
  unlink(socket_path);
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port()); /* nothing there */
  CHECK(is_report(launched, stock_says(port_text)));
  CHECK(ends(launched) == 0);
  close(dualport_open());
  launched = launch_port("tcp", "127.0.0.1", free_port()); /* killed: its file is still there */
  CHECK(is_report(launched, stock_says(port_text)));
  CHECK(ends(launched) == 0);
}

static void whoever_greets_otherwise_is_not_dualport(void) {
  static const char *const greetings[] = {"dualport 2", "dualport 12", "dualport", "HTTP/1.1 200 OK"};
  int dualport = dualport_open();
  for (size_t i = 0; i < sizeof greetings / sizeof *greetings; i++) {
    struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
    int connection = dualport_greets(dualport, greetings[i]);
    char record[16];
    CHECK(recv(connection, record, sizeof record, 0) == 0); /* it is told nothing, and given nothing */
    CHECK(is_report(launched, stock_says(port_text)));
    CHECK(ends(launched) == 0);
    close(connection);
  }
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
  char record[256];
  int connection = dualport_greets(dualport, "dualport 1 2 3"), port = dualport_takes(connection, record, sizeof record);
  CHECK(strncmp(record, "dualport 1 ", 11) == 0);
  close(port), close(connection), close(dualport);
  CHECK(strncmp(reports(launched), "stock:", 6) == 0);
  CHECK(ends(launched) == 0);
}

static void a_dualport_that_sleeps_is_not_waited_for(void) {
  int dualport = dualport_open();
  long long began_ms = now_ms();
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
  CHECK(is_report(launched, stock_says(port_text)));
  CHECK(now_ms() - began_ms < 3000);
  CHECK(ends(launched) == 0);
  close(dualport);
}

/* It was awake when it greeted. Its copy of the port does not keep the stock program from binding it. */
static void a_dualport_that_falls_asleep_is_not_waited_for(void) {
  char record[256];
  int dualport = dualport_open();
  long long began_ms = now_ms();
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
  int connection = dualport_greets(dualport, "dualport 1"), port = dualport_takes(connection, record, sizeof record);
  CHECK(is_report(launched, stock_says(port_text)));
  CHECK(now_ms() - began_ms < 4000);
  CHECK(ends(launched) == 0);
  CHECK(connect_to(port_text) < 0);
  close(port), close(connection), close(dualport);
}

/* The stock program has to be able to bind it, also while dualport still has its copy. */
static void a_port_that_is_refused_is_free_for_the_stock_program(void) {
  char record[256];
  int dualport = dualport_open();
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
  int connection = dualport_greets(dualport, "dualport 1"), port = dualport_takes(connection, record, sizeof record);
  dualport_answers(connection, "refused there is no room");
  CHECK(is_report(launched, stock_says(port_text)));
  CHECK(ends(launched) == 0);
  const int one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  address.sin_port = htons((uint16_t)atoi(port_text));
  int next = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(next, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  CHECK(bind(next, (struct sockaddr *)&address, sizeof address) == 0 && listen(next, 1) == 0);
  close(next), close(port), close(connection), close(dualport);
}

/* fd 4 is dockerd's, and the stock program's to be: it stays open and listens. */
static void the_stock_program_is_given_fd_4(void) {
  char record[256];
  int dualport = dualport_open(), listener = bound_listener(true);
  struct launched launched =
      launch_with(WORDS("-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", port_text, "-container-ip", "198.18.0.2",
                        "-container-port", "80", "-use-listen-fd"), listener, NONE);
  int connection = dualport_greets(dualport, "dualport 1"), port = dualport_takes(connection, record, sizeof record);
  close(port), close(connection); /* it has no words for it */
  CHECK(strncmp(reports(launched), "stock with 4: ", 14) == 0);
  CHECK(ends(launched) == 0);
  CHECK(option(listener, SOL_SOCKET, SO_ACCEPTCONN) == 1);
  close(listener), close(dualport);
}

static void without_a_stock_program_dockerd_is_told_why(void) {
  unlink(socket_path);
  CHECK(setenv("DUALPORT_STOCK_DOCKER_PROXY", "/nonexistent/docker-proxy", 1) == 0);
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
  CHECK(is_report(launched, "1\ndualport does not answer on its socket; and the stock docker-proxy to run instead is not "
                            "/nonexistent/docker-proxy"));
  CHECK(ends(launched) == 1);
  setenv("DUALPORT_STOCK_DOCKER_PROXY", stock_path, 1);
}

/* In PATH, in a copy, or named: it never starts itself, and never another launcher that would start it again. */
static void it_is_not_its_own_stock_program(void) {
  char copy[112], command[512], path[512];
  unlink(socket_path);
  snprintf(copy, sizeof copy, "%s/copy", folder);
  CHECK(mkdir(copy, 0700) == 0);
  snprintf(command, sizeof command, "cp %s %s/docker-proxy", launcher_path, copy);
  CHECK(system(command) == 0);
  static const char failure[] = "1\ndualport does not answer on its socket; and the stock docker-proxy to run instead is not ";
  const char *names[] = {launcher_path, NULL};
  char copied[128];
  snprintf(copied, sizeof copied, "%s/docker-proxy", copy);
  names[1] = copied;
  for (int i = 0; i < 2; i++) {
    setenv("DUALPORT_STOCK_DOCKER_PROXY", names[i], 1);
    struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
    CHECK(strncmp(reports(launched), failure, sizeof failure - 1) == 0);
    CHECK(ends(launched) == 1);
  }
  char *before = strdup(getenv("PATH"));
  snprintf(path, sizeof path, "::relative:%s:%s:/usr/bin:/bin", copy, folder); /* itself, then the stand-in */
  setenv("DUALPORT_STOCK_DOCKER_PROXY", "", 1);
  setenv("PATH", path, 1);
  struct launched launched = launch_with((char *[]){copied, "-proto", "sctp", NULL}, NONE, NONE);
  CHECK(is_report(launched, "stock: -proto sctp"));
  CHECK(ends(launched) == 0);

  char other[112];
  snprintf(other, sizeof other, "%s/other", folder);
  snprintf(command, sizeof command, "mkdir %s && cp %s %s", other, copied, other);
  CHECK(system(command) == 0);
  snprintf(path, sizeof path, "%s:%s", copy, other); /* each could start the other, for ever */
  setenv("PATH", path, 1);
  launched = launch_with((char *[]){copied, "-proto", "sctp", NULL}, NONE, NONE);
  CHECK(strncmp(reports(launched), "1\nthis is not a TCP or UDP port", 31) == 0);
  CHECK(ends(launched) == 1);
  setenv("PATH", before, 1);
  free(before);
  setenv("DUALPORT_STOCK_DOCKER_PROXY", stock_path, 1);
}

/* ---- its end ---- */

static void a_signal_ends_it_at_any_time(void) {
  char record[256];
  int dualport = dualport_open(), port, connection;
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
  CHECK(readable(dualport, 5000)); /* not greeted yet */
  CHECK(ends_by(launched, SIGTERM) == 0);
  close(accept(dualport, NULL, NULL));

  launched = launch_port("tcp", "127.0.0.1", free_port());
  connection = dualport_greets(dualport, "dualport 1");
  port = dualport_takes(connection, record, sizeof record); /* not answered yet */
  long long began_ms = now_ms();
  CHECK(kill(launched.pid, SIGINT) == 0);
  CHECK(readable(connection, 1000) && recv(connection, record, sizeof record, 0) == 0);
  close(port), close(connection);
  CHECK(ends(launched) == 0);

  launched = launch_port("tcp", "127.0.0.1", free_port());
  connection = dualport_serves(dualport, &port, record, sizeof record);
  CHECK(is_report(launched, "0\n"));
  close(port), close(connection), close(dualport), unlink(socket_path); /* dualport is away */
  usleep(100 * 1000);
  CHECK(ends_by(launched, SIGINT) == 0);
  CHECK(now_ms() - began_ms < 1000);
}

/* dockerd starts the next proxy as soon as this one has ended; for UDP nothing else makes the port free. */
static void it_ends_when_dualport_has_given_the_port_back(void) {
  char record[256];
  int dualport = dualport_open(), port;
  struct launched launched = launch_port("udp", "127.0.0.1", free_port());
  int connection = dualport_serves(dualport, &port, record, sizeof record);
  CHECK(is_report(launched, "0\n"));
  CHECK(kill(launched.pid, SIGINT) == 0);
  CHECK(readable(connection, 1000) && recv(connection, record, sizeof record, 0) == 0);
  usleep(50 * 1000);
  CHECK(waitpid(launched.pid, NULL, WNOHANG) == 0); /* it waits */
  CHECK(kill(launched.pid, SIGTERM) == 0);          /* dockerd may die meanwhile */
  usleep(10 * 1000);
  CHECK(waitpid(launched.pid, NULL, WNOHANG) == 0);
  close(port), close(connection);
  CHECK(ends(launched) == 0);
  launched = launch_port("udp", "127.0.0.1", port_text);
  connection = dualport_serves(dualport, &port, record, sizeof record);
  CHECK(is_report(launched, "0\n"));
  close(port), close(connection), close(dualport);
  CHECK(ends_by(launched, SIGINT) == 0);
}

static void a_dualport_that_sleeps_keeps_no_listener(void) {
  char record[256];
  int dualport = dualport_open(), port;
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
  int connection = dualport_serves(dualport, &port, record, sizeof record);
  CHECK(is_report(launched, "0\n"));
  long long began_ms = now_ms();
  CHECK(ends_by(launched, SIGINT) == 0);
  CHECK(now_ms() - began_ms < 500);
  CHECK(connect_to(port_text) < 0); /* though a copy of it is still here */
  struct launched next = launch_port("tcp", "127.0.0.1", port_text);
  int next_port, next_connection = dualport_serves(dualport, &next_port, record, sizeof record);
  CHECK(is_report(next, "0\n"));
  close(next_port), close(next_connection), close(port), close(connection), close(dualport);
  CHECK(ends_by(next, SIGINT) == 0);
}

/* ---- while dualport is away ---- */

static void clients_wait_for_the_next_dualport(void) {
  char record[256], again[256];
  int dualport = dualport_open(), port;
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
  int connection = dualport_serves(dualport, &port, record, sizeof record);
  CHECK(is_report(launched, "0\n"));
  close(dualport), unlink(socket_path), close(port), close(connection);
  int clients[3];
  for (int i = 0; i < 3; i++) CHECK((clients[i] = connect_to(port_text)) >= 0);
  usleep(300 * 1000);
  CHECK(!readable(clients[0], 0)); /* nobody has accepted it, or ended it */
  dualport = dualport_open();
  long long began_ms = now_ms();
  connection = dualport_serves(dualport, &port, again, sizeof again);
  CHECK(now_ms() - began_ms < 1500);
  CHECK(strcmp(again, record) == 0);
  for (int i = 0; i < 3; i++) {
    int accepted = accept(port, NULL, NULL);
    CHECK(accepted >= 0);
    close(accepted), close(clients[i]);
  }
  close(port), close(connection), close(dualport);
  CHECK(ends_by(launched, SIGINT) == 0);
}

/* It has no other way than to ask again; the port is bound, and dockerd was told so. */
static void a_refusal_later_is_not_the_last_word(void) {
  char record[256];
  int dualport = dualport_open(), port;
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
  int connection = dualport_serves(dualport, &port, record, sizeof record);
  CHECK(is_report(launched, "0\n"));
  close(port), close(connection);
  connection = dualport_greets(dualport, "dualport 1");
  port = dualport_takes(connection, record, sizeof record);
  dualport_answers(connection, "refused not yet");
  close(port), close(connection);
  connection = dualport_greets(dualport, "dualport 7");
  close(connection);
  connection = dualport_serves(dualport, &port, record, sizeof record);
  dualport_answers(connection, "a word that this version does not know");
  usleep(20 * 1000);
  CHECK(waitpid(launched.pid, NULL, WNOHANG) == 0);
  close(port), close(connection), close(dualport);
  CHECK(ends_by(launched, SIGINT) == 0);
}

/* 10 ms, then twice as long each time up to a second. */
static void it_asks_ever_less_often(void) {
  char record[256];
  int dualport = dualport_open(), port, tries = 0;
  struct launched launched = launch_port("tcp", "127.0.0.1", free_port());
  int connection = dualport_serves(dualport, &port, record, sizeof record);
  CHECK(is_report(launched, "0\n"));
  close(port), close(connection);
  for (long long until_ms = now_ms() + 2000; now_ms() < until_ms;) {
    if (!readable(dualport, (int)(until_ms - now_ms()))) continue;
    close(accept(dualport, NULL, NULL));
    tries++;
  }
  CHECK(tries >= 5 && tries <= 9);
  close(dualport);
  CHECK(ends_by(launched, SIGINT) == 0);
}

static const struct {
  const char *name;
  void (*run)(void);
} tests[] = {
#define TEST(name) {#name, name}
    TEST(flags_are_read_as_go_reads_them),
    TEST(the_listener_is_as_dockerd_expects),
    TEST(the_backlog_is_the_systems),
    TEST(clients_that_wait_at_fd_4_are_handed_over_with_it),
    TEST(fd_4_that_is_no_socket_is_a_failure),
    TEST(a_port_that_cannot_be_bound_is_reported_in_the_words_of_go),
    TEST(success_is_one_write_of_two_bytes_and_the_end),
    TEST(one_whom_nobody_listens_to_ends),
    TEST(started_by_hand_it_does_without_fd_3),
    TEST(the_version_is_printed),
    TEST(what_is_not_plainly_a_port_is_the_stock_programs),
    TEST(without_dualport_the_stock_program_runs),
    TEST(whoever_greets_otherwise_is_not_dualport),
    TEST(a_dualport_that_sleeps_is_not_waited_for),
    TEST(a_dualport_that_falls_asleep_is_not_waited_for),
    TEST(a_port_that_is_refused_is_free_for_the_stock_program),
    TEST(the_stock_program_is_given_fd_4),
    TEST(without_a_stock_program_dockerd_is_told_why),
    TEST(it_is_not_its_own_stock_program),
    TEST(a_signal_ends_it_at_any_time),
    TEST(it_ends_when_dualport_has_given_the_port_back),
    TEST(a_dualport_that_sleeps_keeps_no_listener),
    TEST(clients_wait_for_the_next_dualport),
    TEST(a_refusal_later_is_not_the_last_word),
    TEST(it_asks_ever_less_often),
};

int main(int count, char **arguments) {
  signal(SIGPIPE, SIG_IGN);
  /* A shell has them ignored in what it runs in the background, as has nohup. */
  for (int i = 0; i < 3; i++) signal((int[]){SIGHUP, SIGINT, SIGQUIT}[i], SIG_DFL);
  alarm(120);
  strcpy(folder, "/tmp/dualport-launcher-XXXXXX");
  CHECK(mkdtemp(folder) != NULL && atexit(remove_folder) == 0);
  snprintf(socket_path, sizeof socket_path, "%s/socket", folder);
  snprintf(stock_path, sizeof stock_path, "%s/docker-proxy", folder);
  write_stock(stock_path);
  setenv("DUALPORT_DOCKER_PROXY_SOCKET", socket_path, 1);
  setenv("DUALPORT_STOCK_DOCKER_PROXY", stock_path, 1);
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    if (count > 1 && strstr(tests[i].name, arguments[1]) == NULL) continue;
    printf("  %s\n", tests[i].name);
    fflush(stdout);
    tests[i].run();
  }
  return 0;
}
