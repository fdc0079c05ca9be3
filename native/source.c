/*
 * The address an upstream's socket has, where it is not the kernel's choice. Whose address that may be is decided
 * elsewhere; here are the options that let bind() take it.
 *
 * A socket of another host's address is transparent, and stays so: it is what the rules that bring its answers here
 * look for. A pseudo address is local, by a route and not by an interface; IPv4 lets anybody bind to it, IPv6 needs the
 * free bind, which needs no privilege.
 */
#include "table.h"

#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

/* Of Linux 4.15; older C libraries have no name for it. */
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

static int set(int fd, int level, int option) {
  const int on = 1;
  return setsockopt(fd, level, option, &on, sizeof on) == 0 ? 0 : -errno;
}

static int allow_foreign(int fd, bool is_ipv4) {
  return is_ipv4 ? set(fd, IPPROTO_IP, IP_TRANSPARENT) : set(fd, IPPROTO_IPV6, IPV6_TRANSPARENT);
}

/*
 * Of TCP the port is chosen by connect(), which knows the other end: bind() would give each port of the address away
 * once only. A port that is kept may still be in TIME_WAIT from the client's connection before. UDP has neither, and
 * two of its sockets with one pair of addresses would take each other's datagrams: there a kept port is its own.
 */
static int prepare_port(int fd, const struct endpoint *at, bool is_tcp) {
  if (!is_tcp) return 0;
  return at->port == 0 ? set(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT) : set(fd, SOL_SOCKET, SO_REUSEADDR);
}

int source_bind(int fd, const struct source *from, const struct endpoint *to, bool is_tcp) {
  if (from == NULL) return 0;
  bool is_ipv4 = endpoint_is_ipv4(&from->at);
  if (is_ipv4 != endpoint_is_ipv4(to)) return -EAFNOSUPPORT;
  int error = 0;
  if (from->kind == SOURCE_FOREIGN) error = allow_foreign(fd, is_ipv4);
  else if (!is_ipv4) error = set(fd, IPPROTO_IPV6, IPV6_FREEBIND);
  if (error == 0) error = prepare_port(fd, &from->at, is_tcp);
  if (error != 0) return error;
  struct sockaddr_storage name;
  socklen_t length = endpoint_to_sockaddr(&from->at, &name);
  return bind(fd, (const struct sockaddr *)&name, length) == 0 ? 0 : -errno;
}

int core_allows_foreign(void) {
  bool is_ipv4 = true;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    is_ipv4 = false;
    fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  }
  if (fd < 0) return -errno;
  int error = allow_foreign(fd, is_ipv4);
  close(fd);
  return error;
}
