/**
 * A listening TCP socket: each connection becomes a LinuxTcpFlow, or waits for a place. IPv6 sockets are V6ONLY
 * (native/platform/v6only-pair.c), so an IPv4 client always arrives on an IPv4 socket.
 */
import type { Endpoint } from '../../net/address.ts';
import { countAcceptFailure, type Listener, type Plan } from '../engine.ts';
import type { WaitingClient } from '../waiting-room.ts';
import type { LinuxContext } from './context.ts';
import { type Core, errnoName, type SlotOwner } from './core.ts';
import { eventKind } from './layout.ts';
import { LinuxTcpFlow } from './tcp-flow.ts';

/** A listener of TCP counts nothing; its flows do. */
const nothingCounted = -1;

/** In place of the errno with which accept failed. */
const listensNoMore = 0;

export async function listenTcp(context: LinuxContext, at: Endpoint, plan: Plan): Promise<Listener> {
  const slot = context.core.listenTcp(at);
  return new TcpListener(context, slot, { ...at, port: context.core.localOf(slot).port }, plan);
}

/** @param socket listens already */
export async function adoptTcp(context: LinuxContext, socket: number, plan: Plan): Promise<Listener> {
  const slot = context.core.adopt(socket, false, nothingCounted);
  return new TcpListener(context, slot, context.core.localOf(slot), plan);
}

class TcpListener implements Listener, SlotOwner {
  readonly local: Endpoint;
  plan: Plan;
  readonly #context: LinuxContext;
  readonly #slot: number;
  /** Accepted beyond the limit, and not begun. */
  readonly #waiting = new Set<AcceptedClient>();
  readonly #group: Plan['group'];
  #stopped = false;

  constructor(context: LinuxContext, slot: number, local: Endpoint, plan: Plan) {
    this.#context = context;
    this.#slot = slot;
    this.plan = plan;
    this.#group = plan.group;
    this.local = local;
    context.core.own(slot, this);
    context.openListener(plan.group);
    context.startAccepting(slot);
    context.listeners.add(this);
    context.tcpPassages.ports.open(this.local.port);
  }

  replace(plan: Plan): void {
    this.plan = plan;
  }

  /** Flows have sockets of their own and go on; clients that wait are reset, as the kernel does in its backlog. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#context.listeners.delete(this);
    this.#context.tcpPassages.ports.close(this.local.port);
    this.#context.stopAccepting(this.#slot);
    this.#context.core.close(this.#slot, false);
    for (const client of this.#waiting) client.giveUp();
    this.#context.closeListener(this.#group);
  }

  async close(): Promise<void> {
    await this.stop();
    this.#context.abandon(this.#group);
  }

  happened(core: Core): void {
    if (core.kind === eventKind.acceptFailed && core.value === listensNoMore) {
      // For everybody, by another process that has this socket, too.
      this.#context.stopAccepting(this.#slot);
    } else if (core.kind !== eventKind.accepted) {
      countAcceptFailure(this.plan, errnoName(core.value));
      this.#context.restFromAccept();
    } else if (this.#context.waiting.mustWait) {
      const client = new AcceptedClient(this.#context, this, this.#waiting, core);
      this.#context.wait(client);
    } else this.begin(core.slot, core.peer(), core.local());
  }

  begin(slot: number, peer: Endpoint, local: Endpoint): void {
    new LinuxTcpFlow(this.#context, this.plan, slot, peer, local);
    this.#context.pauseIfFull();
  }
}

class AcceptedClient implements WaitingClient, SlotOwner {
  readonly #context: LinuxContext;
  readonly #listener: TcpListener;
  readonly #siblings: Set<AcceptedClient>;
  readonly #slot: number;
  readonly #peer: Endpoint;
  readonly #local: Endpoint;

  constructor(context: LinuxContext, listener: TcpListener, siblings: Set<AcceptedClient>, accepted: Core) {
    this.#context = context;
    this.#listener = listener;
    this.#siblings = siblings;
    this.#slot = accepted.slot;
    this.#peer = accepted.peer();
    this.#local = accepted.local();
    siblings.add(this);
    context.core.own(this.#slot, this);
  }

  /** What it sends meanwhile is found when it begins. */
  happened(core: Core): void {
    if (core.kind === eventKind.gone) this.giveUp();
  }

  begin(): void {
    this.#siblings.delete(this);
    this.#listener.begin(this.#slot, this.#peer, this.#local);
  }

  giveUp(): void {
    this.#siblings.delete(this);
    this.#context.waiting.remove(this);
    this.#context.core.close(this.#slot, true);
  }
}
