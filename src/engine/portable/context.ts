/**
 * What the listeners and flows of one portable engine share. The clock moves once per sweep, so that no flow
 * needs a timer of its own and marking activity is one assignment. A stamp is up to one sweep old; flows are
 * therefore checked against the clock of the sweep before, and end up to two sweeps late but never early.
 */
import { setImmediate } from 'node:timers/promises';
import type { CloseReason, Protocol } from '../../flow/flow.ts';
import { Admission } from '../admission.ts';
import type { Listener } from '../engine.ts';
import { FailedUpstreams } from '../failed-upstreams.ts';

const sweepMs = 500;

/** A flow as the sweep and the end of the engine see it. */
export interface SweptFlow {
  /** Would lose something if it ended now. */
  isBusy(nowMs: number): boolean;
  checkIdle(nowMs: number): void;
  abort(reason: CloseReason): void;
}

export class PortableContext {
  readonly admission: Admission;
  /** By protocol: a program that listens on one of them refuses the other. */
  readonly failed: Readonly<Record<Protocol, FailedUpstreams>> = {
    tcp: new FailedUpstreams(() => performance.now()),
    udp: new FailedUpstreams(() => performance.now()),
  };
  readonly flows: Set<SweptFlow> = new Set();
  readonly clock: { nowMs: number } = { nowMs: performance.now() };
  readonly listeners: Set<Listener> = new Set();
  /** Bytes of datagrams kept for a fallback, over all flows; a flood of unanswered flows must not pile up. */
  keptBytes = 0;
  readonly maxKeptBytes: number = 16 * 1024 * 1024;
  /** How many UDP listeners have each port, to know our own datagrams by. */
  readonly #udpPorts = new Map<number, number>();
  readonly #sweep: NodeJS.Timeout;

  constructor(maxFlows: number) {
    this.admission = new Admission(maxFlows);
    this.#sweep = setInterval(() => this.#sweepOnce(), sweepMs);
  }

  /** Resets every flow, closes every listener and stops the clock. */
  async close(): Promise<void> {
    clearInterval(this.#sweep);
    for (const flow of [...this.flows]) flow.abort('shutdown');
    await Promise.all([...this.listeners].map((listener) => listener.close()));
    // A reset socket closes in one of the next turns of the event loop, and its flow ends there.
    while (this.flows.size > 0) await setImmediate();
  }

  openUdpPort(port: number): void {
    this.#udpPorts.set(port, (this.#udpPorts.get(port) ?? 0) + 1);
  }

  closeUdpPort(port: number): void {
    const left = (this.#udpPorts.get(port) ?? 0) - 1;
    if (left > 0) this.#udpPorts.set(port, left);
    else this.#udpPorts.delete(port);
  }

  isUdpPort(port: number): boolean {
    return this.#udpPorts.has(port);
  }

  busyFlows(): number {
    const nowMs = performance.now();
    let busy = 0;
    for (const flow of this.flows) if (flow.isBusy(nowMs)) busy++;
    return busy;
  }

  #sweepOnce(): void {
    for (const flow of this.flows) flow.checkIdle(this.clock.nowMs);
    this.clock.nowMs = performance.now();
  }
}
