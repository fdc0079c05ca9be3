/**
 * Keeps the rules that come from containers equal to what the engine says there is.
 *
 *   away ──► subscribe to events ──► list ──► plan ──► apply ──┐
 *     ▲                               ▲── event, 100 ms ───────┤
 *     │                               ├── connect failed, 1 s ─┤
 *     │                               └── 30 s ────────────────┘
 *     └── stream ended, call failed: try again after 0.2 s … 10 s
 *
 * Subscribed first and listed then, so that nothing falls between. An event is believed in one thing only: what
 * it says has ended loses its listeners at once, before its address can be another's, and does not get them back
 * from a list that is behind (see departures.ts). Everything else is a reason to list again. While the engine is
 * away, what was published stays published: containers run on without it.
 *
 * A list by the clock that finds something no event has told of means that events do not come any more, as
 * behind a proxy that has dropped the connection; then the subscription is made anew.
 */
import { networkInterfaces } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { formatEngineAddress } from '../config/docker-options.ts';
import type { Rule } from '../config/rules.ts';
import { DualportError, messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import { type Address, formatAddress, tryParseZoned } from '../net/address.ts';
import { Alarm } from './alarm.ts';
import type { DockerApi } from './api.ts';
import { type Complaint, Complaints, complaintOf } from './complaints.ts';
import type { Container } from './container.ts';
import { Departures } from './departures.ts';
import type { DockerEvent } from './events.ts';
import { type Facts, planRoutes, type Refusal, type Route, type Snapshot } from './routes.ts';
import { engineTrouble } from './trouble.ts';

/** Whoever publishes rules; changes happen in the order they are asked for. */
export interface Publisher {
  /** Rejects with a DualportError, and nothing has changed then. */
  add(rule: Rule): Promise<void>;
  /** The same name, and another way. */
  change(rule: Rule): Promise<void>;
  remove(name: string): Promise<void>;
}

/** In milliseconds. */
export interface Periods {
  /** From an event to the list: containers come with several events each. */
  readonly debounceMs: number;
  readonly relistMs: number;
  readonly retryMs: number;
  readonly maxRetryMs: number;
  /** Least between two lists because connects fail: a program that is down must not keep the engine busy. */
  readonly recheckMs: number;
  /** How long a list may be behind the events. */
  readonly settleMs: number;
}

export const usualPeriods: Periods = {
  debounceMs: 100,
  relistMs: 30_000,
  retryMs: 200,
  maxRetryMs: 10_000,
  recheckMs: 1000,
  settleMs: 30_000,
};

/** For metrics and status. */
export interface DockerStatus {
  readonly engine: string;
  readonly version: string | undefined;
  /** True while events come and the last list was good. */
  readonly connected: boolean;
  readonly rules: number;
  readonly containers: number;
  readonly lists: number;
  readonly events: number;
  /** How many ports, or whole containers, are not published though they ask for it. */
  readonly refused: number;
  /** The first of these. */
  readonly refusals: readonly Complaint[];
}

/** More than this are counted, not shown. */
const mostShown = 100;

export class Follower {
  readonly #api: DockerApi;
  readonly #publisher: Publisher;
  readonly #facts: () => Pick<Facts, 'config' | 'mostRules'>;
  readonly #log: Log;
  readonly #periods: Periods;
  readonly #complaints: Complaints;
  readonly #alarm = new Alarm();
  readonly #life = new AbortController();
  /** By the rule's name. */
  readonly #published = new Map<string, Route>();
  readonly #departures: Departures;
  /** By id, as they were last listed. */
  #listed: ReadonlyMap<string, Container> = new Map();
  #seen: string | undefined;
  #refusals: readonly Refusal[] = [];
  #version: string | undefined;
  #connected = false;
  #trouble: string | undefined;
  #listedAt = Number.NEGATIVE_INFINITY;
  #lookedForMs = 0;
  #lists = 0;
  #events = 0;
  #running: Promise<void> = Promise.resolve();

  /** @param facts the configuration in force, asked for at each list */
  constructor(
    api: DockerApi,
    publisher: Publisher,
    facts: () => Pick<Facts, 'config' | 'mostRules'>,
    log: Log,
    periods: Periods = usualPeriods,
  ) {
    this.#api = api;
    this.#publisher = publisher;
    this.#facts = facts;
    this.#log = log;
    this.#periods = periods;
    this.#departures = new Departures(periods.settleMs, () => performance.now());
    this.#complaints = new Complaints(log);
  }

  start(): void {
    this.#running = this.#run();
  }

  /** The configuration has changed. */
  configured(): void {
    this.#alarm.within(0, true);
  }

  /** A flow of this rule reached nobody: its addresses may be another's now. */
  unreached(rule: string): void {
    if (!this.#published.has(rule)) return;
    const sinceListed = performance.now() - this.#listedAt;
    this.#alarm.within(Math.max(this.#debounceMs(), this.#periods.recheckMs - sinceListed), true);
  }

  get status(): DockerStatus {
    const ids = new Set([...this.#published.values()].map(({ container }) => container.id));
    return {
      engine: formatEngineAddress(this.#api.address),
      version: this.#version,
      connected: this.#connected,
      rules: this.#published.size,
      containers: ids.size,
      lists: this.#lists,
      events: this.#events,
      refused: this.#refusals.length,
      refusals: this.#refusals.slice(0, mostShown).map(complaintOf),
    };
  }

  /** Follows no more; what is published stays so. */
  async close(): Promise<void> {
    this.#life.abort();
    await this.#running;
    this.#alarm.stop();
    this.#complaints.close();
  }

  async #run(): Promise<void> {
    const { retryMs, maxRetryMs } = this.#periods;
    let waitMs = retryMs;
    while (!this.#life.signal.aborted) {
      const startedAt = performance.now();
      await this.#session().catch((error: unknown) => this.#lost(error));
      // A session that lasted was sound; one that ends at once again and again is not to be one a second.
      if (performance.now() - startedAt > maxRetryMs) waitMs = retryMs;
      await sleep(waitMs, undefined, { signal: this.#life.signal }).catch(() => {});
      waitMs = Math.min(2 * waitMs, maxRetryMs);
    }
  }

  /** From one subscription to its end; always rejects. */
  async #session(): Promise<never> {
    const session = new AbortController();
    const end = () => session.abort();
    this.#life.signal.addEventListener('abort', end, { once: true });
    let over: unknown;
    try {
      this.#version = await this.#api.version(session.signal);
      const events = await this.#api.events(session.signal);
      void this.#listen(events).catch((error: unknown) => {
        over = error;
        this.#alarm.within(0, false);
      });
      this.#alarm.within(0, true);
      for (;;) {
        const requested = await this.#alarm.wait();
        if (over !== undefined) throw over;
        await this.#look(requested, session.signal);
        this.#alarm.within(this.#periods.relistMs, false);
      }
    } finally {
      this.#life.signal.removeEventListener('abort', end);
      session.abort();
    }
  }

  /** Always rejects. */
  async #listen(events: AsyncIterable<DockerEvent>): Promise<never> {
    for await (const event of events) {
      this.#events++;
      if (event.kind === 'began') this.#departures.began(event.container, event.network, event.at);
      if (event.kind === 'ended') this.#ended(event);
      this.#alarm.within(this.#debounceMs(), true);
    }
    throw engineTrouble(this.#api.address, 'has ended its stream of events');
  }

  /** In a storm of events most of the time is left to others, however long a list takes. */
  #debounceMs(): number {
    const { debounceMs, relistMs } = this.#periods;
    return Math.min(relistMs, Math.max(debounceMs, 4 * this.#lookedForMs));
  }

  /** Nobody is led there any more. */
  #ended({ container, network, at }: Extract<DockerEvent, { kind: 'began' | 'ended' }>): void {
    if (!this.#departures.ended(container, network, at, this.#listed.get(container))) return;
    for (const route of [...this.#published.values()]) if (this.#hasEnded(route)) this.#withdraw(route);
  }

  #hasEnded({ owners, network }: Route): boolean {
    return owners.some((id) => this.#departures.has(id, network));
  }

  async #look(requested: boolean, life: AbortSignal): Promise<void> {
    const startedAt = performance.now();
    const listed = await this.#api.list(life);
    this.#lists++;
    this.#listedAt = performance.now();
    const untold = this.#isNews(listed) && !requested;
    this.#isConnected();
    await this.#apply(listed, life);
    this.#lookedForMs = performance.now() - startedAt;
    if (untold)
      throw engineTrouble(this.#api.address, 'has not told of changes: its events do not come any more');
  }

  /** Other than the list before. */
  #isNews(listed: Snapshot): boolean {
    const seen = JSON.stringify(listed, (_, value) => (value instanceof Map ? [...value] : value));
    const isNews = seen !== this.#seen;
    this.#seen = seen;
    return isNews;
  }

  async #apply(listed: Snapshot, life: AbortSignal): Promise<void> {
    const holder = (name: string) => this.#published.get(name)?.container.id;
    const facts = { ...this.#facts(), own: ownAddresses(), holder };
    this.#listed = new Map(listed.containers.map((container) => [container.id, container]));
    const containers = this.#departures.remaining(listed.containers);
    const { routes, refusals, warnings } = planRoutes({ ...listed, containers }, facts);
    const settlesIn = this.#departures.settlesIn;
    if (settlesIn !== undefined) this.#alarm.within(settlesIn, true);
    const wanted = new Set(routes.map(({ rule }) => rule.name));
    for (const route of [...this.#published.values()])
      if (!wanted.has(route.rule.name)) this.#withdraw(route);
    const failures = await this.#publishAll(routes, life);
    this.#refusals = [...refusals, ...failures];
    this.#complaints.retain([...listed.containers, ...listed.unread]);
    this.#complaints.tell(this.#refusals, 'container not published');
    this.#complaints.tell(warnings, 'container published with a doubt');
  }

  async #publishAll(routes: readonly Route[], life: AbortSignal): Promise<readonly Refusal[]> {
    const failed: Refusal[] = [];
    for (const route of routes) {
      // What ends while others are being opened is not opened, or closed again.
      if (life.aborted || this.#hasEnded(route)) continue;
      const reason = await this.#publish(route);
      if (reason !== undefined) failed.push({ container: route.container, port: route.rule.name, reason });
      else if (this.#hasEnded(route)) this.#withdraw(route);
    }
    return failed;
  }

  /** @returns why it could not be published */
  async #publish(route: Route): Promise<string | undefined> {
    const { name } = route.rule;
    const before = this.#published.get(name);
    if (before !== undefined && isDeepStrictEqual(before.rule, route.rule)) {
      this.#published.set(name, route);
      return undefined;
    }
    try {
      if (before === undefined) await this.#publisher.add(route.rule);
      else await this.#publisher.change(route.rule);
    } catch (error) {
      return reasonOf(error, route.rival);
    }
    // It may have ended, and been withdrawn, while its plan was changed.
    if (before !== undefined && !this.#published.has(name)) return undefined;
    this.#published.set(name, route);
    this.#log.info(
      { container: route.container.name, rule: name, to: toTexts(route), why: route.why },
      'container published',
    );
    return undefined;
  }

  #withdraw({ rule, container }: Route): void {
    this.#published.delete(rule.name);
    void this.#publisher
      .remove(rule.name)
      .then(() =>
        this.#log.info({ container: container.name, rule: rule.name }, 'container no longer published'),
      )
      .catch((error: unknown) =>
        this.#log.error({ rule: rule.name, reason: messageOf(error) }, 'not closed'),
      );
  }

  #isConnected(): void {
    if (this.#connected) return;
    this.#connected = true;
    this.#trouble = undefined;
    const { engine, version } = this.status;
    this.#log.info({ engine, version }, 'following the containers of the Docker Engine');
  }

  /** Once for each reason, not once for each try; a subscription that is made again at once is no trouble. */
  #lost(error: unknown): void {
    if (this.#life.signal.aborted) return;
    const level = this.#connected ? 'info' : 'warn';
    this.#connected = false;
    const reason = messageOf(error);
    if (reason === this.#trouble) return;
    if (level === 'warn') this.#trouble = reason;
    const rules = this.#published.size;
    if (this.#lists === 0) this.#log.warn({ reason }, 'Docker Engine not reached: it is tried again');
    else
      this.#log[level](
        { reason, rules },
        'Docker Engine lost: what is published stays so, and it is tried again',
      );
  }
}

function toTexts({ rule }: Route): readonly string[] {
  return rule.to.map((to) => (to.kind === 'name' ? to.name : formatAddress(to.address)));
}

function reasonOf(error: unknown, rival: string | undefined): string {
  const reason = messageOf(error);
  if (!(error instanceof DualportError) || error.code !== 'ADDRESS_IN_USE' || rival === undefined)
    return reason;
  return (
    `${reason}; Docker itself publishes ${rival}: ask for another port or for [::] only, or do not publish it with ` +
    'docker run -p'
  );
}

/** Of the network namespace dualport runs in; they change while it runs. */
export function ownAddresses(): readonly Address[] {
  return Object.values(networkInterfaces()).flatMap((addresses) =>
    (addresses ?? []).flatMap(({ address }) => tryParseZoned(address)?.address ?? []),
  );
}
