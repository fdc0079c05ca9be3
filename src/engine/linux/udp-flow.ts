/**
 * One UDP association on a socket of the core, which relays and counts most of its datagrams; the others pass
 * through here and are counted here.
 */
import { CLIENT, type NewFlow, UPSTREAM } from '../../flow/flow.ts';
import type { Place } from '../admission.ts';
import type { Plan } from '../engine.ts';
import { UdpFlow } from '../udp-flow.ts';
import type { Accepted } from '../udp-upstream.ts';
import type { LinuxContext } from './context.ts';
import { LinuxUdpUpstream } from './udp-upstream.ts';

/** The listener's slot, and who forgets a flow. */
export interface UdpFlowOwner {
  readonly slot: number;
  forget(key: string): void;
}

export class LinuxUdpFlow extends UdpFlow {
  protected readonly upstream: LinuxUdpUpstream;
  readonly #owner: UdpFlowOwner;
  readonly #key: string;

  /** @param key what the owner knows this flow by */
  constructor(
    context: LinuxContext,
    owner: UdpFlowOwner,
    key: string,
    plan: Plan,
    flow: NewFlow,
    place: Place,
    accepted: Accepted,
  ) {
    super(context, plan, flow, place, accepted);
    this.#owner = owner;
    this.#key = key;
    const { header } = this;
    this.upstream = new LinuxUdpUpstream(context, this, accepted, header, place.group, owner.slot, flow);
  }

  /** The rules have changed: the next datagram is to come here, where it is asked whether the flow goes on. */
  awaitPlan(): void {
    this.upstream.planIsDue(true);
  }

  override follow(plan: Plan): boolean {
    const stays = super.follow(plan);
    if (stays) this.upstream.planIsDue(false);
    return stays;
  }

  protected forget(): void {
    this.#owner.forget(this.#key);
  }

  protected override bytes(): readonly [number, number] {
    const here = super.bytes();
    const core = this.upstream.relayed();
    return [here[CLIENT] + core[CLIENT], here[UPSTREAM] + core[UPSTREAM]];
  }

  protected override lastActiveMs(): number {
    return Math.max(super.lastActiveMs(), this.upstream.activeMs);
  }
}
