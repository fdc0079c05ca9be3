/**
 * A bound UDP socket of the core. Datagrams of known flows pass in the core; what comes here are those of
 * unknown senders, those of flows that want to see each, and all of them where headers are expected. Answers leave
 * from the address the client dialled (native/platform/pktinfo-wildcard.c), which is why a flow is known by both of
 * its addresses.
 *
 * Dropped by the core: source port 0, and those of services that answer anything. Dropped before a flow is made:
 * sources that are not unicast, and our own listeners (two services answering each other for ever).
 */
import { count } from '../../flow/counters.ts';
import type { CloseReason, NewFlow } from '../../flow/flow.ts';
import { type Endpoint, endpointKey, isUnicast } from '../../net/address.ts';
import type { Listener, Plan } from '../engine.ts';
import { isCircle } from '../passage.ts';
import { replyBudget } from '../reply-budget.ts';
import { type Announced, admitUdp, readAnnounced, refuseUdp } from '../udp-door.ts';
import type { LinuxContext } from './context.ts';
import type { Core, SlotOwner } from './core.ts';
import { eventKind } from './layout.ts';
import { LinuxUdpFlow, type UdpFlowOwner } from './udp-flow.ts';

export async function listenUdp(context: LinuxContext, at: Endpoint, plan: Plan): Promise<Listener> {
  const slot = context.core.listenUdp(at, context.countersOf(plan.group));
  return new UdpListener(context, slot, { ...at, port: context.core.localOf(slot).port }, plan);
}

/** @param socket is bound already */
export async function adoptUdp(context: LinuxContext, socket: number, plan: Plan): Promise<Listener> {
  const slot = context.core.adopt(socket, true, context.countersOf(plan.group));
  return new UdpListener(context, slot, context.core.localOf(slot), plan);
}

class UdpListener implements Listener, SlotOwner, UdpFlowOwner {
  readonly local: Endpoint;
  readonly slot: number;
  readonly #context: LinuxContext;
  /** By peer and dialled address, and whom a header names. */
  readonly #flows = new Map<string, LinuxUdpFlow>();
  readonly #group: Plan['group'];
  #plan: Plan;
  /** The last sender of a header, and whether it may. */
  #lastPair = '';
  #lastTrusted = false;
  #stopped = false;
  #closed = false;

  constructor(context: LinuxContext, slot: number, local: Endpoint, plan: Plan) {
    this.#context = context;
    this.slot = slot;
    this.#plan = plan;
    this.#group = plan.group;
    this.local = local;
    context.core.own(slot, this);
    context.core.inspectUdp(slot, plan.trusts !== undefined);
    context.core.limitReplies(slot, replyBudget(plan));
    context.openListener(plan.group);
    context.listeners.add(this);
    context.udpPorts.open(this.local.port);
  }

  /** What flows are asked at their next datagram, which therefore has to come here. */
  replace(plan: Plan): void {
    this.#plan = plan;
    this.#lastPair = '';
    if (this.#closed) return;
    this.#context.core.inspectUdp(this.slot, plan.trusts !== undefined);
    this.#context.core.limitReplies(this.slot, replyBudget(plan));
    for (const flow of this.#flows.values()) flow.awaitPlan();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopped = true;
    this.#context.listeners.delete(this);
    this.#context.udpPorts.close(this.local.port);
    for (const flow of [...this.#flows.values()]) flow.abort('rule-changed');
    this.#context.core.close(this.slot, false);
    this.#context.closeListener(this.#group);
  }

  forget(key: string): void {
    this.#flows.delete(key);
  }

  happened(core: Core): void {
    if (core.kind !== eventKind.datagram) return;
    if (this.#plan.trusts === undefined) this.#relay(core, core.payload(), core.pair(), undefined);
    else this.#receiveAnnounced(core);
  }

  #receiveAnnounced(core: Core): void {
    const pair = core.pair();
    if (!this.#isTrusted(core, pair)) return this.#badHeader(core, 'header-untrusted');
    const read = readAnnounced(core.payload());
    if (typeof read === 'string') return this.#badHeader(core, read);
    const { payload, announced } = read;
    const key = announced
      ? `${pair} ${endpointKey(announced.client)} ${endpointKey(announced.dialled)}`
      : pair;
    this.#relay(core, payload, key, announced);
  }

  #badHeader(core: Core, reason: CloseReason): void {
    count(this.#plan.group.counters, 'headerErrors');
    refuseUdp(this.#plan, newFlow(core.peer(), core.local()), reason);
  }

  /** Nearly all datagrams come from one and the same proxy in front. */
  #isTrusted(core: Core, pair: string): boolean {
    if (pair !== this.#lastPair) {
      this.#lastTrusted = this.#plan.trusts?.(core.peer().address) === true;
      this.#lastPair = pair;
    }
    return this.#lastTrusted;
  }

  #relay(core: Core, datagram: Buffer, key: string, announced: Announced): void {
    const known = this.#flows.get(key);
    if (known !== undefined && (known.plan === this.#plan || known.follow(this.#plan))) {
      known.fromClient(datagram);
    } else if (!this.#stopped) {
      this.#open(core, key, announced)?.fromClient(datagram);
    }
  }

  #open(core: Core, key: string, announced: Announced): LinuxUdpFlow | undefined {
    const peer = core.peer();
    const plan = this.#plan;
    const { udpPorts } = this.#context;
    const isOurs = udpPorts.isOwn(peer) || isCircle(udpPorts.passageOf(peer), plan.group);
    if (!isUnicast(peer.address) || isOurs) {
      count(plan.group.counters, 'droppedSource');
      return undefined;
    }
    const plain = newFlow(peer, core.local());
    const flow = announced === undefined ? plain : { ...plain, ...announced };
    const admitted = admitUdp(this.#context, plan, flow);
    if (admitted === undefined) return undefined;
    const { place, accepted } = admitted;
    const opened = new LinuxUdpFlow(this.#context, this, key, plan, flow, place, accepted);
    this.#flows.set(key, opened);
    return opened;
  }
}

function newFlow(peer: Endpoint, local: Endpoint): NewFlow {
  return { protocol: 'udp', peer, local, client: peer, dialled: local };
}
