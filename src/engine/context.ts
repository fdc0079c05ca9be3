/**
 * What the listeners and flows of one engine share. The clock moves once per sweep, so that no flow needs a
 * timer of its own and marking activity is one assignment. A stamp is up to one sweep old; flows are
 * therefore checked against the clock of the sweep before, and end up to two sweeps late but never early.
 */
import { setImmediate } from 'node:timers/promises';
import type { CloseReason, Protocol } from '../flow/flow.ts';
import { Admission, type Place, type RuleGroup } from './admission.ts';
import type { Listener } from './engine.ts';
import { FailedUpstreams } from './failed-upstreams.ts';
import { TcpPassages } from './passage.ts';
import { NetworkRates } from './reply-budget.ts';
import { UdpPorts } from './udp-ports.ts';
import { WaitingRoom } from './waiting-room.ts';

const sweepMs = 500;

/** A flow as the sweep and the end of the engine see it. */
export interface SweptFlow {
  /** Would lose something if it ended now. */
  isBusy(nowMs: number): boolean;
  checkIdle(nowMs: number): void;
  abort(reason: CloseReason): void;
  /** The rule is gone, and with it who was to be connected. */
  abandon?(group: RuleGroup): void;
}

export class EngineContext {
  readonly admission: Admission;
  readonly waiting: WaitingRoom;
  /** By protocol: a program that listens on one of them refuses the other. */
  readonly failed: Readonly<Record<Protocol, FailedUpstreams>> = {
    tcp: new FailedUpstreams(() => performance.now()),
    udp: new FailedUpstreams(() => performance.now()),
  };
  readonly flows: Set<SweptFlow> = new Set();
  /** Milliseconds that only go forward; stamps of activity are of this clock. */
  readonly now: () => number;
  readonly clock: { nowMs: number };
  readonly listeners: Set<Listener> = new Set();
  readonly tcpPassages = new TcpPassages();
  readonly udpPorts = new UdpPorts();
  readonly networkRates = new NetworkRates();
  /** Bytes of datagrams kept for a fallback, over all flows; a flood of unanswered flows must not pile up. */
  keptBytes = 0;
  readonly maxKeptBytes: number = 16 * 1024 * 1024;
  readonly #sweep: NodeJS.Timeout;
  #lettingIn = false;

  /** @param mostWaiting how many clients beyond the flows may wait for a place */
  constructor(maxFlows: number, mostWaiting: number, now: () => number) {
    this.admission = new Admission(maxFlows);
    this.waiting = new WaitingRoom(this.admission, mostWaiting);
    this.now = now;
    this.clock = { nowMs: now() };
    this.#sweep = setInterval(() => this.sweep(), sweepMs);
  }

  /** Resets every flow, closes every listener and stops the clock. */
  async close(): Promise<void> {
    clearInterval(this.#sweep);
    this.waiting.close();
    for (const flow of [...this.flows]) flow.abort('shutdown');
    await Promise.all([...this.listeners].map((listener) => listener.close()));
    // A reset socket may close in one of the next turns of the event loop only, and its flow ends there.
    while (this.flows.size > 0) await setImmediate();
  }

  /**
   * Nobody is connected any more for a rule that is gone: the address of its container may be another's before the next
   * SYN is sent. What is relayed goes on.
   */
  abandon(group: RuleGroup): void {
    for (const flow of [...this.flows]) flow.abandon?.(group);
  }

  /** A flow's place is free again. */
  release(place: Place): void {
    this.admission.release(place);
    if (this.isHoldingBack) this.#letInSoon();
  }

  busyFlows(): number {
    const nowMs = this.now();
    let busy = 0;
    for (const flow of this.flows) if (flow.isBusy(nowMs)) busy++;
    return busy;
  }

  /** Somebody is kept from coming in. */
  protected get isHoldingBack(): boolean {
    return !this.waiting.isEmpty;
  }

  /** Whoever there is a place for. */
  protected letIn(): void {
    this.waiting.letIn();
  }

  protected sweep(): void {
    const { nowMs } = this.clock;
    // An iterator would make an object for each flow, until this loop is compiled well enough.
    this.flows.forEach((flow) => {
      flow.checkIdle(nowMs);
    });
    this.clock.nowMs = this.now();
    if (this.isHoldingBack) this.letIn();
  }

  /** Not at once: whoever gives a place back is in the middle of ending a flow. */
  #letInSoon(): void {
    if (this.#lettingIn) return;
    this.#lettingIn = true;
    queueMicrotask(() => {
      this.#lettingIn = false;
      this.letIn();
    });
  }
}
