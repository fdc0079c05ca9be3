/*
 * A core with the plainest of callers (every client is connected to one upstream and relayed), and plain sockets to
 * be its clients and servers. One thread: a socket that would block lets the core run.
 */
#ifndef DUALPORT_TEST_TCP_H
#define DUALPORT_TEST_TCP_H

#include "../tcp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
      abort();                                                                      \
    }                                                                               \
  } while (0)

enum { SLOTS = 4096 };

/* What the caller knows of a flow, by the slot of its client. */
struct known {
  int upstream;
  bool relayed, ended;
  int reason, gone, readable;
};

struct rig {
  struct core *core;
  struct shared shared;
  struct counters counters;
  double values[16];
  int listener, server; /* the core's slot; the upstream's descriptor */
  uint16_t port, server_port;
  bool hold; /* accept, but leave everything else to the test */
  struct known known[SLOTS];
  int client_of[SLOTS]; /* by upstream slot */
  int accepted[SLOTS], accepted_count;
  int connected, connect_error, ended, accept_error;
};

struct rig *rig_open(void);
void rig_close(struct rig *); /* also checks that nothing is left */
int rig_poll(struct rig *, int timeout_ms);

/* One flow: client's and server's descriptor; the slot is the return value. */
int rig_flow(struct rig *, int *client, int *server);
int rig_client(struct rig *); /* a connection to the listener, not yet accepted by the core */
int rig_server(struct rig *); /* the upstream's next connection */

struct endpoint loopback(uint16_t port);
void reset(int fd); /* closes with RST */
bool readable(int fd);
int descriptors(void); /* open in this process */

/* Deterministic bytes, and what came, as a hash. */
struct stream {
  int fd;
  uint64_t sent_hash, got_hash;
  size_t to_send, to_get, sent, got;
  uint32_t seed;
};
bool stream_move(struct stream *); /* false when both are done */

/* Counted by wrapped malloc and free: live blocks of 1 KiB and more. */
extern size_t live_blocks, live_bytes;
/* Wrapped system calls that fail with this errno, 0 for none. */
extern int splice_error, pipe_error;
extern bool small_pipes;
extern unsigned splices, pipes_made;
/* Called by the wrapped epoll_wait when it has returned. */
extern void (*after_epoll_wait)(void);

#endif
