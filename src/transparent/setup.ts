/**
 * The set-up of a running dualport (`serve --transparent-setup`): made before the rules that need it run, kept equal to
 * those that do, and removed in the end. It has its place in the kernel for that time.
 *
 * Meanwhile it is looked at again and again: a firewall that is loaded anew begins with `flush ruleset`, network services
 * remove rules that are not theirs, and a bridge that comes up behind dualport is another way to an upstream.
 */
import { existsSync } from 'node:fs';
import type { Config } from '../config/load.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import { applyPlan, removeAll } from './apply.ts';
import { readHostFacts } from './host.ts';
import { type Lock, lockPlace } from './lock.ts';
import { needsOf, type RunningRule } from './needs.ts';
import { emptyPlan, type Plan } from './plan.ts';
import { makePlan } from './planner.ts';
import { engineRemarks } from './remarks.ts';
import { retaining } from './retain.ts';
import { type Run, run } from './system.ts';

const mendMs = 10_000;
/** With very many upstreams, looking at all the ways to them takes this part of the time at most. */
const leastPause = 20;

type Wanted = Pick<Config, 'transparent' | 'pseudo' | 'engine'>;

/** What these rules need, on this host as it is now. */
export async function planFor(
  start: Run,
  rules: readonly RunningRule[],
  { transparent, pseudo, engine }: Wanted,
): Promise<Plan> {
  const needs = needsOf(rules);
  const plan = makePlan(needs, await readHostFacts(start, needs), transparent, pseudo);
  return { ...plan, remarks: [...plan.remarks, ...engineRemarks(needs, engine)] };
}

export class TransparentSetup {
  readonly #config: Wanted;
  readonly #log: Log;
  readonly #lock: Lock;
  readonly #said = new Set<string>();
  #plan: Plan = emptyPlan;
  #rules: () => readonly RunningRule[] = () => [];
  /** A change that has not begun. */
  #next: Promise<void> | undefined;
  #last: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  /** What could not be mended, and was said. */
  #complaint: string | undefined;
  /** Nothing is removed by a process that has come to nothing before. */
  #begun = false;
  #closed = false;

  private constructor(config: Wanted, log: Log, lock: Lock) {
    this.#config = config;
    this.#log = log;
    this.#lock = lock;
  }

  /**
   * Takes the place; what an earlier process has left in it is taken over with the first rules.
   *
   * @throws DualportError SETUP_BUSY
   */
  static async open(config: Wanted, log: Log): Promise<TransparentSetup> {
    return new TransparentSetup(config, log, await lockPlace(config.transparent));
  }

  /**
   * Makes what these rules need; several calls at once are one change.
   *
   * @throws DualportError, and then all is as it was
   */
  follow(rules: () => readonly RunningRule[]): Promise<void> {
    this.#rules = rules;
    this.#next ??= this.#last.then(() => {
      this.#next = undefined;
      return this.#apply();
    });
    this.#last = this.#next.catch(() => {});
    return this.#next;
  }

  async #apply(): Promise<void> {
    if (this.#closed) return;
    const startedMs = performance.now();
    try {
      await this.#make();
    } finally {
      this.#schedule(performance.now() - startedMs);
    }
  }

  #schedule(tookMs: number): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    this.#timer = setTimeout(() => void this.#mend(), Math.max(mendMs, leastPause * tookMs));
    this.#timer.unref();
  }

  /** The same for the rules that run. */
  async #mend(): Promise<void> {
    const complaint = await this.follow(this.#rules).then(() => undefined, messageOf);
    if (complaint !== undefined && complaint !== this.#complaint)
      this.#log.error({ reason: complaint }, 'the transparent set-up could not be kept in force');
    this.#complaint = complaint;
  }

  async #make(): Promise<void> {
    this.#begun = true;
    const { transparent } = this.#config;
    const wanted = await planFor(run, this.#rules(), this.#config);
    for (const remark of wanted.remarks) this.#remark(remark);
    const plan = retaining(wanted, this.#plan, hasInterface);
    const changed = await applyPlan(run, plan, transparent);
    const before = this.#plan;
    this.#plan = plan;
    if (changed) this.#sayChange(plan, isSamePlan(plan, before));
  }

  #sayChange({ marking, rules, routes }: Plan, mended: boolean): void {
    const now = { interfaces: marking?.interfaces ?? [], rules: rules.length, routes: routes.length };
    if (mended)
      this.#log.warn(now, 'somebody has removed a part of the transparent set-up: it is made again');
    else this.#log.info(now, 'transparent set-up changed');
  }

  /** Once each: they come again with every change. */
  #remark(remark: string): void {
    if (this.#said.has(remark) || this.#said.size >= mostRemarks) return;
    this.#said.add(remark);
    this.#log.warn({ reason: remark }, 'transparent set-up');
  }

  /** Removes it all. What cannot be removed is logged: the process is on its way out. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#last;
    if (this.#begun) await this.#remove();
    this.#lock.release();
  }

  async #remove(): Promise<void> {
    try {
      await removeAll(run, this.#config.transparent);
      this.#log.info('transparent set-up removed');
    } catch (error) {
      this.#log.error({ reason: messageOf(error) }, 'the transparent set-up could not be removed');
    }
  }
}

function isSamePlan(a: Plan, b: Plan): boolean {
  const text = ({ routes, rules, marking }: Plan) => JSON.stringify([routes, rules, marking]);
  return text(a) === text(b);
}

function hasInterface(name: string): boolean {
  return existsSync(`/sys/class/net/${name}`);
}

/** A container that comes and goes must not fill the memory with what was said of it. */
const mostRemarks = 1000;
