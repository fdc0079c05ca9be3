/**
 * The engine of the service, on as many threads as are asked for: one here, and one on each thread beside this
 * one. With one thread it is that engine and nothing else.
 *
 *   listen ─► bindGroup: a socket each ─┬─► adopted by the engine here
 *                                       └─► order 'open' ─► adopted by the engine of thread 2, 3 …
 *
 * The kernel gives each connection and each UDP peer to one of the sockets, by the hash of both ends, so a group of
 * sockets is bound at once and closed at once. A flow lives on its thread, where the plan was compiled again from
 * the same data. Counters are a block per thread, and limits hold over all threads, but for the flows of the whole
 * process: of those every thread has its share, for a full thread leaves its clients in its own backlog.
 *
 * A thread that dies takes the process with it. A port that answers some of its clients is worse than one that is
 * gone until it is started again.
 */
import { closeSync } from 'node:fs';
import { RuleGroup } from '../engine/admission.ts';
import type { Engine, Listener, Shortcoming } from '../engine/engine.ts';
import { type AnyEngine, type EngineName, makeEngine, refuseEngine } from '../engine/select.ts';
import { makeSourceTable, SharedFlows, type SourceTable, sharedNumbers } from '../engine/shared-flows.ts';
import { DualportError, messageOf } from '../errors.ts';
import { type Counters, makeCounters } from '../flow/counters.ts';
import type { FlowRecord, Protocol } from '../flow/flow.ts';
import type { Log, SharedCounts } from '../log.ts';
import type { Endpoint } from '../net/address.ts';
import type { RulePlan } from './plan.ts';
import { Thread } from './thread-handle.ts';
import type { GroupData } from './thread-words.ts';

export interface ThreadSettings {
  readonly engine: EngineName;
  readonly threads: number;
  /** Most flows at once, on all threads. */
  readonly maxFlows: number;
  /** How many clients beyond them may hold a descriptor, where they cannot wait in the backlog. */
  readonly mostWaiting: number;
}

/** What a rule's group is made of, for all threads. */
interface SharedGroup {
  readonly number: number;
  readonly flows: Int32Array;
  /** By thread, this one first. */
  readonly blocks: readonly Counters[];
}

export class Threads implements Engine<RulePlan> {
  readonly name: Engine['name'];
  /** Here; the other threads never hear of such a socket. */
  readonly adopt: Engine<RulePlan>['adopt'];
  /** With this one. */
  readonly count: number;
  readonly #own: AnyEngine;
  readonly #others: readonly Thread[];
  readonly #started: Promise<unknown>;
  readonly #sources: SourceTable;
  readonly #shared = new WeakMap<RuleGroup, SharedGroup>();
  readonly #log: Log;
  readonly #fallbacks = new Set<Shortcoming['fallback']>();
  #groups = 0;
  #listeners = 0;

  /**
   * @param lineCounts of the budget for failures in the log
   * @param ended hears of some of the flows that have ended on other threads
   * @throws DualportError when there is no such engine here, or not on so many threads
   */
  constructor(
    { engine, threads, maxFlows, mostWaiting }: ThreadSettings,
    log: Log,
    lineCounts: SharedCounts,
    ended: (record: FlowRecord) => void,
  ) {
    refuseEngine(engine, threads);
    const [own = maxFlows, ...others] = shares(maxFlows, threads);
    const notice = (shortcoming: Shortcoming) => this.#tell(shortcoming);
    this.#log = log;
    this.#own = makeEngine(engine, own, notice, mostWaiting);
    this.name = this.#own.name;
    this.adopt = this.#own.adopt;
    this.count = threads;
    this.#sources = makeSourceTable(threads > 1 ? maxFlows : 0);
    const data = { lineCounts: lineCounts.memory, sources: this.#sources };
    // They load while names are looked up; whoever listens waits for them.
    this.#others = others.map((maxFlows, i) => new Thread(i + 2, { ...data, maxFlows }, log, notice, ended));
    this.#started = Promise.all(this.#others.map((thread) => thread.started));
    this.#started.catch(() => {});
  }

  /** For the listeners of one rule. */
  makeGroup(): RuleGroup {
    if (this.count === 1) return new RuleGroup();
    const number = ++this.#groups;
    const flows = sharedNumbers(1);
    const blocks = Array.from({ length: this.count }, makeCounters);
    const group = new RuleGroup(blocks[0], new SharedFlows(number, flows, this.#sources));
    this.#shared.set(group, { number, flows, blocks });
    return group;
  }

  /** What was counted for a rule: a block for each thread. */
  countersOf(group: RuleGroup): readonly Counters[] {
    return this.#shared.get(group)?.blocks ?? [group.counters];
  }

  async listen(protocol: Protocol, at: Endpoint, plan: RulePlan): Promise<Listener<RulePlan>> {
    const own = this.#own;
    const group = this.#shared.get(plan.group);
    const { data } = plan;
    if (own.name !== 'linux' || group === undefined || data === undefined)
      return own.listen(protocol, at, plan);
    await this.#started.catch((error: unknown) => {
      throw notStarted(this.count, error);
    });
    const [socket = -1, ...sockets] = own.bindGroup(protocol, at, this.count);
    const here = await own.adopt(protocol, socket, plan).catch((error: unknown) => {
      for (const other of sockets) closeSync(other);
      throw error;
    });
    const number = ++this.#listeners;
    const everywhere = new SharedListener(here, number, this.#others, at);
    const opened = this.#others.map((thread, i) => {
      const given = { listener: number, protocol, socket: sockets[i] ?? -1, plan: data };
      return thread.order({ do: 'open', ...given, group: groupOn(i + 1, group) });
    });
    try {
      await Promise.all(opened);
    } catch (error) {
      await Promise.allSettled(opened);
      await everywhere.close();
      throw error;
    }
    return everywhere;
  }

  transparentObstacle(): ReturnType<Engine['transparentObstacle']> {
    return this.#own.transparentObstacle();
  }

  async busyFlows(): Promise<number> {
    const busy = await Promise.all([this.#own, ...this.#others].map((thread) => thread.busyFlows()));
    return busy.reduce((sum, count) => sum + count, 0);
  }

  async close(): Promise<void> {
    await Promise.all([this.#own.close(), ...this.#others.map((thread) => thread.end())]);
  }

  /** Once, whichever thread has found out. */
  #tell({ fallback, text }: Shortcoming): void {
    if (this.#fallbacks.has(fallback)) return;
    this.#fallbacks.add(fallback);
    this.#log.warn({ fallback, reason: text }, 'falling back');
  }
}

/** A listener of all threads; each has a socket of its own. */
class SharedListener implements Listener<RulePlan> {
  readonly local: Endpoint;
  readonly #here: Listener;
  readonly #number: number;
  readonly #others: readonly Thread[];

  constructor(here: Listener, number: number, others: readonly Thread[], at: Endpoint) {
    this.local = { ...at, port: here.local.port };
    this.#here = here;
    this.#number = number;
    this.#others = others;
  }

  /** Where it takes the main thread to decide, the others give their sockets up, and their UDP flows end with them. */
  async replace(plan: RulePlan): Promise<void> {
    const { data } = plan;
    await this.#here.replace(plan);
    if (data === undefined) await this.#closeElsewhere();
    else await this.#each((thread) => thread.order({ do: 'replace', listener: this.#number, plan: data }));
  }

  async stop(): Promise<void> {
    await Promise.all([
      this.#here.stop(),
      this.#each((thread) => thread.order({ do: 'stop', listener: this.#number })),
    ]);
  }

  /** In two steps: with each UDP socket that closes the others get its peers, who must find no new flow there. */
  async close(): Promise<void> {
    await this.stop();
    await Promise.all([this.#here.close(), this.#closeElsewhere()]);
  }

  async #closeElsewhere(): Promise<void> {
    await this.#each((thread) => thread.order({ do: 'close', listener: this.#number }));
  }

  async #each(order: (thread: Thread) => Promise<number>): Promise<void> {
    await Promise.all(this.#others.map(order));
  }
}

/** What each thread gets of the flows: all of them together, and every thread at least one. */
function shares(maxFlows: number, threads: number): readonly number[] {
  const least = Math.floor(maxFlows / threads);
  const rest = maxFlows - least * threads;
  return Array.from({ length: threads }, (_, i) => Math.max(1, least + (i < rest ? 1 : 0)));
}

function groupOn(thread: number, { number, flows, blocks }: SharedGroup): GroupData {
  return { number, flows, counters: blocks[thread] as Counters };
}

function notStarted(threads: number, error: unknown): DualportError {
  const why = messageOf(error);
  return new DualportError('ENGINE', `${threads} threads cannot be had here: ${why}; use fewer (--threads)`, {
    cause: error,
  });
}
