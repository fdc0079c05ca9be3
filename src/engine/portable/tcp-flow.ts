/**
 * The life of one TCP flow from accept to its record.
 *
 *   header ──► connecting ──► relaying ──► closed
 *      └── refused ── no upstream ── client gone ──► closed
 *
 * header: only when the rule has trusted peers; bytes are collected until the PROXY header is whole, nothing is
 * connected before. connecting: what the client sends meanwhile is kept (one read, then it is paused), so that
 * header and first payload leave in one write. Every way to `closed` goes through `#close`, which gives the
 * place back and makes the one record.
 */
import { connect, type Socket } from 'node:net';
import { count } from '../../flow/counters.ts';
import type { CloseReason, FlowRecord, NewFlow, Verdict } from '../../flow/flow.ts';
import { type Endpoint, equalEndpoint, formatHost } from '../../net/address.ts';
import { decode } from '../../proxy-protocol/codec.ts';
import type { Place } from '../admission.ts';
import { headerBytes, makeUniqueId } from '../announce.ts';
import type { Plan } from '../engine.ts';
import { type ConnectFailure, connectFailure, failureCounter, Race, type RaceResult } from '../race.ts';
import type { PortableContext } from './context.ts';
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

interface Dialled {
  readonly socket: Socket;
  abandon(): void;
}

export class TcpFlow {
  readonly #context: PortableContext;
  readonly #plan: Plan;
  readonly #client: Socket;
  readonly #startedMs = performance.now();
  #place: Place | undefined;
  #flow: NewFlow;
  /** What the client sent that is not yet the relay's. */
  #early: Buffer[] = [];
  #clientEnded = false;
  #headerTimer: NodeJS.Timeout | undefined;
  #race: Race<Dialled> | undefined;
  #relay: Relay | undefined;
  #upstream: Endpoint | undefined;
  #preferred: Endpoint | undefined;
  #uniqueId: string | undefined;
  #counted = false;
  #closed = false;

  constructor(context: PortableContext, plan: Plan, client: Socket, peer: Endpoint, local: Endpoint) {
    this.#context = context;
    this.#plan = plan;
    this.#client = client;
    this.#flow = { protocol: 'tcp', peer, local, client: peer, dialled: local };
    context.flows.add(this);
    client
      .on('data', this.#onData)
      .on('end', this.#onEnd)
      .on('error', this.#onGone)
      .on('close', this.#onGone);
    this.#begin();
  }

  isBusy(): boolean {
    return true;
  }

  checkIdle(nowMs: number): void {
    this.#relay?.checkIdle(nowMs);
  }

  /** Ends the flow at once, both sides with RST. */
  abort(reason: CloseReason): void {
    if (this.#relay !== undefined) this.#relay.abort(reason);
    else this.#refuse(reason);
  }

  #begin(): void {
    const { trusts, timeouts, group } = this.#plan;
    const { peer } = this.#flow;
    if (trusts !== undefined && !trusts(peer.address)) return this.#badHeader('header-untrusted');
    if (!this.#takePlace(peer)) return;
    count(group.counters, 'tcpFlows');
    count(group.counters, 'tcpFlowsActive');
    this.#counted = true;
    if (trusts === undefined) this.#decide();
    else this.#headerTimer = setTimeout(() => this.#badHeader('header-timeout'), timeouts.headerMs);
    this.#client.resume();
  }

  /** Also for a flow whose client a header has made known: then it is counted by that client. */
  #takePlace(client: Endpoint): boolean {
    const { group, limits } = this.#plan;
    if (this.#place !== undefined) this.#context.admission.release(this.#place);
    const place = this.#context.admission.admit(group, limits, 'tcp', client.address);
    this.#place = typeof place === 'string' ? undefined : place;
    if (typeof place === 'string') this.#refuse(place);
    return typeof place !== 'string';
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#early.push(chunk);
    if (this.#headerTimer === undefined) this.#client.pause();
    else this.#readHeader();
  };

  readonly #onEnd = (): void => {
    if (!endedCleanly(this.#client)) return this.#onGone();
    this.#clientEnded = true;
    if (this.#headerTimer === undefined) return;
    if (this.#early.length === 0) this.#onGone();
    else this.#badHeader('header-invalid');
  };

  readonly #onGone = (): void => {
    this.#refuse('client-gone');
  };

  #readHeader(): void {
    const bytes = this.#early.length === 1 && this.#early[0] ? this.#early[0] : Buffer.concat(this.#early);
    const decoded = decode(bytes, 'tcp');
    this.#early = [bytes];
    if (decoded.state === 'more') return;
    if (decoded.state === 'error') {
      this.#badHeader(decoded.error === 'not-proxy' ? 'header-missing' : 'header-invalid');
      return;
    }
    clearTimeout(this.#headerTimer);
    this.#headerTimer = undefined;
    this.#client.pause();
    this.#early = bytes.length > decoded.length ? [bytes.subarray(decoded.length)] : [];
    const { source, destination } = decoded.header;
    if (source !== undefined && destination !== undefined) {
      this.#flow = { ...this.#flow, client: source, dialled: destination };
      if (!this.#takePlace(source)) return;
    }
    if (this.#early.length === 0) this.#client.resume();
    this.#decide();
  }

  #badHeader(reason: CloseReason): void {
    count(this.#plan.group.counters, 'headerErrors');
    this.#refuse(reason);
  }

  #decide(): void {
    const verdict = this.#plan.decide(this.#flow);
    if ('refuse' in verdict) {
      if (verdict.refuse !== 'no-upstream') count(this.#plan.group.counters, 'refusedByAccess');
      this.#refuse(verdict.refuse);
    } else this.#connect(verdict);
  }

  #connect(verdict: Exclude<Verdict, { refuse: unknown }>): void {
    this.#preferred = verdict.upstreams[0];
    this.#uniqueId = makeUniqueId(verdict.announce);
    this.#race = new Race(verdict.upstreams, this.#plan.timeouts, this.#context.failed.tcp, dial, (result) =>
      this.#connected(result, verdict),
    );
  }

  #connected(result: RaceResult<Dialled>, verdict: Exclude<Verdict, { refuse: unknown }>): void {
    this.#race = undefined;
    if ('failure' in result) {
      count(this.#plan.group.counters, failureCounter[result.failure]);
      return this.#refuse(result.failure);
    }
    this.#upstream = result.upstream;
    if (this.#isFallback()) count(this.#plan.group.counters, 'fallbacks');
    this.#startRelay(result.attempt.socket, headerBytes(verdict.announce, 'tcp', this.#uniqueId));
  }

  #startRelay(upstream: Socket, header: Buffer | undefined): void {
    const client = this.#client;
    client
      .off('data', this.#onData)
      .off('end', this.#onEnd)
      .off('error', this.#onGone)
      .off('close', this.#onGone);
    const { group, timeouts } = this.#plan;
    this.#relay = new Relay(client, upstream, group.counters, timeouts, this.#context.clock, (reason) =>
      this.#close(reason),
    );
    this.#relay.start(header, this.#early, this.#clientEnded);
    this.#early = [];
  }

  #refuse(reason: CloseReason): void {
    if (this.#closed) return;
    this.#race?.cancel();
    clearTimeout(this.#headerTimer);
    this.#client.on('error', ignore);
    reset(this.#client);
    this.#close(reason);
  }

  #close(reason: CloseReason): void {
    this.#closed = true;
    this.#context.flows.delete(this);
    if (this.#place !== undefined) this.#context.admission.release(this.#place);
    if (this.#counted) count(this.#plan.group.counters, 'tcpFlowsActive', -1);
    this.#plan.ended(this.#record(reason));
  }

  #record(reason: CloseReason): FlowRecord {
    return {
      rule: this.#plan.rule,
      flow: this.#flow,
      upstream: this.#upstream,
      fallback: this.#isFallback(),
      uniqueId: this.#uniqueId,
      bytes: this.#relay?.bytes ?? [0, 0],
      durationMs: performance.now() - this.#startedMs,
      reason,
    };
  }

  #isFallback(): boolean {
    return (
      this.#upstream !== undefined &&
      this.#preferred !== undefined &&
      !equalEndpoint(this.#upstream, this.#preferred)
    );
  }
}

function dial(upstream: Endpoint, outcome: (failure?: ConnectFailure) => void): Dialled {
  const socket = connect({ ...socketOptions, host: formatHost(upstream), port: upstream.port });
  const failed = (error: NodeJS.ErrnoException) => outcome(connectFailure(error.code));
  socket.once('error', failed);
  socket.once('connect', () => {
    socket.off('error', failed);
    outcome();
  });
  return { socket, abandon: () => abandon(socket) };
}

function abandon(socket: Socket): void {
  socket.on('error', ignore);
  socket.destroy();
}

function ignore(): void {}
