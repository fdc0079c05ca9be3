/**
 * What a UDP client gets before it has shown that it hears. Its address may be forged: what the upstream answers
 * then goes to somebody who has asked for nothing, many times over. The Linux engine keeps the same budget in C
 * (native/udp-budget.c), because known flows pass there.
 *
 *   a datagram of the client ─► allows so many answers, so many bytes
 *   an answer of the upstream ─► takes from that, and from what the client's network may get a second
 *   the second datagram behind an answer ─► it hears: from here on nothing is reckoned any more
 *
 * This proves nothing: who forges one datagram may forge four. But no upstream is talked into a flood by the first.
 *
 * Each thread reckons for itself: with several, a network may get as many times its share a second.
 *
 * Where PROXY headers are expected there is no budget: answers go to the proxy in front, and are its business.
 */
import { randomBytes } from 'node:crypto';
import { type Address, sourceKey } from '../net/address.ts';
import type { Plan } from './engine.ts';

export interface ReplyBudget {
  /** For each datagram of the client. */
  readonly datagrams: number;
  readonly bytes: number;
  /** Instead of `bytes`, where it is not 0: so many times what the client has sent. */
  readonly factor: number;
  /** For all such clients of a network (IPv4 /32, IPv6 /64) together. */
  readonly bytesPerSecond: number;
}

/** The budget that new flows have. */
export function replyBudget({ replies, trusts }: Plan): ReplyBudget | undefined {
  return trusts === undefined ? replies : undefined;
}

/** As native/udp-budget.c has it. */
const hearsAfter = 2;
const networks = 65_536;
const burstMs = 1000;

/**
 * The rate of each network, kept as the moment until which it has had its share. Networks share a place by chance,
 * which has a secret, and then they share the rate.
 */
export class NetworkRates {
  readonly #until = new Float64Array(networks);
  readonly #secret = randomBytes(4).readUInt32LE();

  /** False when the network has had its share of this second. */
  take(client: Address, bytes: number, bytesPerSecond: number, nowMs: number): boolean {
    const place = this.#placeOf(client);
    const from = Math.max(this.#until[place] ?? 0, nowMs);
    if (from - nowMs > burstMs) return false;
    this.#until[place] = from + (bytes * 1000) / bytesPerSecond;
    return true;
  }

  #placeOf(client: Address): number {
    const key = sourceKey(client);
    let hash = this.#secret;
    for (let i = 0; i < key.length; i++) {
      hash = Math.imul(hash ^ key.charCodeAt(i), 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    return hash & (networks - 1);
  }
}

/** Of one flow. */
export class ReplyAllowance {
  readonly #budget: ReplyBudget;
  readonly #rates: NetworkRates;
  readonly #client: Address;
  #datagrams = 0;
  #bytes = 0;
  #isReplied = false;
  #behindReply = 0;

  constructor(budget: ReplyBudget, rates: NetworkRates, client: Address) {
    this.#budget = budget;
    this.#rates = rates;
    this.#client = client;
  }

  /** The client has sent this. True when it hears, as far as can be known: nothing need be asked any more. */
  request(bytes: number): boolean {
    if (this.#isReplied) this.#behindReply++;
    const { factor } = this.#budget;
    this.#datagrams += this.#budget.datagrams;
    this.#bytes += factor > 0 ? factor * bytes : this.#budget.bytes;
    return this.#behindReply >= hearsAfter;
  }

  /** May this answer go to the client? */
  spend(bytes: number, nowMs: number): boolean {
    if (this.#datagrams === 0 || this.#bytes < bytes) return false;
    if (!this.#rates.take(this.#client, bytes, this.#budget.bytesPerSecond, nowMs)) return false;
    this.#datagrams--;
    this.#bytes -= bytes;
    this.#isReplied = true;
    return true;
  }
}
