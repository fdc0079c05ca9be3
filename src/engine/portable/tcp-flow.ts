/**
 * One TCP flow on sockets of node:net. Until the upstream is connected the client's socket is listened to
 * here (one read, then it is paused); then both are the relay's.
 */
import { connect, type Socket, type TcpSocketConnectOpts } from 'node:net';
import type { CloseReason, Source } from '../../flow/flow.ts';
import { type Endpoint, formatAddress, formatHost } from '../../net/address.ts';
import type { EngineContext } from '../context.ts';
import type { Plan } from '../engine.ts';
import { type Attempt, type ConnectFailure, connectFailure, onAnyPort } from '../race.ts';
import { TcpFlow } from '../tcp-flow.ts';
import { highWaterMarkBytes, Relay } from './relay.ts';
import { endedCleanly, reset } from './reset.ts';

/** Both sockets of a flow: no Nagle delay, dead peers found by keepalive, each direction ends by itself. */
export const socketOptions = {
  allowHalfOpen: true,
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: 15_000,
  highWaterMark: highWaterMarkBytes,
} as const;

interface Dialled extends Attempt {
  /** The one that is connected, or is to be. */
  socket: Socket;
}

export class PortableTcpFlow extends TcpFlow<Dialled> {
  protected readonly dial: typeof dial = dial;
  readonly #client: Socket;
  readonly #context: EngineContext;
  #relay: Relay | undefined;

  constructor(context: EngineContext, plan: Plan, client: Socket, peer: Endpoint, local: Endpoint) {
    super(context, plan, peer, local);
    this.#context = context;
    this.#client = client;
    client
      .on('data', this.#onData)
      .on('end', this.#onEnd)
      .on('error', this.#onGone)
      .on('close', this.#onGone);
    this.begin();
  }

  protected portOf({ socket }: Dialled): number {
    return socket.localPort ?? 0;
  }

  /** node:net connects in the next tick, and what it says of the socket before it repeats for ever. */
  protected withPort(attempt: Dialled, then: (port: number) => void): void {
    process.nextTick(() => then(this.portOf(attempt)));
  }

  protected wakeClient(): void {
    this.#client.resume();
  }

  protected holdClient(): void {
    this.#client.pause();
  }

  protected resetClient(): void {
    this.#client.on('error', ignore);
    reset(this.#client);
  }

  protected startRelay({ socket: upstream }: Dialled, header: Buffer | undefined): void {
    const client = this.#client;
    client
      .off('data', this.#onData)
      .off('end', this.#onEnd)
      .off('error', this.#onGone)
      .off('close', this.#onGone);
    const { group, timeouts } = this.plan;
    this.#relay = new Relay(client, upstream, group.counters, timeouts, this.#context.clock, (reason) =>
      this.close(reason),
    );
    this.#relay.start(header, this.early, this.clientEnded);
  }

  protected checkRelay(nowMs: number): void {
    this.#relay?.checkIdle(nowMs);
  }

  protected abortRelay(reason: CloseReason): void {
    this.#relay?.abort(reason);
  }

  protected relayedBytes(): readonly [number, number] {
    return this.#relay?.bytes ?? [0, 0];
  }

  readonly #onData = (chunk: Buffer): void => this.received(chunk);

  readonly #onEnd = (): void => {
    if (endedCleanly(this.#client)) this.ended();
    else this.gone();
  };

  readonly #onGone = (): void => this.gone();
}

function dial(upstream: Endpoint, outcome: (failure?: ConnectFailure) => void, source?: Source): Dialled {
  const socket = connect({ ...socketOptions, ...placesOf(upstream, source) });
  const attempt = { socket, abandon: () => abandon(attempt.socket) };
  const failed = (error: NodeJS.ErrnoException) => {
    const other = onAnyPort(source, error.code);
    if (other === undefined) outcome(connectFailure(error.code, source));
    else attempt.socket = dial(upstream, outcome, other).socket;
  };
  socket.once('error', failed);
  socket.once('connect', () => {
    socket.off('error', failed);
    if (!hasMetItself(socket)) return outcome();
    // With a reset, or its TIME_WAIT would keep the program that is to listen there from its port.
    reset(socket);
    outcome('connect-refused');
  });
  return attempt;
}

function placesOf(upstream: Endpoint, source: Source | undefined): TcpSocketConnectOpts {
  const to = { host: formatHost(upstream), port: upstream.port };
  if (source === undefined) return to;
  return { ...to, localAddress: formatAddress(source.address), localPort: source.port };
}

/** To a port that nobody has, of those the kernel gives to clients, it may give just that one: both ends are one. */
function hasMetItself({ localPort, remotePort, localAddress, remoteAddress }: Socket): boolean {
  return localPort === remotePort && localAddress === remoteAddress;
}

function abandon(socket: Socket): void {
  socket.on('error', ignore);
  socket.destroy();
}

function ignore(): void {}
