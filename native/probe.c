/* A socket that nobody has connected yet, for asking an upstream as somebody else whether its answers come back. */
#include "table.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

int core_socket_from(const struct source *from, int is_tcp) {
  int family = endpoint_is_ipv4(&from->at) ? AF_INET : AF_INET6;
  int fd = socket(family, (is_tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int error = source_bind(fd, from, &from->at, is_tcp);
  if (error == 0) return fd;
  close(fd);
  return error;
}
