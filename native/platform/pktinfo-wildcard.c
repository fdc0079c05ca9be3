/*
 * PKTINFO on a wildcard socket: tells the address that was dialled, and sends from it, for IPv4 and IPv6. Without
 * it the kernel chooses the address of an answer itself.
 */
#include "platform.h"

#include <sched.h>

union control {
  struct cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

/* The answer to one datagram, with or without what PKTINFO said; true if it came from where it was sent to. */
static bool is_answered(int server, const char *dialled, const char *from, bool with_info) {
  int client = bound(SOCK_DGRAM, from, 0);
  MUST(try_connect(client, address(dialled, port_of(server)))); /* hears nobody else */
  MUST(send(client, "hello", 5, 0));
  union control control;
  struct address peer;
  char data[16];
  struct iovec piece = {data, sizeof data};
  struct msghdr message = {&peer.storage, sizeof peer.storage, &piece, 1, &control, sizeof control, 0};
  MUST(recvmsg(server, &message, 0));
  struct cmsghdr *info = CMSG_FIRSTHDR(&message);
  ASSUME(info != NULL, "no PKTINFO");
  if (info->cmsg_type == IP_PKTINFO) ((struct in_pktinfo *)CMSG_DATA(info))->ipi_ifindex = 0;
  else ((struct in6_pktinfo *)CMSG_DATA(info))->ipi6_ifindex = 0;
  if (!with_info) message.msg_controllen = 0;
  message.msg_flags = 0;
  MUST(sendmsg(server, &message, 0));
  bool answered = becomes(client, POLLIN, 100);
  close(client);
  return answered;
}

int main(void) {
  MUST(unshare(CLONE_NEWNET)); /* where lo may have a second IPv6 address */
  run("ip link set lo up && ip address add fd00::2/128 dev lo nodad");
  int v4 = bound(SOCK_DGRAM, "0.0.0.0", 0), v6 = bound(SOCK_DGRAM, "::", 0);
  set(v4, IPPROTO_IP, IP_PKTINFO, 1);
  set(v6, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
  ASSUME(is_answered(v4, "127.0.0.2", "127.0.0.1", true), "no answer from 127.0.0.2");
  ASSUME(!is_answered(v4, "127.0.0.2", "127.0.0.1", false), "the right address without PKTINFO");
  ASSUME(is_answered(v6, "fd00::2", "::1", true), "no answer from fd00::2");
  ASSUME(!is_answered(v6, "fd00::2", "::1", false), "the right address without PKTINFO");
  puts("ok PKTINFO tells the dialled address of a wildcard socket and sends from it, IPv4 and IPv6");
}
