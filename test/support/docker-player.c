/* Plays dockerd to one proxy, as dockerd 20.10 to 29 are seen to do it:
 *
 *   docker-player [--tcp4 HOST:PORT | --tcp6 … | --tcp-dual … | --udp4 … | --udp6 …] PROXY ARGUMENT ...
 *
 * The option has it bind the port itself and hand it on as file descriptor 4, as 28 and later do: TCP listens already,
 * UDP has PKTINFO, and until "start" is read from standard input (29) a filter drops everything that comes for UDP.
 * Standard input takes a command a line; each has one line of answer:
 *
 *   start     "0" when the proxy has reported success and nothing else, "1 TEXT" when not, "timeout" after 16 s, "end"
 *             when it ended without a word
 *   deaf      starts it too, but closes the reading end first: what it reports meets EPIPE; "deaf"
 *   SIGNAL    sends it (INT, TERM, HUP, QUIT, KILL) and waits: "exit STATUS MS" or "signal NUMBER MS"
 *   wait      waits for it to end by itself
 *
 * Success is read as dockerd does: one read of two bytes. Its end is the proxy's, whatever happens to it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LIMIT_MS = 16000 };

static pid_t proxy;
static int listener = -1, is_udp;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static long long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void set(int level, int name, int value) {
  if (setsockopt(listener, level, name, &value, sizeof value)) fail("setsockopt");
}

static void drop_everything(void) {
  struct sock_filter none = {BPF_RET | BPF_K, 0, 0, 0};
  struct sock_fprog program = {1, &none};
  if (setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program)) fail("filter");
}

static void bind_port(const char *kind, char *place) {
  int v4 = strchr(kind, '4') != NULL;
  char *colon = strrchr(place, ':');
  struct sockaddr_in in = {.sin_family = AF_INET};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
  *colon = '\0';
  in.sin_port = in6.sin6_port = htons((uint16_t)atoi(colon + 1));
  if (inet_pton(v4 ? AF_INET : AF_INET6, place, v4 ? (void *)&in.sin_addr : (void *)&in6.sin6_addr) != 1) fail(place);
  is_udp = strncmp(kind, "--udp", 5) == 0;
  listener = socket(v4 ? AF_INET : AF_INET6, (is_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
  if (listener < 0) fail("socket");
  if (!v4) set(IPPROTO_IPV6, IPV6_V6ONLY, strcmp(kind, "--tcp-dual") != 0);
  if (!is_udp) set(SOL_SOCKET, SO_REUSEADDR, 1);
  else if (v4) set(IPPROTO_IP, IP_PKTINFO, 1);
  else set(IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
  if (is_udp) drop_everything();
  if (bind(listener, v4 ? (void *)&in : (void *)&in6, v4 ? sizeof in : sizeof in6)) fail("bind");
  if (!is_udp && listen(listener, SOMAXCONN)) fail("listen");
}

static int start(char **arguments, int deaf) {
  int status[2], null = open("/dev/null", O_RDWR | O_CLOEXEC), zero = 0;
  if (pipe2(status, O_CLOEXEC)) fail("pipe2");
  if (is_udp && listener >= 0) setsockopt(listener, SOL_SOCKET, SO_DETACH_FILTER, &zero, sizeof zero);
  if (deaf) close(status[0]);
  proxy = fork();
  if (proxy < 0) fail("fork");
  if (proxy == 0) {
    int three = fcntl(status[1], F_DUPFD_CLOEXEC, 20), four = listener < 0 ? -1 : fcntl(listener, F_DUPFD_CLOEXEC, 20);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    dup2(three, 3);
    if (four >= 0) dup2(four, 4);
    execv(arguments[0], arguments);
    _exit(127);
  }
  close(null);
  close(status[1]);
  return status[0];
}

static int readable(int fd, long long end_ms) {
  struct pollfd polled = {fd, POLLIN, 0};
  long long left_ms = end_ms - now_ms();
  return poll(&polled, 1, left_ms > 0 ? (int)left_ms : 0) == 1;
}

/* The first two bytes are swallowed, whatever they are; the rest up to the end is what went wrong. */
static void hear(int status) {
  char two[3] = "", rest[4096] = "";
  size_t length = 0;
  long long end_ms = now_ms() + LIMIT_MS;
  if (!readable(status, end_ms)) return (void)puts("timeout");
  ssize_t got = read(status, two, 2);
  if (got == 2 && strcmp(two, "0\n") == 0) {
    char more;
    puts(readable(status, now_ms() + 1000) && read(status, &more, 1) > 0 ? "0 and more" : "0");
    close(listener);
    return;
  }
  while (readable(status, end_ms)) {
    ssize_t count = read(status, rest + length, sizeof rest - 1 - length);
    if (count <= 0) return (void)(got > 0 ? printf("1 %s\n", rest) : puts("end"));
    length += (size_t)count;
  }
  puts("timeout");
}

static void wait_for_end(void) {
  int status;
  long long began_ms = now_ms();
  if (waitpid(proxy, &status, 0) != proxy) fail("waitpid");
  if (WIFEXITED(status)) printf("exit %d %lld\n", WEXITSTATUS(status), now_ms() - began_ms);
  else printf("signal %d %lld\n", WTERMSIG(status), now_ms() - began_ms);
  proxy = 0;
}

static int signal_of(const char *name) {
  static const struct {
    const char *name;
    int number;
  } signals[] = {{"INT", SIGINT}, {"TERM", SIGTERM}, {"HUP", SIGHUP}, {"QUIT", SIGQUIT}, {"KILL", SIGKILL}};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
    if (strcmp(name, signals[i].name) == 0) return signals[i].number;
  return 0;
}

int main(int count, char **arguments) {
  char line[64];
  int status = -1;
  if (count > 3 && strncmp(arguments[1], "--", 2) == 0) {
    bind_port(arguments[1], arguments[2]);
    arguments += 2;
  }
  arguments++;
  setvbuf(stdout, NULL, _IOLBF, 0);
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = '\0';
    if (strcmp(line, "start") == 0) {
      hear(status = start(arguments, 0));
      close(status);
    } else if (strcmp(line, "deaf") == 0) {
      start(arguments, 1);
      puts("deaf");
    } else {
      if (strcmp(line, "wait") != 0 && kill(proxy, signal_of(line))) fail("kill");
      wait_for_end();
    }
  }
  if (proxy > 0) kill(proxy, SIGKILL);
  return 0;
}
