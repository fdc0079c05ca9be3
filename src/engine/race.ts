/**
 * Connecting one TCP flow to the first of its upstreams that answers (RFC 8305 §5, on addresses that policy
 * has already put in order). The race knows no sockets: an engine lends it `dial`.
 *
 *   dialling ── refused ──► the next candidate at once
 *      │ ── silent for raceMs ──► the next candidate beside it, at most two in the air
 *      │ ── answered ──► won: the others are abandoned
 *      │ ── none left ──► late ones, if there may be any
 *      └── all refused, or connectMs over ──► lost, with the reason
 *
 * `finished` is called exactly once, unless `cancel` came first; no attempt outlives the race. An upstream that
 * refused, or was still silent when another won, is remembered in FailedUpstreams.
 */
import type { CounterName } from '../flow/counters.ts';
import type { CloseReason, LateUpstreams, Source } from '../flow/flow.ts';
import { type Endpoint, equalEndpoint } from '../net/address.ts';
import type { Timeouts } from './engine.ts';
import type { FailedUpstreams } from './failed-upstreams.ts';

export type ConnectFailure = Extract<
  CloseReason,
  'connect-refused' | 'connect-timeout' | 'connect-unreachable' | 'connect-failed' | 'source-unavailable'
>;

/** What each failure is counted as. */
export const failureCounter = {
  'connect-refused': 'connectRefused',
  'connect-timeout': 'connectTimeout',
  'connect-unreachable': 'connectUnreachable',
  'connect-failed': 'connectFailed',
  'source-unavailable': 'sourceUnavailable',
} as const satisfies Record<ConnectFailure, CounterName>;

/**
 * The reason behind a failed connect's errno; what is this host's own trouble is `connect-failed`.
 *
 * @param source the address that was to be connected from
 */
export function connectFailure(errno: string | undefined, source?: Source): ConnectFailure {
  if (source !== undefined && sourceErrors.has(errno)) return 'source-unavailable';
  if (errno === 'ECONNREFUSED' || errno === 'ECONNRESET') return 'connect-refused';
  if (errno === 'ETIMEDOUT') return 'connect-timeout';
  if (errno === 'EHOSTUNREACH' || errno === 'ENETUNREACH' || errno === 'EHOSTDOWN')
    return 'connect-unreachable';
  return 'connect-failed';
}

/** What bind says of an address or port it does not give, and connect of one whose ports are all in use. */
const sourceErrors = new Set<string | undefined>(['EADDRNOTAVAIL', 'EADDRINUSE', 'EACCES', 'EINVAL']);
const portErrors = new Set<string | undefined>(['EADDRNOTAVAIL', 'EADDRINUSE', 'EACCES']);

/** The upstream is not to blame, and not to be tried last for it. */
export function isOwnTrouble(failure: ConnectFailure): boolean {
  return failure === 'connect-failed' || failure === 'source-unavailable';
}

/**
 * The same source on a port of the kernel's choice, when it may have been the port that could not be had: it is
 * taken, or below the first that needs no privilege.
 */
export function onAnyPort(source: Source | undefined, errno: string | undefined): Source | undefined {
  if (source === undefined || source.port === 0 || !portErrors.has(errno)) return undefined;
  return { ...source, port: 0 };
}

/** One connect under way; abandoning it after its outcome is harmless. */
export interface Attempt {
  abandon(): void;
}

/** Starts to connect; `outcome` is called once, later, with undefined for success. */
export type Dial<A extends Attempt> = (
  upstream: Endpoint,
  outcome: (failure?: ConnectFailure) => void,
  source?: Source,
) => A;

export type RaceResult<A extends Attempt> =
  | { readonly attempt: A; readonly upstream: Endpoint }
  | { readonly failure: ConnectFailure };

interface Runner<A> {
  readonly attempt: A;
  readonly upstream: Endpoint;
}

/** Each flow may hold this many upstream descriptors while it connects; limits are reckoned with it. */
export const attemptsAtOnce = 2;

export class Race<A extends Attempt> {
  readonly #known: readonly Endpoint[];
  readonly #waiting: Endpoint[];
  readonly #running = new Set<Runner<A>>();
  readonly #failed: FailedUpstreams;
  readonly #dial: Dial<A>;
  readonly #finished: (result: RaceResult<A>) => void;
  readonly #raceMs: number;
  readonly #deadline: NodeJS.Timeout;
  #silence: NodeJS.Timeout | undefined;
  /** Until they were asked for. */
  #late: LateUpstreams | undefined;
  #asking = false;
  #over = false;
  #lastFailure: ConnectFailure = 'connect-failed';

  constructor(
    upstreams: readonly Endpoint[],
    timeouts: Timeouts,
    failed: FailedUpstreams,
    dial: Dial<A>,
    finished: (result: RaceResult<A>) => void,
    late?: LateUpstreams,
  ) {
    this.#known = upstreams;
    this.#late = late;
    this.#waiting = [...failed.order(upstreams)];
    this.#failed = failed;
    this.#dial = dial;
    this.#finished = finished;
    this.#raceMs = timeouts.raceMs;
    this.#deadline = setTimeout(() => this.#lose('connect-timeout'), timeouts.connectMs);
    this.#startNext();
  }

  cancel(): void {
    this.#stop();
  }

  #startNext(): void {
    clearTimeout(this.#silence);
    const upstream = this.#waiting.shift();
    if (upstream === undefined) return this.#noneLeft();
    const attempt = this.#dial(upstream, (failure) => {
      if (this.#over) return;
      if (failure === undefined) this.#win(runner);
      else this.#drop(runner, failure);
    });
    const runner: Runner<A> = { attempt, upstream };
    this.#running.add(runner);
    const more = this.#waiting.length > 0 || this.#late !== undefined;
    if (more && this.#running.size < attemptsAtOnce) {
      this.#silence = setTimeout(() => this.#startNext(), this.#raceMs);
    }
  }

  #noneLeft(): void {
    const late = this.#late;
    this.#late = undefined;
    if (late !== undefined) {
      this.#asking = true;
      void late().then((upstreams) => this.#heard(upstreams));
    } else if (this.#running.size === 0 && !this.#asking) {
      this.#lose(this.#lastFailure);
    }
  }

  #heard(upstreams: readonly Endpoint[]): void {
    if (this.#over) return;
    this.#asking = false;
    const isKnown = (upstream: Endpoint) => this.#known.some((known) => equalEndpoint(known, upstream));
    this.#waiting.push(...upstreams.filter((upstream) => !isKnown(upstream)));
    this.#startNext();
  }

  #drop(runner: Runner<A>, failure: ConnectFailure): void {
    this.#running.delete(runner);
    this.#lastFailure = failure;
    if (!isOwnTrouble(failure)) this.#failed.failed(runner.upstream);
    this.#startNext();
  }

  #win(winner: Runner<A>): void {
    this.#running.delete(winner);
    this.#failed.answered(winner.upstream);
    for (const silent of this.#running) this.#failed.failed(silent.upstream);
    this.#stop();
    this.#finished(winner);
  }

  #lose(failure: ConnectFailure): void {
    for (const silent of this.#running) this.#failed.failed(silent.upstream);
    this.#stop();
    this.#finished({ failure });
  }

  #stop(): void {
    this.#over = true;
    clearTimeout(this.#deadline);
    clearTimeout(this.#silence);
    for (const runner of this.#running) runner.attempt.abandon();
    this.#running.clear();
  }
}
