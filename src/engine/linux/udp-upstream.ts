/**
 * The upstream side of one UDP flow on a connected socket of the core. While it is not known who will answer,
 * each datagram is shown here first, because a refusal sends the last one to the next candidate and a new
 * upstream may have to be told who the client is. Once answered, datagrams pass in the core.
 */
import type { NewFlow, Source } from '../../flow/flow.ts';
import type { Endpoint } from '../../net/address.ts';
import type { RuleGroup } from '../admission.ts';
import { onAnyPort } from '../race.ts';
import { type Accepted, UdpUpstream, type UdpUpstreamOwner } from '../udp-upstream.ts';
import type { LinuxContext } from './context.ts';
import { type Core, errnoName, type SlotOwner } from './core.ts';
import { eventKind } from './layout.ts';

const none = -1;
const nothing = [0, 0] as const;

export class LinuxUdpUpstream extends UdpUpstream implements SlotOwner {
  readonly #core: Core;
  readonly #listener: number;
  readonly #flow: NewFlow;
  readonly #countersNumber: number;
  #slot = none;
  /** What the core puts in front of each datagram. */
  #prefix: Buffer | undefined;
  /** The slot's socket is connected to the present candidate. */
  #reached = false;
  #planIsDue = false;
  #shown = false;

  constructor(
    context: LinuxContext,
    owner: UdpUpstreamOwner,
    accepted: Accepted,
    header: Buffer | undefined,
    group: RuleGroup,
    listener: number,
    flow: NewFlow,
  ) {
    super(context, owner, accepted, header, group.counters);
    this.#core = context.core;
    this.#listener = listener;
    this.#flow = flow;
    this.#countersNumber = context.countersOf(group);
  }

  /** Payload that passed in the core, by the side it came from. */
  relayed(): readonly [number, number] {
    if (this.#slot === none) return nothing;
    return [this.#core.bytes[this.#slot] ?? 0, this.#core.answerBytes[this.#slot] ?? 0];
  }

  get local(): Endpoint | undefined {
    return this.#slot === none ? undefined : this.#core.localOf(this.#slot);
  }

  /** When the last of it passed. */
  get activeMs(): number {
    return this.#slot === none ? 0 : (this.#core.activeMs[this.#slot] ?? 0);
  }

  planIsDue(due: boolean): void {
    this.#planIsDue = due;
    this.#show();
  }

  happened({ kind, value }: Core): void {
    // Where no socket could be connected the slot still has that of a candidate that was left.
    if (!this.#reached) return;
    if (kind === eventKind.refused) this.failed(errnoName(value));
    else if (kind === eventKind.answered && !this.answered) this.firstAnswer();
    this.#show();
  }

  protected transmit(datagram: Buffer, upstream: Endpoint): void {
    if (!this.#reached && !this.#reach(upstream)) return;
    const header = this.headerDue();
    const result = this.#core.sendUdp(this.#slot, header, datagram);
    if (result >= 0) return this.#show();
    // A header that did not leave is still due.
    if (header !== undefined) this.announced = false;
    this.failed(errnoName(result));
    this.#show();
  }

  protected leave(): void {
    this.#reached = false;
  }

  /** Where no socket could be connected, the next datagram tries again. */
  protected stay(): void {}

  protected shut(): void {
    if (this.#slot !== none) this.#core.close(this.#slot, false);
  }

  /** The core's memory of datagrams is used again. */
  protected ownCopy(datagram: Buffer): Buffer {
    return Buffer.from(datagram);
  }

  /** False when it failed at once; the kept datagram is with the next candidate then. */
  #reach(upstream: Endpoint): boolean {
    this.announced = false;
    this.findWay(upstream);
    const result = this.#connect(upstream, this.source);
    if (result < 0) {
      this.failed(errnoName(result));
      return false;
    }
    this.#reached = true;
    this.#putInFront(this.headed === 'every' ? this.header : undefined);
    this.#show();
    return true;
  }

  #connect(upstream: Endpoint, source: Source | undefined): number {
    const result =
      this.#slot === none
        ? this.#open(upstream, source)
        : this.#core.connectUdp(this.#slot, upstream, source);
    const other = result < 0 ? onAnyPort(source, errnoName(result)) : undefined;
    return other === undefined ? result : this.#connect(upstream, other);
  }

  #open(upstream: Endpoint, source: Source | undefined): number {
    const { peer, local } = this.#flow;
    const slot = this.#core.openUdpFlow(this.#listener, peer, local, upstream, source, this.#countersNumber);
    if (slot < 0) return slot;
    this.#slot = slot;
    this.#core.own(slot, this);
    return slot;
  }

  #putInFront(prefix: Buffer | undefined): void {
    if (prefix === this.#prefix) return;
    this.#prefix = prefix;
    this.#core.prefixUdp(this.#slot, prefix);
  }

  #show(): void {
    // A new program on a known port may speak before it was told of the client.
    const announcesFirst = this.headed === 'first';
    const headerDue = announcesFirst && !this.announced;
    const choiceDue = !this.answered && (announcesFirst || this.isChoosy);
    const shown = this.#planIsDue || headerDue || choiceDue;
    if (shown === this.#shown || this.#slot === none) return;
    this.#shown = shown;
    this.#core.inspectUdp(this.#slot, shown);
  }
}
