/**
 * The life of one TCP flow from accept to its record. Whose sockets they are is the business of an engine,
 * which fills in the abstract part.
 *
 *   header ──► connecting ──► relaying ──► closed
 *      └── refused ── no upstream ── client gone ──► closed
 *
 * header: only when the rule has trusted peers; bytes are collected until the PROXY header is whole, nothing is
 * connected before. connecting: what the client sends meanwhile waits, so that header and first payload leave
 * in one write. Every way to `closed` goes through `close`, which gives the place back and makes the one record.
 */
import { count } from '../flow/counters.ts';
import type {
  Announcement,
  Approach,
  ApproachTo,
  CloseReason,
  FlowRecord,
  Lease,
  NewFlow,
  PlainReason,
} from '../flow/flow.ts';
import { type Endpoint, equalEndpoint } from '../net/address.ts';
import { decode } from '../proxy-protocol/codec.ts';
import type { Place, RuleGroup } from './admission.ts';
import { headerBytes, makeUniqueId } from './announce.ts';
import { plainCounter, refusalCounter } from './approach.ts';
import type { EngineContext, SweptFlow } from './context.ts';
import type { Plan } from './engine.ts';
import { isCircle, type Passage } from './passage.ts';
import { type Attempt, type Dial, failureCounter, Race, type RaceResult } from './race.ts';

const noBytes = [0, 0] as const;

export abstract class TcpFlow<A extends Attempt> implements SweptFlow {
  protected readonly plan: Plan;
  /** What the client sent that is not the relay's yet. */
  protected early: Buffer[] = [];
  protected clientEnded = false;
  readonly #context: EngineContext;
  readonly #startedMs = performance.now();
  #place: Place | undefined;
  #flow: NewFlow;
  #headerTimer: NodeJS.Timeout | undefined;
  #race: Race<A> | undefined;
  #announce: Announcement | undefined;
  #upstream: Endpoint | undefined;
  #preferred: Endpoint | undefined;
  #uniqueId: string | undefined;
  #source: Endpoint | undefined;
  #plain: PlainReason | undefined;
  #lease: Lease | undefined;
  #lastTried: { readonly upstream: Endpoint; readonly approach: Approach } | undefined;
  /** The rules it came through before it came to this one. */
  readonly #came: Passage | undefined;
  /** Of connections that may come back to us: what to call when the flow is over. */
  #forget: (() => void)[] | undefined;
  #counted = false;
  #relaying = false;
  #closed = false;

  constructor(context: EngineContext, plan: Plan, peer: Endpoint, local: Endpoint) {
    this.#context = context;
    this.plan = plan;
    this.#flow = { protocol: 'tcp', peer, local, client: peer, dialled: local };
    this.#came = context.tcpPassages.of(peer, local);
    context.flows.add(this);
  }

  isBusy(): boolean {
    return true;
  }

  checkIdle(nowMs: number): void {
    if (this.#relaying) this.checkRelay(nowMs);
  }

  /** Ends the flow at once, both sides with RST. */
  abort(reason: CloseReason): void {
    if (this.#relaying) this.abortRelay(reason);
    else this.#refuse(reason);
  }

  abandon(group: RuleGroup): void {
    if (this.#race !== undefined && this.plan.group === group) this.#refuse('rule-changed');
  }

  /** Starts to connect. */
  protected abstract readonly dial: Dial<A>;
  /** The port of this host that an attempt is connected from. */
  protected abstract portOf(attempt: A): number;
  /** The same of an attempt that has just begun; 0 when it has failed at once. */
  protected abstract withPort(attempt: A, then: (port: number) => void): void;
  /** Reads on from the client, which may have something already. */
  protected abstract wakeClient(): void;
  /** Leaves what the client sends in its socket. */
  protected abstract holdClient(): void;
  protected abstract resetClient(): void;
  /** Both sockets are the relay's from now on; it ends with a call of `close`. */
  protected abstract startRelay(attempt: A, header: Buffer | undefined): void;
  /** Called once per sweep. */
  protected abstract checkRelay(nowMs: number): void;
  protected abstract abortRelay(reason: CloseReason): void;
  /** Payload by the side it came from. */
  protected abstract relayedBytes(): readonly [number, number];

  /** To be called once the subclass is whole. */
  protected begin(): void {
    const { trusts, timeouts, group } = this.plan;
    const { peer } = this.#flow;
    if (trusts !== undefined && !trusts(peer.address)) return this.#badHeader('header-untrusted');
    if (isCircle(this.#came, group)) {
      count(group.counters, 'refusedAsLoop');
      return this.#refuse('loop');
    }
    if (!this.#takePlace(peer)) return;
    count(group.counters, 'tcpFlows');
    count(group.counters, 'tcpFlowsActive');
    this.#counted = true;
    if (trusts === undefined) this.#decide();
    else this.#headerTimer = setTimeout(() => this.#badHeader('header-timeout'), timeouts.headerMs);
    if (!this.#closed) this.wakeClient();
  }

  protected get awaitsHeader(): boolean {
    return this.#headerTimer !== undefined;
  }

  /** The client sent this before it was relayed. */
  protected received(chunk: Buffer): void {
    this.early.push(chunk);
    if (this.awaitsHeader) this.#readHeader();
    else this.holdClient();
  }

  /** The client ended its side before it was relayed. */
  protected ended(): void {
    this.clientEnded = true;
    if (!this.awaitsHeader) return;
    if (this.early.length === 0) this.gone();
    else this.#badHeader('header-invalid');
  }

  /** The client left before it was relayed. */
  protected gone(): void {
    this.#refuse('client-gone');
  }

  protected close(reason: CloseReason): void {
    this.#closed = true;
    this.#context.flows.delete(this);
    if (this.#place !== undefined) this.#context.release(this.#place);
    this.#lease?.end();
    for (const forget of this.#forget ?? []) forget();
    if (this.#counted) count(this.plan.group.counters, 'tcpFlowsActive', -1);
    this.plan.ended(this.#record(reason));
  }

  /** Also for a flow whose client a header has made known: then it is counted by that client. */
  #takePlace(client: Endpoint): boolean {
    const { group, limits } = this.plan;
    if (this.#place !== undefined) this.#context.release(this.#place);
    const place = this.#context.admission.admit(group, limits, 'tcp', client.address);
    this.#place = typeof place === 'string' ? undefined : place;
    if (typeof place === 'string') this.#refuse(place);
    return typeof place !== 'string';
  }

  #readHeader(): void {
    const [first] = this.early;
    const bytes = this.early.length === 1 && first ? first : Buffer.concat(this.early);
    const decoded = decode(bytes, 'tcp');
    this.early = [bytes];
    if (decoded.state === 'more') return;
    if (decoded.state === 'error') {
      this.#badHeader(decoded.error === 'not-proxy' ? 'header-missing' : 'header-invalid');
      return;
    }
    clearTimeout(this.#headerTimer);
    this.#headerTimer = undefined;
    this.holdClient();
    this.early = bytes.length > decoded.length ? [bytes.subarray(decoded.length)] : [];
    const { source, destination } = decoded.header;
    if (source !== undefined && destination !== undefined) {
      this.#flow = { ...this.#flow, client: source, dialled: destination };
      if (!this.#takePlace(source)) return;
    }
    if (this.early.length === 0) this.wakeClient();
    this.#decide();
  }

  #badHeader(reason: CloseReason): void {
    count(this.plan.group.counters, 'headerErrors');
    this.#refuse(reason);
  }

  #decide(): void {
    const verdict = this.plan.decide(this.#flow);
    if ('refuse' in verdict) {
      const counter = refusalCounter[verdict.refuse];
      if (counter !== undefined) count(this.plan.group.counters, counter);
      return this.#refuse(verdict.refuse);
    }
    this.#preferred = verdict.upstreams[0];
    this.#announce = verdict.announce;
    this.#uniqueId = makeUniqueId(verdict.announce);
    const { upstreams, late } = verdict;
    const { failed } = this.#context;
    const { approach, timeouts } = this.plan;
    const dial = this.#remembering(approach === undefined ? this.dial : this.#approaching(approach));
    this.#race = new Race(upstreams, timeouts, failed.tcp, dial, this.#connected, late);
  }

  /** Who leads back to us is to be known when it comes. */
  #remembering(dial: Dial<A>): Dial<A> {
    const { tcpPassages } = this.#context;
    return (upstream, outcome) => {
      const attempt = dial(upstream, outcome);
      if (tcpPassages.ports.has(upstream.port)) this.withPort(attempt, (port) => this.#left(port, upstream));
      return attempt;
    };
  }

  #left(port: number, upstream: Endpoint): void {
    if (port === 0 || this.#closed) return;
    const passage = { group: this.plan.group, before: this.#came };
    this.#forget ??= [];
    this.#forget.push(this.#context.tcpPassages.leave(port, upstream, passage));
  }

  #approaching(approach: ApproachTo): Dial<A> {
    return (upstream, outcome) => {
      const tried = approach(this.#flow, upstream);
      const { source, lease } = tried;
      this.#lastTried = { upstream, approach: tried };
      // All that one flow leases is its client's.
      if (lease !== undefined && this.#lease === undefined) {
        this.#lease = lease;
        lease.begin();
      }
      this.#source = source;
      return this.dial(upstream, outcome, source);
    };
  }

  /** What holds of the upstream that won. */
  #approached(approach: ApproachTo, upstream: Endpoint, attempt: A): void {
    const last = this.#lastTried;
    // Where another one was tried since, what was said of this one is asked again.
    const tried = last?.upstream === upstream ? last.approach : approach(this.#flow, upstream);
    const { source, announce, plain } = tried;
    this.#announce = announce;
    this.#uniqueId = makeUniqueId(announce);
    this.#source = source && { ...source, port: this.portOf(attempt) };
    this.#plain = plain;
    if (plain !== undefined) count(this.plan.group.counters, plainCounter[plain]);
  }

  readonly #connected = (result: RaceResult<A>): void => {
    this.#race = undefined;
    if ('failure' in result) {
      count(this.plan.group.counters, failureCounter[result.failure]);
      return this.#refuse(result.failure);
    }
    this.#upstream = result.upstream;
    if (this.plan.approach !== undefined)
      this.#approached(this.plan.approach, result.upstream, result.attempt);
    if (this.#isFallback()) count(this.plan.group.counters, 'fallbacks');
    this.#relaying = true;
    this.startRelay(result.attempt, headerBytes(this.#announce, 'tcp', this.#uniqueId));
    this.early = [];
  };

  #refuse(reason: CloseReason): void {
    if (this.#closed) return;
    this.#race?.cancel();
    clearTimeout(this.#headerTimer);
    this.#headerTimer = undefined;
    this.resetClient();
    this.close(reason);
  }

  #record(reason: CloseReason): FlowRecord {
    return {
      rule: this.plan.rule,
      flow: this.#flow,
      upstream: this.#upstream,
      source: this.#source,
      plain: this.#plain,
      fallback: this.#isFallback(),
      uniqueId: this.#uniqueId,
      bytes: this.#relaying ? this.relayedBytes() : noBytes,
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
