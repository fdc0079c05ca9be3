/**
 * One UDP association on sockets of node:dgram: every datagram passes through here. Nothing is allocated per
 * datagram but what node:dgram itself allocates.
 */
import { count } from '../../flow/counters.ts';
import type { NewFlow } from '../../flow/flow.ts';
import { formatHost } from '../../net/address.ts';
import type { Place } from '../admission.ts';
import type { EngineContext } from '../context.ts';
import type { Plan } from '../engine.ts';
import { ReplyAllowance, replyBudget } from '../reply-budget.ts';
import { UdpFlow } from '../udp-flow.ts';
import type { Accepted } from '../udp-upstream.ts';
import { type AnswerTaker, PortableUdpUpstream } from './udp-upstream.ts';

/** Where a flow's answers go and who forgets it. */
export interface UdpFlowOwner {
  reply(datagram: Buffer, flow: PortableUdpFlow): void;
  forget(flow: PortableUdpFlow): void;
}

export class PortableUdpFlow extends UdpFlow implements AnswerTaker {
  /** The peer as node:dgram takes it, so that no text is made per reply. */
  readonly peerHost: string;
  readonly peerPort: number;
  protected readonly upstream: PortableUdpUpstream;
  readonly #context: EngineContext;
  readonly #owner: UdpFlowOwner;
  /** Until it is clear that the client hears. */
  #allowance: ReplyAllowance | undefined;

  constructor(
    context: EngineContext,
    owner: UdpFlowOwner,
    plan: Plan,
    flow: NewFlow,
    place: Place,
    accepted: Accepted,
  ) {
    super(context, plan, flow, place, accepted);
    this.#context = context;
    this.#owner = owner;
    const budget = replyBudget(plan);
    if (budget) this.#allowance = new ReplyAllowance(budget, context.networkRates, flow.peer.address);
    this.peerHost = formatHost(flow.peer);
    this.peerPort = flow.peer.port;
    this.upstream = new PortableUdpUpstream(context, this, accepted, this.header, this.counters);
  }

  override fromClient(datagram: Buffer): void {
    if (this.#allowance?.request(datagram.length) === true) this.#allowance = undefined;
    super.fromClient(datagram);
  }

  answer(datagram: Buffer): void {
    this.countAnswer(datagram);
    if (this.#allowance?.spend(datagram.length, this.#context.now()) === false)
      return count(this.counters, 'droppedBudget');
    this.#owner.reply(datagram, this);
  }

  protected forget(): void {
    this.#owner.forget(this);
  }
}
