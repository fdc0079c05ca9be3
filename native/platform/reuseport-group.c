/*
 * Several sockets share an address although the first of them took it for itself alone: SO_REUSEPORT may be set on a
 * socket that is bound, and for TCP listens, already. So whoever binds first without the option cannot be joined by
 * another who does the same, of whatever user. Clients are spread over all of them, a UDP peer stays with one, and
 * datagrams can be kept away until all are there.
 */
#include "platform.h"

#include <linux/filter.h>
#include <sys/wait.h>

enum { MEMBERS = 3, CLIENTS = 96, EACH = 4 };

static int opened(int type, struct address to, int shared) {
  int fd = (int)MUST(socket(to.storage.ss_family, type | SOCK_NONBLOCK, 0));
  if (to.storage.ss_family == AF_INET6) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (type == SOCK_STREAM) set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (shared) set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  return fd;
}

static int error_of(int type, struct address to, int shared) {
  int fd = opened(type, to, shared);
  int error = try_bind(fd, to) < 0 || (type == SOCK_STREAM && listen(fd, 128) < 0) ? errno : 0;
  close(fd);
  return error;
}

/* The same as somebody who is not root. */
static int error_of_stranger(int type, struct address to, int shared) {
  pid_t child = (pid_t)MUST(fork());
  if (child == 0) _exit(setuid(65534) == 0 ? error_of(type, to, shared) : 255);
  int status;
  MUST(waitpid(child, &status, 0));
  return WEXITSTATUS(status);
}

static void drop_all(int fd) {
  struct sock_filter none = BPF_STMT(BPF_RET | BPF_K, 0);
  struct sock_fprog program = {1, &none};
  MUST(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
}

static void open_group(int type, struct address to, int members[MEMBERS]) {
  members[0] = opened(type, to, 0);
  if (type == SOCK_DGRAM) drop_all(members[0]);
  MUST(try_bind(members[0], to));
  if (type == SOCK_STREAM) MUST(listen(members[0], 128));
  to = local_of(members[0]);
  ASSUME(error_of(type, to, 0) == EADDRINUSE && error_of(type, to, 1) == EADDRINUSE, "somebody beside the first");
  set(members[0], SOL_SOCKET, SO_REUSEPORT, 1);
  ASSUME(error_of(type, to, 0) == EADDRINUSE, "somebody without the option beside the first");
  for (int i = 1; i < MEMBERS; i++) {
    members[i] = opened(type, to, 1);
    if (type == SOCK_DGRAM) drop_all(members[i]);
    MUST(try_bind(members[i], to));
    if (type == SOCK_STREAM) MUST(listen(members[i], 128));
  }
  ASSUME(error_of(type, to, 0) == EADDRINUSE, "somebody without the option beside all of them");
  ASSUME(error_of_stranger(type, to, 1) == EADDRINUSE, "another user beside them");
}

/* How many connections, or datagrams, each has; at a time when all have arrived. */
static int taken(int type, int fd, int *sender) {
  char data[64];
  int count = 0;
  while ((type == SOCK_STREAM ? accept4(fd, NULL, NULL, 0) : (int)recv(fd, data, sizeof data, 0)) >= 0) {
    if (type == SOCK_DGRAM && sender != NULL) sender[(unsigned char)data[0]]++;
    count++;
  }
  return count;
}

static void check_spread(int type, const int members[MEMBERS]) {
  struct address to = local_of(members[0]);
  int senders[MEMBERS][256] = {0};
  for (int i = 0; i < CLIENTS; i++) {
    int client = (int)MUST(socket(to.storage.ss_family, type, 0));
    char data = (char)i;
    MUST(try_connect(client, to));
    for (int n = 0; type == SOCK_DGRAM && n < EACH; n++) MUST(send(client, &data, 1, 0));
  }
  int all = 0;
  for (int i = 0; i < MEMBERS; i++) {
    int count = taken(type, members[i], senders[i]);
    ASSUME(count > 0, "nothing for member %d", i);
    all += count;
  }
  ASSUME(all == CLIENTS * (type == SOCK_DGRAM ? EACH : 1), "%d", all);
  for (int i = 0; type == SOCK_DGRAM && i < CLIENTS; i++) {
    int most = 0;
    for (int m = 0; m < MEMBERS; m++) most = senders[m][i] > most ? senders[m][i] : most;
    ASSUME(most == EACH, "a peer was torn apart: %d of %d", most, EACH);
  }
}

static void check(int type, const char *listens, const char *dialled) {
  int members[MEMBERS];
  open_group(type, address(listens, 0), members);
  struct address to = address(dialled, port_of(members[0]));
  if (type == SOCK_DGRAM) {
    int early = (int)MUST(socket(to.storage.ss_family, type, 0));
    for (int i = 0; i < 16; i++) MUST(sendto(early, "", 1, 0, (struct sockaddr *)&to.storage, to.length));
    for (int i = 0; i < MEMBERS; i++) set(members[i], SOL_SOCKET, SO_DETACH_FILTER, 0);
    for (int i = 0; i < MEMBERS; i++) ASSUME(taken(type, members[i], NULL) == 0, "a datagram came too early");
  }
  check_spread(type, members);
  for (int i = 0; i < MEMBERS; i++) close(members[i]);
}

int main(void) {
  static const int types[] = {SOCK_STREAM, SOCK_DGRAM};
  for (int i = 0; i < 2; i++) {
    check(types[i], "127.0.0.1", "127.0.0.1");
    check(types[i], "::1", "::1");
    check(types[i], "0.0.0.0", "127.0.0.1");
    check(types[i], "::", "::1");
  }
  puts("ok an address that was taken alone can be shared afterwards, by its owner only");
}
