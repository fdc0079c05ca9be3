/**
 * What events have said to have ended. Docker tells that a container has died before its own list knows: for
 * some hundred milliseconds, and longer on a busy host, the list still has it running, with addresses that are
 * given to others in the meantime. So for a while the event is believed and not the list.
 *
 * Each start gives a container new endpoints. One with other endpoints than those that ended has started again,
 * and so has one of which an event says so; an end that is older than the last start is an echo of the past.
 */
import type { Container } from './container.ts';

interface Departure {
  /** Milliseconds of a clock that only goes forward. */
  readonly until: number;
  /** Those that ended; none when it was not known. */
  readonly endpoints: ReadonlySet<string>;
}

export class Departures {
  readonly #settleMs: number;
  readonly #now: () => number;
  /** By container, or by container and network. */
  readonly #ended = new Map<string, Departure>();
  /** When each began at the latest, by the engine's clock. */
  readonly #began = new Map<string, number>();

  /** @param settleMs how long a list may be behind an event */
  constructor(settleMs: number, now: () => number) {
    this.#settleMs = settleMs;
    this.#now = now;
  }

  /**
   * A container, or with a network its place there, has ended.
   *
   * @param at the engine's time of it
   * @param last the container as it was last listed
   * @returns false when it has begun again since
   */
  ended(container: string, network: string | undefined, at: number, last: Container | undefined): boolean {
    const key = keyOf(container, network);
    if ((this.#began.get(key) ?? Number.NEGATIVE_INFINITY) > at) return false;
    this.#ended.set(key, { until: this.#now() + this.#settleMs, endpoints: endpointsOf(last, network) });
    return true;
  }

  began(container: string, network: string | undefined, at: number): void {
    const key = keyOf(container, network);
    this.#began.set(key, Math.max(at, this.#began.get(key) ?? at));
    this.#ended.delete(key);
  }

  /** True for a container that has ended, or whose place on this network has. */
  has(container: string, network: string): boolean {
    return this.#ended.has(container) || this.#ended.has(keyOf(container, network));
  }

  /** Milliseconds until a list is believed again; undefined when it is already. */
  get settlesIn(): number | undefined {
    const last = Math.max(...[...this.#ended.values()].map(({ until }) => until));
    return this.#ended.size === 0 ? undefined : Math.max(0, last - this.#now());
  }

  /** The containers of a list that have not ended, on the networks they have not left. */
  remaining(containers: readonly Container[]): readonly Container[] {
    this.#forget(containers);
    if (this.#ended.size === 0) return containers;
    const there = containers.filter((container) => !this.#isOver(container, undefined));
    return there.map((container) => {
      const networks = container.networks.filter(({ id }) => !this.#isOver(container, id));
      return networks.length === container.networks.length ? container : { ...container, networks };
    });
  }

  #isOver(container: Container, network: string | undefined): boolean {
    const key = keyOf(container.id, network);
    const departure = this.#ended.get(key);
    if (departure === undefined) return false;
    const now = endpointsOf(container, network);
    const isAnother = departure.endpoints.size > 0 && [...now].some((one) => !departure.endpoints.has(one));
    if (isAnother) this.#ended.delete(key);
    return !isAnother;
  }

  #forget(containers: readonly Container[]): void {
    const now = this.#now();
    for (const [key, { until }] of this.#ended) if (until <= now) this.#ended.delete(key);
    const listed = new Set(containers.map(({ id }) => id));
    for (const key of this.#began.keys()) if (!listed.has(key.split(' ')[0] ?? '')) this.#began.delete(key);
  }
}

function keyOf(container: string, network: string | undefined): string {
  return network === undefined ? container : `${container} ${network}`;
}

function endpointsOf(container: Container | undefined, network: string | undefined): ReadonlySet<string> {
  const places = container?.networks.filter(({ id }) => network === undefined || id === network) ?? [];
  return new Set(places.flatMap(({ endpoint }) => (endpoint === '' ? [] : [endpoint])));
}
