/**
 * One TCP flow on sockets of the core. What the client sends stays in its socket until the upstream is
 * connected, but for the PROXY headers: one that comes in is read here, and one that goes out leaves in one
 * write with what the client has said so far. From then on both sockets are the core's until it says ENDED.
 */
import type { CloseReason, Source } from '../../flow/flow.ts';
import type { Endpoint } from '../../net/address.ts';
import type { Plan } from '../engine.ts';
import { type Attempt, type ConnectFailure, connectFailure, type Dial, onAnyPort } from '../race.ts';
import { TcpFlow } from '../tcp-flow.ts';
import type { LinuxContext } from './context.ts';
import { type Core, errnoName, nothingYet, type SlotOwner } from './core.ts';
import { endReason, eventKind } from './layout.ts';

const endings: Readonly<Record<number, CloseReason>> = {
  [endReason.done]: 'done',
  [endReason.clientReset]: 'client-reset',
  [endReason.upstreamReset]: 'upstream-reset',
};

const nobody = -1;

export class LinuxTcpFlow extends TcpFlow<Connecting> implements SlotOwner {
  readonly #context: LinuxContext;
  readonly #core: Core;
  readonly #client: number;
  /** The upstream's slot once both are relayed. */
  #upstream = nobody;
  #keptAlive = false;

  constructor(context: LinuxContext, plan: Plan, client: number, peer: Endpoint, local: Endpoint) {
    super(context, plan, peer, local);
    this.#context = context;
    this.#core = context.core;
    this.#client = client;
    context.core.own(client, this);
    this.begin();
  }

  happened({ kind, value }: Core): void {
    if (kind === eventKind.ended) this.#relayEnded(endings[value] ?? 'done');
    else if (this.#upstream !== nobody) {
      // Said of the client before it was relayed, in the batch that also told of its upstream: the core knows.
    } else if (kind === eventKind.gone) this.gone();
    else if (kind === eventKind.readable) this.wakeClient();
  }

  protected readonly dial: Dial<Connecting> = (upstream, outcome, source) =>
    new Connecting(this.#core, upstream, source, outcome);

  protected portOf({ slot }: Connecting): number {
    return slot === nobody ? 0 : this.#core.localOf(slot).port;
  }

  protected withPort(attempt: Connecting, then: (port: number) => void): void {
    then(this.portOf(attempt));
  }

  /** Edge-triggered: what is not read now is not announced again. Only a header is read before the relay. */
  protected wakeClient(): void {
    while (this.awaitsHeader) {
      const read = this.#core.read(this.#client);
      if (typeof read !== 'number' && read.length > 0) this.received(read);
      else if (typeof read !== 'number') return this.ended();
      else return read === nothingYet ? undefined : this.gone();
    }
  }

  protected holdClient(): void {}

  protected resetClient(): void {
    this.#core.close(this.#client, true);
  }

  protected startRelay(attempt: Connecting, header: Buffer | undefined): void {
    if (header !== undefined && this.early.length === 0) this.#readEarly();
    const payload = this.early.reduce((total, { length }) => total + length, 0);
    const early = header === undefined ? this.early : [header, ...this.early];
    const bytes = early.length === 0 ? undefined : Buffer.concat(early);
    const counters = this.#context.countersOf(this.plan.group);
    const started = this.#core.relay(this.#client, attempt.slot, bytes, payload, this.clientEnded, counters);
    if (started < 0) {
      attempt.abandon();
      return this.gone();
    }
    this.#upstream = attempt.slot;
    this.#core.disown(attempt.slot);
  }

  protected checkRelay(nowMs: number): void {
    if (!this.#keptAlive) this.#keepAlive();
    const { ended, activeMs } = this.#core;
    const half = ended[this.#client] !== ended[this.#upstream];
    const limitMs = half ? this.plan.timeouts.halfCloseMs : this.plan.timeouts.idleMs;
    if (limitMs === 0) return;
    const lastActiveMs = Math.max(activeMs[this.#client] ?? 0, activeMs[this.#upstream] ?? 0);
    if (nowMs - lastActiveMs >= limitMs) this.abortRelay(half ? 'half-close-idle' : 'idle');
  }

  protected abortRelay(reason: CloseReason): void {
    this.#core.abortRelay(this.#client, this.#upstream);
    this.close(reason);
  }

  /** Both slots keep their numbers until the next poll. */
  protected relayedBytes(): readonly [number, number] {
    const { bytes } = this.#core;
    return [bytes[this.#client] ?? 0, bytes[this.#upstream] ?? 0];
  }

  /** By the first sweep that meets the flow: four system calls that most flows do not live to need. */
  #keepAlive(): void {
    this.#keptAlive = true;
    this.#core.keepAlive(this.#upstream);
  }

  /** Whatever else a read may say, the relay will hear of it. */
  #readEarly(): void {
    const read = this.#core.read(this.#client);
    if (typeof read === 'number') return;
    if (read.length > 0) this.early.push(read);
    else this.clientEnded = true;
  }

  #relayEnded(reason: CloseReason): void {
    this.#core.disown(this.#client);
    this.close(reason);
  }
}

/** One connect under way, and then its socket. */
class Connecting implements Attempt, SlotOwner {
  slot = nobody;
  readonly #core: Core;
  readonly #upstream: Endpoint;
  readonly #outcome: (failure?: ConnectFailure) => void;
  #source: Source | undefined;
  #abandoned = false;

  constructor(
    core: Core,
    upstream: Endpoint,
    source: Source | undefined,
    outcome: (failure?: ConnectFailure) => void,
  ) {
    this.#core = core;
    this.#upstream = upstream;
    this.#source = source;
    this.#outcome = outcome;
    this.#start();
  }

  happened({ value }: Core): void {
    if (value === 0) return this.#outcome();
    this.#close();
    this.#failed(errnoName(value));
  }

  abandon(): void {
    this.#abandoned = true;
    this.#close();
  }

  #start(): void {
    const slot = this.#core.connect(this.#upstream, this.#source);
    this.slot = slot;
    if (slot >= 0) this.#core.own(slot, this);
    // Later, as the outcome of every attempt.
    else queueMicrotask(() => this.#failed(errnoName(slot)));
  }

  #failed(errno: string): void {
    if (this.#abandoned) return;
    const other = onAnyPort(this.#source, errno);
    if (other === undefined) return this.#outcome(connectFailure(errno, this.#source));
    this.#source = other;
    this.#start();
  }

  #close(): void {
    if (this.slot >= 0) this.#core.close(this.slot, false);
    this.slot = nobody;
  }
}
