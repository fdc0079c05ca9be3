/**
 * Upstream names to addresses, at start and every ten seconds after. The last good answer stays in force
 * while the name server is away; a name that never resolved gives no upstream, and its clients are reset
 * until it does. Connections are made to the addresses, so nothing is looked up per flow.
 */
import type { LookupAddress } from 'node:dns';
import { lookup } from 'node:dns/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Rule } from '../config/rules.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import { type Endpoint, endpointOf, formatHost } from '../net/address.ts';

const refreshMs = 10_000;
/** Most that a start or a reload waits for a name server. */
const waitMs = 3000;
/** A name with more addresses than this is answered with the first ones. */
const mostAddresses = 16;

export class Resolver {
  readonly #log: Log;
  readonly #addresses = new Map<string, readonly Endpoint[]>();
  readonly #changed: () => void;
  readonly #stopped = new AbortController();
  #wanted = new Set<string>();
  #timer: NodeJS.Timeout | undefined;

  /** @param changed called when a name's addresses are others than before */
  constructor(log: Log, changed: () => void) {
    this.#log = log;
    this.#changed = changed;
    // A process ends only when its look-ups have: without this, ten seconds after SIGTERM with a dead name server.
    process.env['RES_OPTIONS'] ??= 'timeout:1 attempts:2';
  }

  /**
   * Looks up every name of these rules that is not known yet; nothing is forgotten, for the rules may turn out
   * not to be accepted. A name server that does not answer holds nothing up: its names are told of when they
   * are known.
   */
  async follow(rules: readonly Rule[]): Promise<void> {
    const fresh = namesOf(rules).filter((name) => !this.#wanted.has(name));
    // Rules that come one by one by the thousand have addresses; a timer for each would outlive it by seconds.
    if (fresh.length === 0) return;
    for (const name of fresh) this.#wanted.add(name);
    const looking = Promise.all(fresh.map((name) => this.#lookUp(name)));
    const stopped = this.#stopped.signal;
    const decided = new AbortController();
    const signal = AbortSignal.any([stopped, decided.signal]);
    const tooLate = sleep(waitMs, true, { ref: false, signal }).catch(() => true);
    const late = await Promise.race([looking.then(() => false), tooLate]);
    // Or a timer and a listener stay behind for seconds, and containers may come and go by the hundred in these.
    decided.abort();
    if (late) void looking.then(() => stopped.aborted || this.#changed());
    if (this.#timer === undefined) this.#schedule();
  }

  /** Forgets the names that none of these rules has. */
  retain(rules: readonly Rule[]): void {
    this.#wanted = new Set(namesOf(rules));
    for (const name of this.#addresses.keys()) if (!this.#wanted.has(name)) this.#addresses.delete(name);
  }

  /** The rule's upstreams as they are known now. */
  upstreams(rule: Rule): readonly Endpoint[] {
    const port = rule.port.containerPort;
    return rule.to.flatMap((to) => {
      if (to.kind === 'address') return [{ address: to.address, zone: to.zone, port }];
      return (this.#addresses.get(to.name) ?? []).map((found) => ({ ...found, port }));
    });
  }

  close(): void {
    this.#stopped.abort();
    clearTimeout(this.#timer);
  }

  #schedule(): void {
    if (this.#stopped.signal.aborted) return;
    this.#timer = setTimeout(() => void this.#refresh(), refreshMs);
    this.#timer.unref();
  }

  async #refresh(): Promise<void> {
    const before = this.#known();
    // One after the other: look-ups share the four threads of libuv with everything else.
    for (const name of [...this.#wanted]) await this.#lookUp(name);
    if (!this.#stopped.signal.aborted && this.#known() !== before) this.#changed();
    this.#schedule();
  }

  #known(): string {
    return JSON.stringify([...this.#addresses].map(([name, found]) => [name, found.map(formatHost)]));
  }

  async #lookUp(name: string): Promise<void> {
    const known = this.#addresses.get(name) ?? [];
    const found = await lookup(name, { all: true, verbatim: true }).catch((error: unknown) => {
      if (known.length === 0)
        this.#log.warn({ name, reason: messageOf(error) }, 'upstream name does not resolve');
      return undefined;
    });
    // Forgotten while it was looked up.
    if (this.#wanted.has(name)) this.#addresses.set(name, found === undefined ? known : endpointsOf(found));
  }
}

function namesOf(rules: readonly Rule[]): readonly string[] {
  const names = rules.flatMap((rule) => rule.to.flatMap((to) => (to.kind === 'name' ? [to.name] : [])));
  return [...new Set(names)];
}

/** Sorted, because name servers rotate their answers and a rotation is no change. */
function endpointsOf(found: readonly LookupAddress[]): readonly Endpoint[] {
  const texts = [...new Set(found.map(({ address }) => address))].sort().slice(0, mostAddresses);
  return texts.map((text) => endpointOf(text, 0));
}
