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
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config/load.ts';
import type { Rule } from '../config/rules.ts';
import { RuleGroup } from '../engine/admission.ts';
import type { Engine, Listener, Plan } from '../engine/engine.ts';
import { makeEngine } from '../engine/select.ts';
import { DualportError, messageOf } from '../errors.ts';
import type { LateUpstreams } from '../flow/flow.ts';
import { type Log, LogBudget } from '../log.ts';
import { type Endpoint, formatEndpoint } from '../net/address.ts';
import { compileTrust } from '../policy/decide.ts';
import { bindRule } from './bind.ts';
import { ClientAddresses } from './client-addresses.ts';
import { flowLog } from './flow-log.ts';
import { type HostFacts, openFileLimit, readHostFacts } from './host.ts';
import { exceedsOpenFiles, flowLimits, maxFlows } from './limits.ts';
import { reconcile } from './reconcile.ts';
import { Resolver } from './resolver.ts';

/** RFC 8305 §5 recommends 250 ms and calls less than 100 ms too eager. */
const raceMs = 250;
/** How often a drain looks whether it is done. */
const drainPollMs = 25;

type Open = (plan: Plan) => Promise<readonly Listener[]>;

/** What others bring with a rule of their own. */
export interface Brought {
  /** Its listeners, where they are bound already. */
  readonly open?: Open;
  /** Upstreams that become known later. */
  readonly late?: LateUpstreams;
}

export interface RunningRule {
  readonly rule: Rule;
  readonly brought: Brought;
  readonly group: RuleGroup;
  readonly listeners: readonly Listener[];
  readonly upstreams: readonly Endpoint[];
}

export class Service {
  readonly engine: Engine;
  readonly maxFlows: number;
  readonly startedAt: Date = new Date();
  draining = false;
  readonly #log: Log;
  readonly #budget: LogBudget;
  readonly #resolver: Resolver;
  readonly #unreached: (rule: string) => void;
  readonly #clients: ClientAddresses;
  readonly #running = new Map<string, RunningRule>();
  /** The names of those among them that are not the configuration's. */
  readonly #added = new Set<string>();
  #config: Config;
  #last: Promise<void> = Promise.resolve();

  /** @param unreached called when a flow of an added rule has reached no upstream */
  constructor(config: Config, log: Log, unreached: (rule: string) => void = () => {}) {
    const openFiles = openFileLimit();
    this.#config = config;
    this.#log = log;
    this.#budget = new LogBudget(log);
    this.#unreached = unreached;
    this.#resolver = new Resolver(log, () => this.#replacePlans());
    this.maxFlows = maxFlows(config, openFiles);
    this.engine = makeEngine(config.engine, this.maxFlows, ({ fallback, text }) => {
      log.warn({ fallback, reason: text }, 'falling back');
    });
    this.#clients = new ClientAddresses(this.engine, config.pseudo, log, () => this.#replacePlans());
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
      if (!this.#added.has(rule.name)) return;
      await this.#clients.follow([rule]);
      await this.#resolver.follow([rule]);
      this.#replacePlan(rule);
      this.#retain(this.#config);
    });
  }

  /** Closes an added rule: its TCP flows go on, its UDP flows end. */
  remove(name: string): Promise<void> {
    return this.#inTurn(async () => {
      if (!this.#added.delete(name)) return;
      await this.#close(name);
      this.#retain(this.#config);
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
    await this.#clients.follow([rule]);
    await this.#resolver.follow([rule]);
    this.#added.add(rule.name);
    try {
      await this.#openOne(rule, open, brought);
    } catch (error) {
      this.#added.delete(rule.name);
      throw error;
    } finally {
      this.#retain(this.#config);
    }
    // One of several rules may have fewer flows than a single one.
    if (this.#running.size === 2) this.#replacePlans();
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

  async #apply(config: Config): Promise<void> {
    const host = await readHostFacts();
    await this.#clients.follow(config.rules);
    await this.#resolver.follow(config.rules);
    if (this.draining) throw stopping();
    const configured = [...this.#running.keys()].filter((name) => !this.#added.has(name));
    const { open, keep, close } = reconcile(new Set(configured), config.rules);
    const taken = open.find(({ name }) => this.#added.has(name));
    const before = this.#config;
    this.#config = config;
    try {
      if (taken !== undefined) throw publishedAlready(taken.name);
      await this.#open(open, close, host);
    } catch (error) {
      this.#config = before;
      this.#retain(before);
      throw error;
    }
    this.#retain(config);
    for (const name of close) await this.#close(name);
    for (const rule of keep) this.#replacePlan(rule);
    this.#warn(open, host);
  }

  /** No new flows; waits for those that are busy, then resets the rest. */
  async stop(drainMs: number, now: AbortSignal): Promise<void> {
    this.draining = true;
    this.#resolver.close();
    // What is being opened now must be closed with the rest.
    await this.#last;
    const deadline = performance.now() + drainMs;
    await Promise.all(this.#listeners().map((listener) => listener.stop()));
    while (this.engine.busyFlows() > 0 && performance.now() < deadline && !now.aborted)
      await sleep(drainPollMs);
    const cut = this.engine.busyFlows();
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
    group: RuleGroup = new RuleGroup(),
  ): Promise<void> {
    if (this.draining) throw stopping();
    const upstreams = this.#resolver.upstreams(rule);
    const listeners = await open(this.#plan({ rule, brought, group, upstreams }));
    this.#running.set(rule.name, { rule, brought, group, listeners, upstreams });
    const listen = listeners.map(({ local }) => formatEndpoint(local));
    const to = upstreams.map(formatEndpoint);
    this.#log.info({ rule: rule.name, listen, to, source: rule.source }, 'listening');
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

  #replacePlan(rule: Rule): void {
    const running = this.#running.get(rule.name);
    if (running === undefined) return;
    const upstreams = this.#resolver.upstreams(rule);
    const changed = { ...running, rule, upstreams };
    this.#running.set(rule.name, changed);
    const plan = this.#plan(changed);
    for (const listener of running.listeners) listener.replace(plan);
  }

  #replacePlans(): void {
    for (const { rule } of this.rules) this.#replacePlan(rule);
  }

  #plan({ rule, brought, group, upstreams }: Omit<RunningRule, 'listeners'>): Plan {
    const { accessLog } = this.#config;
    const rules = this.#config.rules.length + this.#added.size;
    return {
      rule: rule.name,
      ...this.#clients.compile(rule, upstreams, brought.late),
      trusts: compileTrust(rule),
      timeouts: { ...rule.timeouts, raceMs },
      limits: flowLimits(rule, rules, this.maxFlows),
      group,
      ended: this.#clients.hear(rule, this.#ended(rule, flowLog(this.#log, this.#budget, accessLog))),
    };
  }

  /** Whoever added a rule hears of it when nobody is there any more. */
  #ended({ name }: Rule, logged: Plan['ended']): Plan['ended'] {
    if (!this.#added.has(name)) return logged;
    return (record) => {
      logged(record);
      if (record.reason.startsWith('connect-')) this.#unreached(name);
    };
  }

  #listeners(): readonly Listener[] {
    return this.rules.flatMap(({ listeners }) => listeners);
  }

  #warn(opened: readonly Rule[], host: HostFacts): void {
    if (!host.ipv6 && opened.some((rule) => rule.port.host === undefined)) {
      this.#log.warn('this host has no IPv6: ports without an address are published on IPv4 only');
    }
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

function isInUse(error: unknown): boolean {
  return error instanceof DualportError && error.code === 'ADDRESS_IN_USE';
}
