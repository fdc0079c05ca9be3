/*
 * On loopback a connection is made, or refused, within connect() itself although that says EINPROGRESS: a send
 * right behind it passes, or says why not. A refusal is told once, by connect() or by what is asked of the socket next.
 */
#include "platform.h"

int main(void) {
  int listener = listening("127.0.0.1");
  int fd = (int)MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  int result = try_connect(fd, local_of(listener));
  ASSUME(result < 0 && errno == EINPROGRESS, "connect = %d", result);
  long sent = send(fd, "hello", 5, MSG_NOSIGNAL);
  ASSUME(sent == 5, "send = %ld", sent);
  char got[8];
  int accepted = (int)MUST(accept(listener, NULL, NULL));
  long length = MUST(recv(accepted, got, sizeof got, MSG_DONTWAIT));
  ASSUME(length == 5, "%ld bytes with the connection", length);

  struct address closed = local_of(listener);
  close(listener);
  fd = (int)MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  result = try_connect(fd, closed);
  ASSUME(result < 0 && (errno == EINPROGRESS || errno == ECONNREFUSED), "connect = %d", result);
  bool told = errno == ECONNREFUSED;
  sent = send(fd, "hello", 5, MSG_NOSIGNAL);
  ASSUME(sent < 0 && (told ? errno == EPIPE || errno == ENOTCONN : errno == ECONNREFUSED), "send = %ld after %s", sent,
         told ? "ECONNREFUSED" : "EINPROGRESS");
  puts("ok on loopback a send right behind connect() passes, or tells the refusal");
}
