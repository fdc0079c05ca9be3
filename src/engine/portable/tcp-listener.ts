/**
 * A listening TCP socket: accepts and hands each connection to a PortableTcpFlow. IPv6 sockets are V6ONLY, so an
 * IPv4 client always arrives on an IPv4 socket. node:net cannot pause accept and keep the backlog: at the limit of
 * flows clients are accepted and wait here, as many as there are descriptors for, and the others are reset.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { errnoOf } from '../../errors.ts';
import { type Endpoint, endpointOf, formatHost } from '../../net/address.ts';
import type { EngineContext } from '../context.ts';
import { countAcceptFailure, type Listener, type Plan } from '../engine.ts';
import type { WaitingClient, WaitingRoom } from '../waiting-room.ts';
import { reset } from './reset.ts';
import { PortableTcpFlow, socketOptions } from './tcp-flow.ts';

/** The kernel cuts it to net.core.somaxconn, 4096 by default since Linux 5.4. */
const backlog = 4096;

export async function listenTcp(context: EngineContext, at: Endpoint, plan: Plan): Promise<Listener> {
  const server = createServer({ ...socketOptions, pauseOnConnect: true });
  await bound(server, at);
  return new TcpListener(context, server, at, plan);
}

class TcpListener implements Listener {
  readonly local: Endpoint;
  readonly #context: EngineContext;
  readonly #server: Server;
  /** Accepted beyond the limit, and not begun. */
  readonly #waiting = new Set<AcceptedClient>();
  #plan: Plan;

  constructor(context: EngineContext, server: Server, at: Endpoint, plan: Plan) {
    this.#context = context;
    this.#server = server;
    this.#plan = plan;
    const bound = server.address();
    this.local = { ...at, port: typeof bound === 'object' && bound !== null ? bound.port : at.port };
    context.listeners.add(this);
    context.tcpPassages.ports.open(this.local.port);
    server.on('connection', (socket) => this.#accept(socket));
    // accept(2) failed for one connection, or for want of descriptors; the listener itself is sound.
    server.on('error', (error) => countAcceptFailure(this.#plan, errnoOf(error) ?? error.message));
  }

  replace(plan: Plan): void {
    this.#plan = plan;
  }

  /** Flows go on: node:net keeps them apart from the listening socket, whose port is free at once. */
  async stop(): Promise<void> {
    const { listeners, tcpPassages } = this.#context;
    if (listeners.delete(this)) tcpPassages.ports.close(this.local.port);
    if (this.#server.listening) this.#server.close();
    for (const client of this.#waiting) client.giveUp();
  }

  async close(): Promise<void> {
    await this.stop();
    this.#context.abandon(this.#plan.group);
  }

  #accept(socket: Socket): void {
    const { remoteAddress, remotePort, localAddress, localPort } = socket;
    if (remoteAddress === undefined || localAddress === undefined) {
      // Mostly reset by the client while it waited in the backlog; anybody else must not take an end for an answer.
      reset(socket);
      return;
    }
    const peer = endpointOf(remoteAddress, remotePort ?? 0);
    const local = endpointOf(localAddress, localPort ?? 0);
    const begin = () => new PortableTcpFlow(this.#context, this.#plan, socket, peer, local);
    const { waiting } = this.#context;
    if (waiting.mustWait && waiting.hasRoom) new AcceptedClient(waiting, this.#waiting, socket, begin);
    else begin();
  }
}

/** Its socket is not read, so nothing is heard of it, not even its end, until it is its turn. */
class AcceptedClient implements WaitingClient {
  readonly #room: WaitingRoom;
  readonly #siblings: Set<AcceptedClient>;
  readonly #socket: Socket;
  readonly #begin: () => void;

  constructor(room: WaitingRoom, siblings: Set<AcceptedClient>, socket: Socket, begin: () => void) {
    this.#room = room;
    this.#siblings = siblings;
    this.#socket = socket;
    this.#begin = begin;
    room.add(this);
    siblings.add(this);
  }

  begin(): void {
    this.#siblings.delete(this);
    this.#begin();
  }

  giveUp(): void {
    this.#siblings.delete(this);
    this.#room.remove(this);
    reset(this.#socket);
  }
}

function bound(server: Server, at: Endpoint): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: formatHost(at), port: at.port, ipv6Only: true, exclusive: true, backlog }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
