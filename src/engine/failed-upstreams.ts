/**
 * Remembers for a while which upstreams did not answer, so that only the first client after a failure waits
 * for it. A failed upstream is tried last, never left out: when nothing else answers, it may be back.
 */
import { type Endpoint, endpointKey } from '../net/address.ts';

/** How long a failure counts. */
export const failedForMs = 10_000;

/** More upstreams than this do not fail at once in any sensible set of rules; beyond it, memory is not kept. */
const maxRemembered = 4096;

export class FailedUpstreams {
  readonly #until = new Map<string, number>();
  readonly #now: () => number;

  /** @param now a monotonic clock in milliseconds */
  constructor(now: () => number) {
    this.#now = now;
  }

  failed(upstream: Endpoint): void {
    const key = endpointKey(upstream);
    if (this.#until.size >= maxRemembered && !this.#until.has(key)) this.#forgetOld();
    if (this.#until.size < maxRemembered || this.#until.has(key)) {
      this.#until.set(key, this.#now() + failedForMs);
    }
  }

  answered(upstream: Endpoint): void {
    if (this.#until.size > 0) this.#until.delete(endpointKey(upstream));
  }

  /** The same upstreams, those that failed of late last; the order is otherwise kept. */
  order(upstreams: readonly Endpoint[]): readonly Endpoint[] {
    if (this.#until.size === 0 || upstreams.length < 2) return upstreams;
    const late = upstreams.filter((upstream) => this.#hasFailed(upstream));
    return late.length === 0 ? upstreams : [...upstreams.filter((u) => !late.includes(u)), ...late];
  }

  /** Forgets what is over, so that `order` costs nothing again once all is well. */
  #hasFailed(upstream: Endpoint): boolean {
    const key = endpointKey(upstream);
    const until = this.#until.get(key);
    if (until === undefined) return false;
    if (until > this.#now()) return true;
    this.#until.delete(key);
    return false;
  }

  #forgetOld(): void {
    const now = this.#now();
    for (const [key, until] of this.#until) if (until <= now) this.#until.delete(key);
  }
}
