/*
 * 0.0.0.0 and [::] are two sockets of one port when the second is V6ONLY; without it the second is refused. And
 * without SO_REUSEADDR nobody takes a part of either.
 */
#include "platform.h"

static int bind_error(int type, const char *host, int port, int v6only) {
  struct address to = address(host, port);
  int fd = (int)MUST(socket(to.storage.ss_family, type, 0));
  if (to.storage.ss_family == AF_INET6) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, v6only);
  int error = try_bind(fd, to) < 0 ? errno : type == SOCK_STREAM && listen(fd, 1) < 0 ? errno : 0;
  if (error != 0 || v6only != 1 || strcmp(host, "::") != 0) close(fd); /* the pair itself stays */
  return error;
}

int main(void) {
  static const int types[] = {SOCK_STREAM, SOCK_DGRAM};
  for (int i = 0; i < 2; i++) {
    int v4 = bound(types[i], "0.0.0.0", 0), port = port_of(v4), error;
    if (types[i] == SOCK_STREAM) MUST(listen(v4, 1));
    ASSUME((error = bind_error(types[i], "::", port, 0)) == EADDRINUSE, "error %d for a dual-stack pair", error);
    ASSUME((error = bind_error(types[i], "::", port, 1)) == 0, "error %d for a V6ONLY pair", error);
    ASSUME((error = bind_error(types[i], "127.0.0.1", port, 0)) == EADDRINUSE, "error %d for a part", error);
    ASSUME((error = bind_error(types[i], "::1", port, 1)) == EADDRINUSE, "error %d for a part", error);
  }
  puts("ok 0.0.0.0 and [::] share a port when [::] is V6ONLY, and no part of it can be taken");
}
