/*
 * A train sent with UDP_SEGMENT crosses lo and veth in one piece to a socket with UDP_GRO, and arrives as its
 * datagrams at a socket without. Empty datagrams are never part of a train.
 */
#include "platform.h"

#include <sched.h>
#include <sys/wait.h>

enum { EACH = 1200, COUNT = 40, LAST = 700, TOTAL = (COUNT - 1) * EACH + LAST };

static int receiver(const char *host, bool with_gro) {
  int fd = bound(SOCK_DGRAM, host, 0);
  set(fd, SOL_SOCKET, SO_RCVBUF, 1 << 20);
  if (with_gro) set(fd, IPPROTO_UDP, UDP_GRO, 1);
  return fd;
}

static void send_train(int fd) {
  static char data[TOTAL];
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
  } control = {0};
  struct iovec piece = {data, TOTAL};
  struct msghdr message = {NULL, 0, &piece, 1, &control, sizeof control, 0};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  *header = (struct cmsghdr){.cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT, .cmsg_len = CMSG_LEN(2)};
  memcpy(CMSG_DATA(header), &(uint16_t){EACH}, 2);
  long sent = MUST(sendmsg(fd, &message, 0));
  ASSUME(sent == TOTAL, "%ld of %d bytes sent", sent, TOTAL);
}

/* The length of the next message; `each` is what UDP_GRO says, an int, or 0. */
static long receive(int fd, int *each) {
  static char data[65536];
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec piece = {data, sizeof data};
  struct msghdr message = {NULL, 0, &piece, 1, &control, sizeof control, 0};
  ASSUME(becomes(fd, POLLIN, 1000), "nothing arrived");
  long length = MUST(recvmsg(fd, &message, 0));
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  *each = 0;
  if (header != NULL && header->cmsg_type == UDP_GRO) memcpy(each, CMSG_DATA(header), sizeof *each);
  return length;
}

static void check_path(const char *name, int sender, const char *host, int whole, int parted) {
  int each;
  MUST(try_connect(sender, address(host, port_of(whole))));
  send_train(sender);
  long length = receive(whole, &each);
  ASSUME(length == TOTAL && each == EACH, "%s: %ld bytes of %d each with UDP_GRO", name, length, each);
  for (int i = 0; i < 2; i++) MUST(send(sender, "", 0, 0));
  for (int i = 0; i < 2; i++) {
    length = receive(whole, &each);
    ASSUME(length == 0 && each == 0, "%s: %ld bytes of %d each for an empty datagram", name, length, each);
  }
  MUST(try_connect(sender, address(host, port_of(parted))));
  send_train(sender);
  for (int i = 0; i < COUNT; i++) {
    length = receive(parted, &each);
    ASSUME(length == (i < COUNT - 1 ? EACH : LAST) && each == 0, "%s: %ld bytes without UDP_GRO", name, length);
  }
}

/* The other end of a veth pair in another namespace, whose sockets this process keeps. */
static void check_veth(void) {
  int here = (int)MUST(open("/proc/self/ns/net", O_RDONLY));
  MUST(unshare(CLONE_NEWNET));
  int there = (int)MUST(open("/proc/self/ns/net", O_RDONLY));
  char command[200];
  MUST(setns(here, CLONE_NEWNET));
  snprintf(command, sizeof command, "ip link add platform0 type veth peer name platform1 netns /proc/%d/fd/%d",
           getpid(), there);
  run(command);
  run("ip address add 198.18.255.1/30 dev platform0 && ip link set platform0 up");
  MUST(setns(there, CLONE_NEWNET));
  run("ip address add 198.18.255.2/30 dev platform1 && ip link set platform1 up");
  int whole = receiver("198.18.255.2", true), parted = receiver("198.18.255.2", false);
  MUST(setns(here, CLONE_NEWNET));
  check_path("veth", bound(SOCK_DGRAM, "198.18.255.1", 0), "198.18.255.2", whole, parted);
}

int main(void) {
  static const char *const hosts[] = {"127.0.0.1", "::1"};
  MUST(unshare(CLONE_NEWNET));
  run("ip link set lo up");
  for (int i = 0; i < 2; i++)
    check_path("lo", bound(SOCK_DGRAM, hosts[i], 0), hosts[i], receiver(hosts[i], true), receiver(hosts[i], false));
  check_veth();
  puts("ok trains cross lo and veth whole to UDP_GRO, and as datagrams to sockets without");
}
