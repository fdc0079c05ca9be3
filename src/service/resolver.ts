/**
 * Upstream names to addresses, at start and every ten seconds after. The last good answer stays in force
 * while the name server is away; a name that never resolved gives no upstream, and its clients are reset
 * until it does. Connections are made to the addresses, so nothing is looked up per flow.
 */
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
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  /** @param changed called when a name's addresses are others than before */
  constructor(log: Log, changed: () => void) {
    this.#log = log;
    this.#changed = changed;
  }

  /**
   * Looks up every name of these rules that is not known yet; names no rule has are forgotten. A name server
   * that does not answer holds nothing up: its names are told of when they are known.
   */
  async follow(rules: readonly Rule[]): Promise<void> {
    const names = new Set(
      rules.flatMap((rule) => rule.to.flatMap((to) => (to.kind === 'name' ? [to.name] : []))),
    );
    for (const name of this.#addresses.keys()) if (!names.has(name)) this.#addresses.delete(name);
    const fresh = [...names].filter((name) => !this.#addresses.has(name));
    const looking = Promise.all(fresh.map((name) => this.#lookUp(name)));
    const late = await Promise.race([looking.then(() => false), sleep(waitMs, true, { ref: false })]);
    if (late) void looking.then(() => this.#closed || this.#changed());
    if (names.size > 0 && this.#timer === undefined) this.#schedule();
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
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #schedule(): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => void this.#refresh(), refreshMs);
    this.#timer.unref();
  }

  async #refresh(): Promise<void> {
    const before = this.#known();
    // One after the other: look-ups share the four threads of libuv with everything else.
    for (const name of [...this.#addresses.keys()]) await this.#lookUp(name);
    if (!this.#closed && this.#known() !== before) this.#changed();
    this.#schedule();
  }

  #known(): string {
    return JSON.stringify([...this.#addresses].map(([name, found]) => [name, found.map(formatHost)]));
  }

  async #lookUp(name: string): Promise<void> {
    try {
      const found = await lookup(name, { all: true, verbatim: true });
      // Sorted, because name servers rotate their answers and a rotation is no change.
      const texts = [...new Set(found.map(({ address }) => address))].sort().slice(0, mostAddresses);
      this.#addresses.set(
        name,
        texts.map((text) => endpointOf(text, 0)),
      );
    } catch (error) {
      const known = this.#addresses.get(name) ?? [];
      if (known.length === 0)
        this.#log.warn({ name, reason: messageOf(error) }, 'upstream name does not resolve');
      this.#addresses.set(name, known);
    }
  }
}
