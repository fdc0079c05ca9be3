/*
 * What a client gets before it has shown that it hears. Its address may be forged: what the upstream answers then goes
 * to somebody who has asked for nothing, many times over.
 *
 *   a datagram of the client ─► allows so many answers, so many bytes
 *   an answer of the upstream ─► takes from that, and from what the client's network may get a second
 *   the second datagram behind an answer ─► it hears: from here on nothing is reckoned any more
 *
 * A network is an IPv4 address or an IPv6 /64. Its rate is kept as the moment until which it has had its share, in one of
 * as many places as ports: two networks that share one by chance share the rate, and the chance has a secret.
 */
#include "udp.h"

#include <string.h>

enum {
  HEARS_AFTER = 2,       /* datagrams behind an answer */
  BURST_MS = 1000,       /* what a network may get at once, as if it had waited for so long */
  MOST_BYTES = 1u << 30, /* allowed and not used; more is never needed before the client hears */
};

static double *network_of(const struct udp *udp, const struct endpoint *peer) {
  uint32_t words[4];
  memcpy(words, peer->address, sizeof words);
  size_t length = endpoint_is_ipv4(peer) ? 4 : 2;
  uint64_t sum = udp->hash_seed[0];
  for (size_t i = 0; i < length; i += 2) sum += (udp->hash_seed[i + 1] + words[i]) * (udp->hash_seed[i + 2] + words[i + 1]);
  return &udp->networks[sum >> 48];
}

void budget_begin(struct flow *flow) {
  flow->budget = flow->listener->budget;
  flow->hears = flow->budget.datagrams == 0;
}

void budget_restart(struct flow *flow) {
  flow->datagrams_allowed = flow->bytes_allowed = 0;
}

void budget_request(struct flow *flow, uint32_t datagrams, uint32_t bytes) {
  if (flow->is_replied) {
    flow->behind_reply += datagrams;
    flow->hears = flow->behind_reply >= HEARS_AFTER;
  }
  const struct reply_budget *budget = &flow->budget;
  uint64_t more = budget->factor > 0 ? (uint64_t)budget->factor * bytes : (uint64_t)budget->bytes * datagrams;
  uint64_t allowed = flow->bytes_allowed + more;
  flow->bytes_allowed = (uint32_t)(allowed < MOST_BYTES ? allowed : MOST_BYTES);
  if (flow->datagrams_allowed < MOST_BYTES) flow->datagrams_allowed += budget->datagrams * datagrams;
}

static bool may_pass(struct core *core, struct flow *flow, uint32_t bytes) {
  if (flow->datagrams_allowed == 0 || flow->bytes_allowed < bytes) return false;
  double *until = network_of(core->udp, &flow->key.peer);
  double from = *until > core->now_ms ? *until : core->now_ms;
  if (from - core->now_ms > BURST_MS) return false;
  *until = from + bytes / flow->budget.bytes_per_ms;
  flow->datagrams_allowed--;
  flow->bytes_allowed -= bytes;
  flow->is_replied = true;
  return true;
}

void budget_spend(struct core *core, struct flow *flow, struct arrival *arrival) {
  uint32_t passed = 0, offset = 0;
  for (; passed < arrival->count; passed++, offset += arrival->each) {
    uint32_t left = arrival->length - offset;
    if (!may_pass(core, flow, left < arrival->each ? left : arrival->each)) break;
  }
  if (passed == arrival->count) return;
  struct counters *counters = flow->counters;
  if (counters != NULL) count(counters, counters->dropped_budget, arrival->count - passed);
  arrival->length = offset;
  arrival->count = passed;
}
