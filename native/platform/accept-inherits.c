/*
 * Accepted sockets have the TCP_NODELAY and keep-alive settings of their listener, so that they cost no call per
 * connection; but not O_NONBLOCK, which accept4 sets.
 */
#include "platform.h"

static int get(int fd, int level, int option) {
  int value = -1;
  socklen_t length = sizeof value;
  MUST(getsockopt(fd, level, option, &value, &length));
  return value;
}

int main(void) {
  static const struct {
    const char *name;
    int level, option, value;
  } options[] = {{"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 1},
                 {"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1},
                 {"TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 77},
                 {"TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 11},
                 {"TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 5}};
  static const char *const hosts[] = {"127.0.0.1", "::1"};
  for (int h = 0; h < 2; h++) {
    int listener = listening(hosts[h]);
    for (unsigned i = 0; i < sizeof options / sizeof *options; i++)
      set(listener, options[i].level, options[i].option, options[i].value);
    MUST(fcntl(listener, F_SETFL, O_NONBLOCK));
    struct address to = local_of(listener);
    MUST(try_connect((int)MUST(socket(to.storage.ss_family, SOCK_STREAM, 0)), to));
    int accepted = (int)MUST(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    for (unsigned i = 0; i < sizeof options / sizeof *options; i++) {
      int value = get(accepted, options[i].level, options[i].option);
      ASSUME(value == options[i].value, "%s = %d", options[i].name, value);
    }
    ASSUME((fcntl(accepted, F_GETFL) & O_NONBLOCK) == 0, "O_NONBLOCK inherited");
  }
  puts("ok accepted sockets inherit TCP_NODELAY and the keep-alive settings");
}
