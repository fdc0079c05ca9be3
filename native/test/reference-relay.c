/*
 * The same relay all in C: the core with the least of callers, so that the bench can tell what TypeScript costs from what
 * the core does. Every client is connected to its listener's one upstream and relayed; nothing is limited, timed, logged
 * or counted. No test: `make reference` builds it.
 *
 *   ACCEPTED ─► core_connect ─► CONNECTED ─► core_relay        a client that is reset, or cannot be served ─► closed
 */
#include "core.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { BACKLOG = 4096, NOBODY = -1, MOST_SLOTS = 1 << 18 };

struct relay {
  struct core *core;
  struct shared shared;
  struct endpoint *upstream_of; /* by slot of a listener */
  int *other_of;                /* by slot of a client or upstream that is not relayed yet */
};

static void *zeroed(size_t count, size_t size) {
  void *memory = calloc(count, size);
  if (memory != NULL) return memory;
  perror("reference-relay");
  exit(1);
}

/* As many sockets as there may be descriptors. */
static int32_t slots(void) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  return files.rlim_max < MOST_SLOTS ? (int32_t)files.rlim_max : MOST_SLOTS;
}

static void open_core(struct relay *relay) {
  int32_t count = slots();
  size_t n = (size_t)count;
  relay->shared = (struct shared){.events = zeroed(MAX_EVENTS, sizeof(struct event)),
                                  .arena = zeroed(ARENA_BYTES, 1),
                                  .bytes = zeroed(n, sizeof(double)),
                                  .answer_bytes = zeroed(n, sizeof(double)),
                                  .active_ms = zeroed(n, sizeof(double)),
                                  .ended = zeroed(n, 1),
                                  .slots = count};
  relay->upstream_of = zeroed(n, sizeof *relay->upstream_of);
  relay->other_of = zeroed(n, sizeof *relay->other_of);
  relay->core = core_open(&relay->shared);
  if (relay->core != NULL) return;
  perror("reference-relay");
  exit(1);
}

static struct endpoint endpoint(const char *address, const char *port) {
  struct endpoint at = {.address = {[10] = 0xff, [11] = 0xff}, .port = (uint16_t)atoi(port)};
  if (inet_pton(AF_INET, address, at.address + 12) == 1 || inet_pton(AF_INET6, address, at.address) == 1) return at;
  fprintf(stderr, "reference-relay: %s is no address\n", address);
  exit(2);
}

static void listen_for(struct relay *relay, char *const words[4]) {
  struct endpoint at = endpoint(words[0], words[1]);
  int listener = core_tcp_listen(relay->core, &at, BACKLOG);
  if (listener < 0) {
    fprintf(stderr, "reference-relay: %s port %s: %s\n", words[0], words[1], strerror(-listener));
    exit(1);
  }
  relay->upstream_of[listener] = endpoint(words[2], words[3]);
}

static void give_up(struct relay *relay, int client) {
  if (relay->other_of[client] != NOBODY) core_close(relay->core, relay->other_of[client], 0);
  relay->other_of[client] = NOBODY;
  core_close(relay->core, client, 1);
}

static void accepted(struct relay *relay, int client, int listener) {
  int upstream = core_connect(relay->core, &relay->upstream_of[listener], NULL);
  relay->other_of[client] = upstream < 0 ? NOBODY : upstream;
  if (upstream < 0) give_up(relay, client);
  else relay->other_of[upstream] = client;
}

/* Of the pair, whichever was given up earlier in the batch has no other any more. */
static void connected(struct relay *relay, int upstream, int error) {
  int client = relay->other_of[upstream];
  if (client == NOBODY || relay->other_of[client] != upstream) return;
  if (error != 0 || core_relay(relay->core, client, upstream, NULL, 0, 0, 0, NULL) < 0) give_up(relay, client);
  else relay->other_of[client] = NOBODY;
}

static void happened(struct relay *relay, const struct event *event) {
  switch (event->kind) {
    case EVENT_ACCEPTED: accepted(relay, event->slot, event->value); break;
    case EVENT_CONNECTED: connected(relay, event->slot, event->value); break;
    case EVENT_GONE:
      if (relay->other_of[event->slot] != NOBODY) give_up(relay, event->slot);
      break;
    case EVENT_ACCEPT_FAILED: core_accepting(relay->core, event->slot, 1); break;
    default: break;
  }
}

int main(int count, char **words) {
  struct relay relay;
  if (count < 5 || count % 4 != 1) {
    fputs("usage: reference-relay <listen-address> <port> <upstream-address> <port> ...\n", stderr);
    return 2;
  }
  open_core(&relay);
  for (int i = 1; i < count; i += 4) listen_for(&relay, words + i);
  for (;;) {
    int events = core_poll(relay.core, -1);
    for (int i = 0; i < events; i++) happened(&relay, &relay.shared.events[i]);
  }
}
