/**
 * Owns the engine and every listener, and keeps what runs equal to what the configuration wants.
 *
 * `apply` is all or nothing: new rules are bound first, then removed ones are closed and kept ones get their
 * new plans. Only when a new rule needs the port of a removed one is the old one closed before, and opened
 * again if the change fails. An unchanged listener is never closed, and flows that exist stay as they are.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config/load.ts';
import type { Rule } from '../config/rules.ts';
import { RuleGroup } from '../engine/admission.ts';
import type { Engine, Listener, Plan } from '../engine/engine.ts';
import { makeEngine } from '../engine/select.ts';
import { DualportError, messageOf } from '../errors.ts';
import { type Log, LogBudget } from '../log.ts';
import { type Endpoint, formatEndpoint } from '../net/address.ts';
import { compileDecide, compileTrust } from '../policy/decide.ts';
import { bindRule } from './bind.ts';
import { flowLog } from './flow-log.ts';
import { type HostFacts, openFileLimit, readHostFacts } from './host.ts';
import { exceedsOpenFiles, flowLimits, maxFlows } from './limits.ts';
import { reconcile } from './reconcile.ts';
import { Resolver } from './resolver.ts';

/** RFC 8305 §5 recommends 250 ms and calls less than 100 ms too eager. */
const raceMs = 250;
/** How often a drain looks whether it is done. */
const drainPollMs = 25;

export interface RunningRule {
  readonly rule: Rule;
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
  readonly #running = new Map<string, RunningRule>();
  #config: Config;
  #applying: Promise<void> = Promise.resolve();

  constructor(config: Config, log: Log) {
    const openFiles = openFileLimit();
    this.#config = config;
    this.#log = log;
    this.#budget = new LogBudget(log);
    this.#resolver = new Resolver(log, () => this.#replacePlans());
    this.maxFlows = maxFlows(config, openFiles);
    this.engine = makeEngine(config.engine, this.maxFlows, ({ fallback, text }) => {
      log.warn({ fallback, reason: text }, 'falling back');
    });
    if (exceedsOpenFiles(config, openFiles)) {
      log.warn(
        { maxFlows: this.maxFlows, openFiles },
        'more flows are allowed than the open file limit has room for',
      );
    }
  }

  get rules(): readonly RunningRule[] {
    return [...this.#running.values()];
  }

  /** Makes the configuration the one that runs, or throws and leaves everything as it was. One at a time. */
  apply(config: Config): Promise<void> {
    this.#applying = this.#apply(config);
    return this.#applying;
  }

  async #apply(config: Config): Promise<void> {
    const host = await readHostFacts();
    await this.#resolver.follow(config.rules);
    if (this.draining) throw stopping();
    const { open, keep, close } = reconcile(new Set(this.#running.keys()), config.rules);
    const before = this.#config;
    this.#config = config;
    try {
      await this.#open(open, close, host);
    } catch (error) {
      this.#config = before;
      this.#resolver.retain(before.rules);
      throw error;
    }
    this.#resolver.retain(config.rules);
    for (const name of close) await this.#close(name);
    for (const rule of keep) this.#replacePlan(rule);
    this.#warn(open, host);
  }

  /** No new flows; waits for those that are busy, then resets the rest. */
  async stop(drainMs: number, now: AbortSignal): Promise<void> {
    this.draining = true;
    this.#resolver.close();
    // What is being opened now must be closed with the rest.
    await this.#applying.catch(() => {});
    const deadline = performance.now() + drainMs;
    await Promise.all(this.#listeners().map((listener) => listener.stop()));
    while (this.engine.busyFlows() > 0 && performance.now() < deadline && !now.aborted)
      await sleep(drainPollMs);
    const cut = this.engine.busyFlows();
    if (cut > 0) this.#log.warn({ flows: cut }, 'flows were cut at the end of the drain');
    await this.engine.close();
    this.#budget.close();
  }

  async #open(open: readonly Rule[], close: readonly string[], host: HostFacts): Promise<void> {
    const opened: string[] = [];
    const closed: RunningRule[] = [];
    try {
      for (const rule of open) {
        await this.#openOne(rule, host).catch(async (error: unknown) => {
          // The port may be that of a rule on its way out.
          if (!isInUse(error) || closed.length > 0 || close.length === 0) throw error;
          for (const name of close) closed.push(...(await this.#close(name)));
          await this.#openOne(rule, host);
        });
        opened.push(rule.name);
      }
    } catch (error) {
      for (const name of opened) await this.#close(name);
      for (const running of closed) await this.#reopen(running, host);
      throw error;
    }
  }

  async #openOne(rule: Rule, host: HostFacts, group: RuleGroup = new RuleGroup()): Promise<void> {
    if (this.draining) throw stopping();
    const upstreams = this.#resolver.upstreams(rule);
    const listeners = await bindRule(this.engine, rule, this.#plan(rule, group, upstreams), host);
    this.#running.set(rule.name, { rule, group, listeners, upstreams });
    const listen = listeners.map(({ local }) => formatEndpoint(local));
    const to = upstreams.map(formatEndpoint);
    this.#log.info({ rule: rule.name, listen, to, source: rule.source }, 'listening');
  }

  /** With the group it had: its flows go on, and count. */
  async #reopen({ rule, group }: RunningRule, host: HostFacts): Promise<void> {
    await this.#openOne(rule, host, group).catch((error: unknown) => {
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
    this.#running.set(rule.name, { ...running, rule, upstreams });
    const plan = this.#plan(rule, running.group, upstreams);
    for (const listener of running.listeners) listener.replace(plan);
  }

  #replacePlans(): void {
    for (const { rule } of this.rules) this.#replacePlan(rule);
  }

  #plan(rule: Rule, group: RuleGroup, upstreams: readonly Endpoint[]): Plan {
    const { rules, accessLog } = this.#config;
    return {
      rule: rule.name,
      decide: compileDecide(rule, upstreams),
      trusts: compileTrust(rule),
      timeouts: { ...rule.timeouts, raceMs },
      limits: flowLimits(rule, rules.length, this.maxFlows),
      group,
      ended: flowLog(this.#log, this.#budget, accessLog),
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

function stopping(): Error {
  return new Error('dualport is stopping');
}

function isInUse(error: unknown): boolean {
  return error instanceof DualportError && error.code === 'ADDRESS_IN_USE';
}
