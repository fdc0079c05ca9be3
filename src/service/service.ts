/**
 * Owns the engine and every listener, and keeps what runs equal to what the configuration wants.
 *
 * `apply` is all or nothing: new rules are bound first, then removed ones are closed and kept ones get their
 * new plans. Only when a new rule needs the port of a removed one is the old one closed before, and opened
 * again if the change fails. An unchanged listener is never closed, and flows that exist stay as they are.
 *
 * Beside the configuration's rules there are those that others add one by one and take away again (containers,
 * launchers). They are all or nothing each for itself, no reload touches them, and whoever has a port keeps it.
 */
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { hiddenClientsAdvice, namesToTell } from '../config/hidden-clients.ts';
import type { Config } from '../config/load.ts';
import type { Rule } from '../config/rules.ts';
import { refuseOwnAddresses } from '../config/self-connect.ts';
import type { RuleGroup } from '../engine/admission.ts';
import type { Listener } from '../engine/engine.ts';
import { DualportError, messageOf } from '../errors.ts';
import type { Counters } from '../flow/counters.ts';
import type { FlowRecord, LateUpstreams, Protocol } from '../flow/flow.ts';
import { type Log, LogBudget } from '../log.ts';
import { type Endpoint, formatEndpoint } from '../net/address.ts';
import { bindRule, isInUse, namingHolder } from './bind.ts';
import { ClientAddresses, showsClients } from './client-addresses.ts';
import { acceptLog, flowLog, lineCounts } from './flow-log.ts';
import { type HostFacts, openFileLimit, readHostFacts, readHostNetworks } from './host.ts';
import { exceedsOpenFiles, flowLimits, maxFlows, mostWaiting } from './limits.ts';
import { makePlan, type RulePlan, reachedNobody } from './plan.ts';
import { reconcile } from './reconcile.ts';
import { Resolver } from './resolver.ts';
import { Threads } from './threads.ts';

/** How long what a rule needed is kept behind it. */
const forgetMs = 200;
/** How often a drain looks whether it is done. */
const drainPollMs = 25;

type Open = (plan: RulePlan) => Promise<readonly Listener<RulePlan>[]>;

/** What others bring with a rule of their own. */
export interface Brought {
  /** Its listeners, where they are bound already. */
  readonly open?: Open;
  /** Upstreams that become known later. */
  readonly late?: LateUpstreams;
}

/** A rule, and where its targets are now. */
export interface AddressedRule {
  readonly rule: Rule;
  readonly upstreams: readonly Endpoint[];
}

/** Makes what rules that show clients need around them; rejects when they cannot run for want of it. */
export type Surround = (rules: () => readonly AddressedRule[]) => Promise<void>;

export interface RunningRule extends AddressedRule {
  readonly brought: Brought;
  readonly group: RuleGroup;
  /** A block for each thread. */
  readonly counters: readonly Counters[];
  readonly listeners: readonly Listener<RulePlan>[];
}

type Planned = Pick<RunningRule, 'rule' | 'brought' | 'group' | 'upstreams'>;

export class Service {
  readonly engine: Threads;
  readonly maxFlows: number;
  readonly startedAt: Date = new Date();
  draining = false;
  readonly #log: Log;
  readonly #budget: LogBudget;
  readonly #resolver: Resolver;
  readonly #unreached: (rule: string) => void;
  readonly #surround: Surround | undefined;
  readonly #clients: ClientAddresses;
  readonly #running = new Map<string, RunningRule>();
  /** The names of those among them that are not the configuration's. */
  readonly #added = new Map<string, Protocol>();
  #counted: { readonly config: Config; readonly udp: number } | undefined;
  /** How often plans had to be made again, for other reasons than the rules. */
  #changes = 0;
  /** Rules that what is around is made for before they run. */
  #upcoming: readonly Rule[] = [];
  #config: Config;
  /** Rules of which it was said that they hide their clients. */
  #toldHiding: ReadonlySet<string> = new Set();
  #last: Promise<void> = Promise.resolve();
  #forgetting: NodeJS.Timeout | undefined;

  /**
   * @param unreached called when a flow of an added rule has reached no upstream
   * @param surround called before rules run, and when rules or upstreams are others
   */
  constructor(
    config: Config,
    log: Log,
    unreached: (rule: string) => void = () => {},
    surround: Surround | undefined = undefined,
  ) {
    const openFiles = openFileLimit();
    this.#config = config;
    this.#log = log;
    const counts = lineCounts();
    this.#budget = new LogBudget(log, undefined, counts);
    this.#unreached = unreached;
    this.#surround = surround;
    const changed = () => {
      this.#changes++;
      void this.#replacePlans();
    };
    this.#resolver = new Resolver(log, () => {
      changed();
      this.#follow();
    });
    this.maxFlows = maxFlows(config, openFiles);
    const settings = { ...config, maxFlows: this.maxFlows, mostWaiting: mostWaiting(config, openFiles) };
    this.engine = new Threads(settings, log, counts, (record) => this.#hear(record));
    this.#clients = new ClientAddresses(this.engine, config.pseudo, log, changed);
    const processors = availableParallelism();
    if (config.threads > processors)
      log.warn({ threads: config.threads, processors }, 'more threads than processors only take turns');
    if (exceedsOpenFiles(config, openFiles)) {
      log.warn(
        { maxFlows: this.maxFlows, openFiles },
        'more flows are allowed than the open file limit has room for',
      );
    }
  }

  /** The clients that have pseudo addresses; undefined while no rule uses any. */
  get pseudonyms(): { readonly size: number; readonly capacity: number } | undefined {
    return this.#clients.pseudonyms;
  }

  get rules(): readonly RunningRule[] {
    return [...this.#running.values()];
  }

  /** Makes the configuration the one that runs, or throws and leaves everything as it was. */
  apply(config: Config): Promise<void> {
    return this.#inTurn(() => this.#apply(config));
  }

  /**
   * Opens a rule beside those of the configuration, or throws and leaves everything as it was.
   *
   * @throws DualportError when its name is taken, or it cannot be bound
   */
  add(rule: Rule, brought: Brought = {}): Promise<void> {
    return this.#inTurn(() => this.#add(rule, brought));
  }

  /** New flows of an added rule follow this one, which has the same name; nothing happens to a rule that is gone. */
  change(rule: Rule): Promise<void> {
    return this.#inTurn(async () => {
      const before = this.#running.get(rule.name)?.rule;
      if (before === undefined || !this.#added.has(rule.name)) return;
      await this.#ready([rule]);
      await this.#replacePlan(rule);
      this.#retainSoon();
      if (showsClients(before)) this.#follow();
    });
  }

  /** Closes an added rule: its TCP flows go on, its UDP flows end. */
  remove(name: string): Promise<void> {
    return this.#inTurn(async () => {
      if (!this.#added.delete(name)) return;
      const closed = await this.#close(name);
      this.#retainSoon();
      if (closed.some(({ rule }) => showsClients(rule))) this.#follow();
    });
  }

  /** One change at a time: each finds what the one before has left. */
  #inTurn(change: () => Promise<void>): Promise<void> {
    const done = this.#last.then(change);
    this.#last = done.catch(() => {});
    return done;
  }

  async #add(rule: Rule, brought: Brought): Promise<void> {
    if (this.#running.has(rule.name)) throw publishedAlready(rule.name);
    const open = brought.open ?? this.#binding(rule, await readHostFacts());
    await this.#ready([rule]);
    this.#added.set(rule.name, rule.port.protocol);
    try {
      await this.#openOne(rule, open, brought);
    } catch (error) {
      this.#added.delete(rule.name);
      this.#retainSoon();
      if (showsClients(rule)) this.#follow();
      throw error;
    }
    // One of several rules may have fewer flows than a single one.
    if (this.#running.size === 2 || this.#sharers(rule) === 2) await this.#replacePlans();
  }

  /** What rules need that are about to run. */
  async #ready(rules: readonly Rule[]): Promise<void> {
    await this.#clients.follow(rules);
    await this.#resolver.follow(rules);
    if (this.#surround === undefined || !rules.some(showsClients)) return;
    this.#upcoming = rules;
    try {
      await this.#surround(() => this.#addressed());
    } catch (error) {
      this.#retainSoon();
      throw error;
    } finally {
      this.#upcoming = [];
    }
    await this.#clients.refresh();
  }

  /** The rules or their upstreams are others: what is around follows, and nobody waits for it. */
  #follow(): void {
    this.#surround?.(() => this.#addressed()).catch((error: unknown) => {
      const code = error instanceof DualportError ? error.code : undefined;
      this.#log.error({ code, reason: messageOf(error) }, 'what is around the rules is not as they need it');
    });
  }

  #addressed(): readonly AddressedRule[] {
    const rules = [...this.rules.map(({ rule }) => rule), ...this.#upcoming];
    return rules.map((rule) => ({ rule, upstreams: this.#resolver.upstreams(rule) }));
  }

  /** Every rule there is to be, with this configuration. */
  #wanted(config: Config): readonly Rule[] {
    const added = this.rules.filter(({ rule }) => this.#added.has(rule.name));
    return [...config.rules, ...added.map(({ rule }) => rule)];
  }

  #retain(config: Config): void {
    const wanted = this.#wanted(config);
    this.#resolver.retain(wanted);
    this.#clients.retain(wanted);
  }

  /** Every rule is looked at for it: where thousands come and go one by one that is done once for many of them. */
  #retainSoon(): void {
    this.#forgetting ??= setTimeout(() => {
      this.#forgetting = undefined;
      void this.#inTurn(async () => this.#retain(this.#config));
    }, forgetMs).unref();
  }

  async #apply(config: Config): Promise<void> {
    const host = await readHostFacts();
    await this.#ready(config.rules);
    if (this.draining) throw stopping();
    const configured = [...this.#running.keys()].filter((name) => !this.#added.has(name));
    const { open, keep, close } = reconcile(new Set(configured), config.rules);
    const taken = open.find(({ name }) => this.#added.has(name));
    const before = this.#config;
    this.#config = config;
    try {
      if (taken !== undefined) throw publishedAlready(taken.name);
      refuseOwnAddresses(config.rules, readHostNetworks().own);
      await this.#open(open, close, host);
    } catch (error) {
      this.#config = before;
      this.#retain(before);
      this.#follow();
      throw error;
    }
    this.#retain(config);
    for (const name of close) await this.#close(name);
    await Promise.all(keep.map((rule) => this.#replacePlan(rule)));
    this.#follow();
    this.#warn(open, host);
    this.#tellHiding(config.hidesClients);
  }

  /** No new flows; waits for those that are busy, then resets the rest. */
  async stop(drainMs: number, now: AbortSignal): Promise<void> {
    this.draining = true;
    clearTimeout(this.#forgetting);
    this.#resolver.close();
    // What is being opened now must be closed with the rest.
    await this.#last;
    const deadline = performance.now() + drainMs;
    await Promise.all(this.#listeners().map((listener) => listener.stop()));
    while ((await this.engine.busyFlows()) > 0 && performance.now() < deadline && !now.aborted)
      await sleep(drainPollMs);
    const cut = await this.engine.busyFlows();
    if (cut > 0) this.#log.warn({ flows: cut }, 'flows were cut at the end of the drain');
    await this.engine.close();
    await this.#clients.close();
    this.#budget.close();
  }

  async #open(open: readonly Rule[], close: readonly string[], host: HostFacts): Promise<void> {
    const opened: string[] = [];
    const closed: RunningRule[] = [];
    const bind = (rule: Rule) => this.#binding(rule, host);
    try {
      for (const rule of open) {
        await this.#openOne(rule, bind(rule)).catch(async (error: unknown) => {
          // The port may be that of a rule on its way out.
          if (!isInUse(error) || closed.length > 0 || close.length === 0) throw error;
          for (const name of close) closed.push(...(await this.#close(name)));
          await this.#openOne(rule, bind(rule));
        });
        opened.push(rule.name);
      }
    } catch (error) {
      for (const name of opened) await this.#close(name);
      for (const running of closed) await this.#reopen(running, bind(running.rule));
      throw error;
    }
  }

  async #openOne(
    rule: Rule,
    open: Open,
    brought: Brought = {},
    group: RuleGroup = this.engine.makeGroup(),
  ): Promise<void> {
    if (this.draining) throw stopping();
    const changes = this.#changes;
    const upstreams = this.#resolver.upstreams(rule);
    const counters = this.engine.countersOf(group);
    const plan = this.#plan({ rule, brought, group, upstreams });
    const listeners = await open(plan).catch((error: unknown) => {
      throw namingHolder(error, rule, this.rules);
    });
    this.#running.set(rule.name, { rule, brought, group, counters, listeners, upstreams });
    // Nobody knew meanwhile that this rule is to be told.
    if (this.#changes !== changes) await this.#replacePlan(rule);
    const listen = listeners.map(({ local }) => formatEndpoint(local));
    const to = upstreams.map(formatEndpoint);
    const threads = plan.data === undefined ? 1 : this.engine.count;
    this.#log.info({ rule: rule.name, listen, to, source: rule.source, threads }, 'listening');
  }

  #binding(rule: Rule, host: HostFacts): Open {
    return (plan) => bindRule(this.engine, rule, plan, host);
  }

  /** With the group it had: its flows go on, and count. */
  async #reopen({ rule, group }: RunningRule, open: Open): Promise<void> {
    await this.#openOne(rule, open, {}, group).catch((error: unknown) => {
      this.#log.error({ rule: rule.name, reason: messageOf(error) }, 'a rule could not be opened again');
    });
  }

  async #close(name: string): Promise<readonly RunningRule[]> {
    const running = this.#running.get(name);
    if (running === undefined) return [];
    this.#running.delete(name);
    await Promise.all(running.listeners.map((listener) => listener.close()));
    this.#log.info({ rule: name }, 'no longer listening');
    return [running];
  }

  /** Done when every thread has the new one. */
  async #replacePlan(rule: Rule): Promise<void> {
    const running = this.#running.get(rule.name);
    if (running === undefined) return;
    const upstreams = this.#resolver.upstreams(rule);
    const changed = { ...running, rule, upstreams };
    this.#running.set(rule.name, changed);
    const plan = this.#plan(changed);
    await Promise.all(running.listeners.map((listener) => listener.replace(plan)));
  }

  async #replacePlans(): Promise<void> {
    await Promise.all(this.rules.map(({ rule }) => this.#replacePlan(rule)));
  }

  #plan({ rule, brought, group, upstreams }: Planned): RulePlan {
    const { accessLog } = this.#config;
    const limits = flowLimits(rule, this.#sharers(rule), this.maxFlows);
    const logged = flowLog(this.#log, this.#budget, accessLog);
    const ended = (record: FlowRecord) => {
      this.#hear(record);
      logged(record);
    };
    const showing = this.#clients.compile(rule, upstreams, brought.late);
    const around = brought.late === undefined ? this.#clients.aroundFor(rule) : undefined;
    const data = around === undefined ? undefined : { rule, upstreams, around, limits, accessLog };
    const heard = { ended, acceptFailed: acceptLog(this.#log, this.#budget, rule.name) };
    return { ...makePlan(rule, showing, limits, group, heard), data };
  }

  /** How many rules there are for the flows that this one may have: UDP rules have half of all to themselves. */
  #sharers({ port: { protocol } }: Rule): number {
    if (protocol === 'tcp') return this.#config.rules.length + this.#added.size;
    return this.#udpRules() + [...this.#added.values()].filter((added) => added === 'udp').length;
  }

  /** Of the configuration; counted once for it, since each of thousands asks. */
  #udpRules(): number {
    if (this.#counted?.config !== this.#config) {
      const udp = this.#config.rules.filter(({ port }) => port.protocol === 'udp').length;
      this.#counted = { config: this.#config, udp };
    }
    return this.#counted.udp;
  }

  /** What there is to an ended flow beside its line in the log, on whatever thread it was. */
  #hear(record: FlowRecord): void {
    this.#clients.hear(record);
    // Whoever added a rule hears of it when nobody is there any more.
    if (reachedNobody(record) && this.#added.has(record.rule)) this.#unreached(record.rule);
  }

  #listeners(): readonly Listener<RulePlan>[] {
    return this.rules.flatMap(({ listeners }) => listeners);
  }

  #warn(opened: readonly Rule[], host: HostFacts): void {
    if (!host.ipv6 && opened.some((rule) => rule.port.host === undefined)) {
      this.#log.warn('this host has no IPv6: ports without an address are published on IPv4 only');
    }
  }

  /** In one line, however many there are, and of each once. */
  #tellHiding(hiding: readonly string[]): void {
    const fresh = hiding.filter((name) => !this.#toldHiding.has(name));
    this.#toldHiding = new Set(hiding);
    if (fresh.length === 0) return;
    const { named, more } = namesToTell(fresh);
    const rules = more > 0 ? { rules: named, more } : { rules: named };
    this.#log.warn({ ...rules, advice: hiddenClientsAdvice }, 'programs see every client under one address');
  }
}

function publishedAlready(name: string): DualportError {
  return new DualportError(
    'PORT_CONFLICT',
    `${name} is published already; whoever was first keeps it: publish another port, or stop publishing this one there`,
  );
}

function stopping(): Error {
  return new Error('dualport is stopping');
}
