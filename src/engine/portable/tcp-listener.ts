/**
 * A listening TCP socket: accepts and hands each connection to a PortableTcpFlow. IPv6 sockets are V6ONLY, so an
 * IPv4 client always arrives on an IPv4 socket. node:net cannot pause accept and keep the backlog: at a limit
 * this engine accepts and resets.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { type Endpoint, endpointOf, formatHost } from '../../net/address.ts';
import type { EngineContext } from '../context.ts';
import type { Listener, Plan } from '../engine.ts';
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
  #plan: Plan;

  constructor(context: EngineContext, server: Server, at: Endpoint, plan: Plan) {
    this.#context = context;
    this.#server = server;
    this.#plan = plan;
    const bound = server.address();
    this.local = { ...at, port: typeof bound === 'object' && bound !== null ? bound.port : at.port };
    context.listeners.add(this);
    server.on('connection', (socket) => this.#accept(socket));
    // accept(2) failed for one connection, or for want of descriptors; the listener itself is sound.
    server.on('error', () => {});
  }

  replace(plan: Plan): void {
    this.#plan = plan;
  }

  /** Flows go on: node:net keeps them apart from the listening socket, whose port is free at once. */
  async stop(): Promise<void> {
    this.#context.listeners.delete(this);
    if (this.#server.listening) this.#server.close();
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
    new PortableTcpFlow(this.#context, this.#plan, socket, peer, endpointOf(localAddress, localPort ?? 0));
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
