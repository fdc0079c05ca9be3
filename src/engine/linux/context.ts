/**
 * What the listeners and flows of one Linux engine share beside the common part: the core, the counter blocks it
 * adds to, and when it accepts.
 *
 * At the limit of flows no listener accepts: new connections wait in the kernel's backlog, which tells their
 * clients nothing, until a flow has ended. What one poll accepted beyond the limit waits in the common part; it
 * is a batch at most, for accepting ends with the first of them. When accept fails, for want of descriptors or
 * memory, all listeners rest for a moment: it would fail again at once, for nothing.
 */
import { setImmediate } from 'node:timers/promises';
import type { RuleGroup } from '../admission.ts';
import { EngineContext } from '../context.ts';
import type { Notice } from '../engine.ts';
import type { WaitingClient } from '../waiting-room.ts';
import { Core, slotsFor } from './core.ts';
import type { Native } from './native.ts';

/** `enum fallback` of native/core.h. */
const fallbacks = [
  { bit: 1, fallback: 'splice', text: 'the kernel refuses splice: bulk transfers are copied' },
  { bit: 2, fallback: 'pipes', text: 'no pipe can be had for splice: bulk transfers are copied' },
  { bit: 4, fallback: 'gso', text: 'the kernel refuses trains of datagrams: they are sent one by one' },
  { bit: 8, fallback: 'gro', text: 'the kernel does not merge datagrams: they are received one by one' },
] as const;

/** How long nobody is accepted after accept has failed. */
const restMs = 100;

interface CounterBlock {
  readonly number: number;
  listeners: number;
}

export class LinuxContext extends EngineContext {
  readonly core: Core;
  /** The slots of TCP listeners. */
  readonly #accepting = new Set<number>();
  readonly #blocks = new Map<RuleGroup, CounterBlock>();
  readonly #notice: Notice;
  #fallbacks = 0;
  #paused = false;
  #rest: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;

  constructor(native: Native, maxFlows: number, notice: Notice) {
    super(maxFlows, Number.POSITIVE_INFINITY, () => native.now());
    this.#notice = notice;
    this.core = new Core(native, slotsFor(maxFlows));
  }

  override close(): Promise<void> {
    this.#closing ??= this.#closeOnce();
    return this.#closing;
  }

  /** The number under which the core counts for this rule. */
  countersOf(group: RuleGroup): number {
    return this.#blockOf(group).number;
  }

  openListener(group: RuleGroup): number {
    const block = this.#blockOf(group);
    block.listeners++;
    return block.number;
  }

  closeListener(group: RuleGroup): void {
    this.#blockOf(group).listeners--;
  }

  /** From now on this TCP listener is paused with the others. */
  startAccepting(listener: number): void {
    this.#accepting.add(listener);
    if (this.#paused) this.core.accepting(listener, false);
  }

  stopAccepting(listener: number): void {
    this.#accepting.delete(listener);
  }

  wait(client: WaitingClient): void {
    this.waiting.add(client);
    this.pauseAccept();
  }

  pauseIfFull(): void {
    if (this.admission.isFull) this.pauseAccept();
  }

  /** Until a flow has ended, or the next sweep finds that there is room. */
  pauseAccept(): void {
    if (this.#paused) return;
    this.#paused = true;
    for (const listener of this.#accepting) this.core.accepting(listener, false);
  }

  /** Accept has failed, or to begin it. A flow that ends meanwhile gives back what was wanted, and ends the rest. */
  restFromAccept(): void {
    this.pauseAccept();
    this.#rest ??= setTimeout(() => {
      this.#rest = undefined;
      if (this.#paused) this.letIn();
    }, restMs).unref();
  }

  protected override get isHoldingBack(): boolean {
    return this.#paused;
  }

  protected override letIn(): void {
    super.letIn();
    if (this.waiting.mustWait) return;
    this.#paused = false;
    for (const listener of this.#accepting) {
      if (!this.core.accepting(listener, true)) return this.restFromAccept();
    }
  }

  protected override sweep(): void {
    super.sweep();
    this.#tellFallbacks();
    for (const [group, { number, listeners }] of this.#blocks) {
      if (listeners > 0 || group.flows > 0) continue;
      this.#blocks.delete(group);
      this.core.forgetCounters(number);
    }
  }

  #tellFallbacks(): void {
    const fresh = this.core.fallbacks & ~this.#fallbacks;
    if (fresh === 0) return;
    this.#fallbacks |= fresh;
    for (const { bit, ...shortcoming } of fallbacks) if (fresh & bit) this.#notice(shortcoming);
  }

  #blockOf(group: RuleGroup): CounterBlock {
    const known = this.#blocks.get(group);
    if (known !== undefined) return known;
    const block = { number: this.core.countInto(group.counters), listeners: 0 };
    this.#blocks.set(group, block);
    return block;
  }

  async #closeOnce(): Promise<void> {
    clearTimeout(this.#rest);
    await super.close();
    // Whoever closes the engine may do so while the core's events are handed out.
    await setImmediate();
    this.core.shut();
  }
}
