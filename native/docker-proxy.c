/*
 * What dockerd starts for each published port instead of docker-proxy: a process that binds the port, hands the socket
 * to the one dualport, and waits (docs/docker-proxy.md).
 *
 *   flags ─► dualport greets ─► bind, or take fd 4 ─► hand over ─► "ok" ─► "0\n" on fd 3 ─► wait
 *      └─────────┴──── no ────────────── no ─────────────┘                        │
 *                ▼                                                    SIGINT ─► withdraw, exit 0
 *      exec the stock docker-proxy                               dualport gone ─► hand over again, and again
 *
 * dockerd holds locks until it reads fd 3, so nothing here waits for long. The connection is the registration: when it
 * ends, so does dualport's rule. The process keeps its own copy of the socket and never accepts from it: while dualport
 * is away clients wait in the backlog, datagrams in the buffer. What is not plainly a TCP or UDP port is the stock
 * program's business as a whole, with its own messages and exit status.
 *
 * There is one of these for each port and family, so it is static and does without stdio and heap.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
  STATUS_FD = 3,
  LISTEN_FD = 4,
  GREETING_MS = 2000,
  ANSWER_MS = 3000, /* with the greeting far below the 16 s that dockerd waits */
  LATER_ANSWER_MS = 30000, /* when thousands come again at once, and nobody waits for them */
  RELEASE_MS = 200,
  FIRST_RETRY_MS = 10,
  LAST_RETRY_MS = 1000,
};

static const char default_socket[] = "/run/dualport/docker-proxy.sock";
/* The words a dualport of this protocol begins with; others it speaks follow. */
static const char greeting[] = "dualport 1";
/* In the environment of a program that was started as the stock one: should it be a launcher too, it must not go on. */
static const char second_try[] = "DUALPORT_NOT_STOCK";

struct mapping {
  bool is_tcp;
  bool use_listen_fd;
  const char *host_text, *container_text;
  int host_port, container_port;
  struct sockaddr_storage host;
  socklen_t host_length;
};

static volatile sig_atomic_t stopping;
static sigset_t original_signals;
static bool has_status; /* started by hand there is no fd 3, and the number may become that of a socket */

static void stop(int signal) {
  (void)signal;
  stopping = 1;
}

/* Blocked but while waiting, so that none comes between the last look at `stopping` and the wait. */
static void take_signals(void) {
  sigset_t blocked;
  struct sigaction action = {.sa_handler = stop};
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGINT);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, &original_signals);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, NULL);
}

/* ---- text ---- */

struct text {
  char bytes[1024];
  size_t length;
};

static void add(struct text *text, const char *words) {
  while (*words != '\0' && text->length < sizeof text->bytes - 1) text->bytes[text->length++] = *words++;
  text->bytes[text->length] = '\0';
}

static void add_number(struct text *text, int number) {
  char digits[12];
  char *at = digits + sizeof digits - 1;
  *at = '\0';
  do *--at = (char)('0' + number % 10);
  while ((number /= 10) > 0);
  add(text, at);
}

/* ---- what dockerd reads ---- */

/* In one write: dockerd reads two bytes once, and takes anything else than "0\n" for a failure. */
static bool report(const char *bytes, size_t length) {
  if (!has_status) return true;
  bool written = write(STATUS_FD, bytes, length) == (ssize_t)length;
  close(STATUS_FD);
  return written;
}

static _Noreturn void fail(const struct text *why) {
  struct text text = {0};
  add(&text, "1\n");
  add(&text, why->bytes);
  report(text.bytes, text.length);
  _exit(1);
}

/* ---- the stock program ---- */

/* As dockerd 27 and later look for it. */
static const char *const stock_directories =
    "/usr/local/libexec/docker:/usr/libexec/docker:/usr/local/lib/docker:/usr/lib/docker:/usr/local/libexec:/usr/libexec";

static bool is_this_program(const struct stat *other) {
  struct stat self;
  return stat("/proc/self/exe", &self) == 0 && self.st_dev == other->st_dev && self.st_ino == other->st_ino;
}

static void try_stock(const char *path, char **arguments) {
  struct stat found;
  if (stat(path, &found) != 0 || !S_ISREG(found.st_mode) || is_this_program(&found)) return;
  execv(path, arguments);
}

static void try_directories(const char *list, char **arguments) {
  while (list != NULL && *list != '\0') {
    size_t length = strcspn(list, ":");
    struct text path = {0};
    if (length > 0 && length < sizeof path.bytes - sizeof "/docker-proxy") {
      memcpy(path.bytes, list, length);
      path.length = length;
      add(&path, "/docker-proxy");
      try_stock(path.bytes, arguments);
    }
    list += length + (list[length] == ':');
  }
}

/* Its files and arguments are as dockerd gave them. */
static _Noreturn void run_stock(char **arguments, const char *why) {
  const char *configured = getenv("DUALPORT_STOCK_DOCKER_PROXY");
  struct text text = {0};
  signal(SIGPIPE, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  if (getenv(second_try) == NULL && setenv(second_try, "1", 1) == 0) {
    sigprocmask(SIG_SETMASK, &original_signals, NULL);
    if (configured != NULL && *configured != '\0') try_stock(configured, arguments);
    else {
      try_directories(stock_directories, arguments);
      try_directories(getenv("PATH"), arguments);
    }
  }
  add(&text, why);
  add(&text, "; and the stock docker-proxy to run instead is not ");
  add(&text, configured != NULL && *configured != '\0' ? configured : "in /usr/libexec/docker or the PATH of dockerd");
  fail(&text);
}

/* ---- flags, as Go's package reads them ---- */

static bool parse_bool(const char *text, bool *value) {
  static const char *const words[2][6] = {{"0", "f", "F", "false", "False", "FALSE"}, {"1", "t", "T", "true", "True", "TRUE"}};
  for (int is_true = 0; is_true < 2; is_true++)
    for (int i = 0; i < 6; i++)
      if (strcmp(text, words[is_true][i]) == 0) {
        *value = is_true;
        return true;
      }
  return false;
}

static bool parse_port(const char *text, int *port) {
  *port = 0;
  for (const char *digit = text; *digit != '\0'; digit++) {
    if (*digit < '0' || *digit > '9' || digit - text >= 5) return false;
    *port = *port * 10 + (*digit - '0');
  }
  return *text != '0' && *port >= 1 && *port <= 65535;
}

static bool is_address(const char *text) {
  struct in6_addr bytes;
  return inet_pton(AF_INET, text, &bytes) == 1 || inet_pton(AF_INET6, text, &bytes) == 1;
}

/* An IPv4 address in the words of IPv6 is one: so it is to dockerd. */
static bool set_host(struct mapping *mapping) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)&mapping->host;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&mapping->host;
  struct in6_addr address;
  if (inet_pton(AF_INET6, mapping->host_text, &address) == 1 && !IN6_IS_ADDR_V4MAPPED(&address)) {
    *v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)mapping->host_port)};
    v6->sin6_addr = address;
    mapping->host_length = sizeof *v6;
    return true;
  }
  const char *mapped = strrchr(mapping->host_text, ':');
  *v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)mapping->host_port)};
  mapping->host_length = sizeof *v4;
  return inet_pton(AF_INET, mapped != NULL ? mapped + 1 : mapping->host_text, &v4->sin_addr) == 1;
}

struct flags {
  const char *protocol, *host_ip, *host_port, *container_ip, *container_port;
  bool use_listen_fd, version;
};

static bool set_flag(struct flags *flags, const char *name, const char *value) {
  if (strcmp(name, "proto") == 0) flags->protocol = value;
  else if (strcmp(name, "host-ip") == 0) flags->host_ip = value;
  else if (strcmp(name, "host-port") == 0) flags->host_port = value;
  else if (strcmp(name, "container-ip") == 0) flags->container_ip = value;
  else if (strcmp(name, "container-port") == 0) flags->container_port = value;
  else return false;
  return true;
}

static bool *switch_of(struct flags *flags, const char *name) {
  if (strcmp(name, "use-listen-fd") == 0) return &flags->use_listen_fd;
  return strcmp(name, "v") == 0 || strcmp(name, "version") == 0 ? &flags->version : NULL;
}

/* One or two dashes, the value behind = or in the next word, up to the first word that is no flag. */
static bool read_flags(struct flags *flags, char **arguments) {
  for (char **word = arguments + 1; *word != NULL; word++) {
    const char *name = *word;
    if (name[0] != '-' || name[1] == '\0' || strcmp(name, "--") == 0) return true;
    name += name[1] == '-' ? 2 : 1;
    size_t length = strcspn(name, "=");
    const char *value = name[length] == '=' ? name + length + 1 : NULL;
    char alone[32];
    if (length >= sizeof alone) return false;
    memcpy(alone, name, length);
    alone[length] = '\0';
    bool *is_set = switch_of(flags, alone);
    if (is_set != NULL) {
      if (!parse_bool(value != NULL ? value : "true", is_set)) return false;
    } else if ((value == NULL && (value = *++word) == NULL) || !set_flag(flags, alone, value)) {
      return false;
    }
  }
  return true;
}

static bool read_mapping(struct mapping *mapping, const struct flags *flags) {
  *mapping = (struct mapping){.is_tcp = strcmp(flags->protocol, "tcp") == 0, .use_listen_fd = flags->use_listen_fd};
  mapping->host_text = flags->host_ip;
  mapping->container_text = flags->container_ip;
  return (mapping->is_tcp || strcmp(flags->protocol, "udp") == 0) && is_address(flags->host_ip) &&
         is_address(flags->container_ip) && parse_port(flags->host_port, &mapping->host_port) &&
         parse_port(flags->container_port, &mapping->container_port) && set_host(mapping);
}

/* ---- the port ---- */

/* Go's words, which are glibc's in small letters; another libc has its own. */
static const char *error_text(int error) {
  switch (error) {
    case EADDRINUSE: return "address already in use";
    case EADDRNOTAVAIL: return "cannot assign requested address";
    case EACCES: return "permission denied";
    case EINVAL: return "invalid argument";
    case EAFNOSUPPORT: return "address family not supported by protocol";
    case EMFILE: return "too many open files";
    default: return strerror(error);
  }
}

/* In the words of the stock program, which dockerd passes on to whoever ran `docker run`. */
static _Noreturn void cannot_listen(const struct mapping *mapping, const char *call) {
  const char *cause = error_text(errno);
  struct text text = {0};
  bool is_ipv6 = mapping->host.ss_family == AF_INET6;
  add(&text, mapping->is_tcp ? "listen tcp" : "listen udp");
  add(&text, is_ipv6 ? "6 [" : "4 ");
  add(&text, mapping->host_text);
  add(&text, is_ipv6 ? "]:" : ":");
  add_number(&text, mapping->host_port);
  add(&text, ": ");
  add(&text, call);
  add(&text, ": ");
  add(&text, cause);
  fail(&text);
}

static int bind_port(const struct mapping *mapping) {
  const int one = 1;
  int family = mapping->host.ss_family;
  int fd = socket(family, (mapping->is_tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
  if (fd < 0) cannot_listen(mapping, "socket");
  if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  if (mapping->is_tcp) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  /* Of a datagram that comes before this is set the kernel does not keep where it was sent to. */
  else if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one);
  else setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
  if (bind(fd, (const struct sockaddr *)&mapping->host, mapping->host_length) != 0) cannot_listen(mapping, "bind");
  /* The kernel cuts it to net.core.somaxconn. */
  if (mapping->is_tcp && listen(fd, INT_MAX) != 0) cannot_listen(mapping, "listen");
  return fd;
}

/* To be asked before any other socket can get that number. */
static void require_listen_fd(void) {
  struct text why = {0};
  struct stat status;
  if (fstat(LISTEN_FD, &status) == 0 && S_ISSOCK(status.st_mode)) return;
  add(&why, "failed to listen: -use-listen-fd was given, and file descriptor 4 is not a socket");
  fail(&why);
}

/* ---- dualport ---- */

static long long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* False when the time is over, or this process is to end. -1 is for ever, for fd and for the time. */
static bool wait_for(int fd, long long ms) {
  struct pollfd polled = {.fd = fd, .events = POLLIN};
  struct timespec limit = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
  sigset_t none;
  sigemptyset(&none);
  if (stopping) return false;
  return ppoll(&polled, 1, ms < 0 ? NULL : &limit, &none) > 0;
}

/* One record as a string; false when none came in time, or the other side has ended. */
static bool read_record(int connection, char *record, size_t room, long long ms) {
  if (!wait_for(connection, ms)) return false;
  ssize_t length = recv(connection, record, room - 1, MSG_DONTWAIT);
  record[length > 0 ? length : 0] = '\0';
  return length > 0;
}

static const char *socket_path(void) {
  const char *path = getenv("DUALPORT_DOCKER_PROXY_SOCKET");
  return path != NULL && path[0] == '/' ? path : default_socket;
}

static bool is_greeting(const char *record) {
  size_t length = sizeof greeting - 1;
  return strncmp(record, greeting, length) == 0 && (record[length] == '\0' || record[length] == ' ');
}

/* Connects and is greeted, which shows that somebody is awake there before the socket leaves this process. */
static int greeted(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const char *path = socket_path();
  char record[256];
  if (strlen(path) >= sizeof address.sun_path) return -1;
  memcpy(address.sun_path, path, strlen(path) + 1);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  long long end_ms = now_ms() + GREETING_MS;
  int connected;
  /* EAGAIN is a full backlog: a thousand others may be at it. */
  while ((connected = connect(fd, (struct sockaddr *)&address, sizeof address)) != 0 && errno == EAGAIN) {
    if (now_ms() >= end_ms || stopping) break;
    wait_for(-1, 1);
  }
  if (connected == 0 && read_record(fd, record, sizeof record, end_ms - now_ms()) && is_greeting(record)) return fd;
  close(fd);
  return -1;
}

static bool send_port(int connection, const struct mapping *mapping, int port) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof port)];
  } control;
  struct text text = {0};
  add(&text, greeting);
  add(&text, mapping->is_tcp ? " tcp " : " udp ");
  add(&text, mapping->host_text);
  add(&text, " ");
  add_number(&text, mapping->host_port);
  add(&text, " ");
  add(&text, mapping->container_text);
  add(&text, " ");
  add_number(&text, mapping->container_port);
  struct iovec piece = {text.bytes, text.length};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  memset(&control, 0, sizeof control);
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof port);
  memcpy(CMSG_DATA(header), &port, sizeof port);
  return sendmsg(connection, &message, MSG_NOSIGNAL) == (ssize_t)text.length;
}

static bool hand_over(int connection, const struct mapping *mapping, int port, long long ms) {
  char answer[512];
  return send_port(connection, mapping, port) && read_record(connection, answer, sizeof answer, ms) &&
         strcmp(answer, "ok") == 0;
}

/*
 * dockerd may start the next proxy for this port as soon as this one has ended, so dualport has to have closed its copy
 * by then: it closes the connection behind it. If it does not answer, a listener can be ended from here for all who hold
 * it; with SO_REUSEADDR the next one binds beside it.
 */
static _Noreturn void withdraw(const struct mapping *mapping, int connection, int port) {
  char record[512];
  if (connection >= 0) {
    long long end_ms = now_ms() + RELEASE_MS;
    shutdown(connection, SHUT_WR);
    /* A second signal says nothing new. */
    do stopping = 0;
    while (end_ms > now_ms() && (read_record(connection, record, sizeof record, end_ms - now_ms()) || stopping));
  }
  if (mapping->is_tcp) shutdown(port, SHUT_RDWR);
  _exit(0);
}

/* Many begin to wait in the same moment; they need not go on waiting in step. */
static long long with_jitter(long long ms) {
  return ms + getpid() % (ms / 4 + 1);
}

static _Noreturn void keep(const struct mapping *mapping, int connection, int port) {
  long long retry_ms = FIRST_RETRY_MS;
  for (;;) {
    char record[512];
    /* Whatever else may be said here is of no concern to this version. */
    while (connection >= 0 && read_record(connection, record, sizeof record, -1)) {}
    if (stopping) withdraw(mapping, connection, port);
    if (connection >= 0) close(connection);
    connection = -1;
    wait_for(-1, with_jitter(retry_ms));
    if (stopping) continue;
    retry_ms = retry_ms * 2 < LAST_RETRY_MS ? retry_ms * 2 : LAST_RETRY_MS;
    connection = greeted();
    if (connection < 0) continue;
    if (hand_over(connection, mapping, port, LATER_ANSWER_MS)) retry_ms = FIRST_RETRY_MS;
    else if (!stopping) {
      close(connection);
      connection = -1;
    }
  }
}

static _Noreturn void print_version(void) {
  struct text text = {0};
  add(&text, "docker-proxy (commit dualport) version " VERSION "\n");
  _exit(write(STDOUT_FILENO, text.bytes, text.length) == (ssize_t)text.length ? 0 : 1);
}

int main(int count, char **arguments) {
  struct flags flags = {"tcp", "", "", "", "", false, false};
  struct mapping mapping;
  (void)count;
  has_status = fcntl(STATUS_FD, F_GETFD) >= 0;
  take_signals();
  if (!read_flags(&flags, arguments)) run_stock(arguments, "the flags are not those of a port");
  if (flags.version) print_version();
  if (!read_mapping(&mapping, &flags)) run_stock(arguments, "this is not a TCP or UDP port with addresses");
  if (mapping.use_listen_fd) require_listen_fd();
  int connection = greeted();
  if (stopping) _exit(0);
  if (connection < 0) run_stock(arguments, "dualport does not answer on its socket");
  int port = mapping.use_listen_fd ? LISTEN_FD : bind_port(&mapping);
  bool is_taken = hand_over(connection, &mapping, port, ANSWER_MS);
  if (stopping) withdraw(&mapping, connection, port);
  if (!is_taken) {
    /* Whoever holds a copy still keeps nobody from binding the port. */
    if (mapping.is_tcp && !mapping.use_listen_fd) shutdown(port, SHUT_RDWR);
    close(connection);
    run_stock(arguments, "dualport does not take the port");
  }
  if (!report("0\n", 2)) _exit(1);
  if (mapping.use_listen_fd) fcntl(port, F_SETFD, FD_CLOEXEC);
  keep(&mapping, connection, port);
}
