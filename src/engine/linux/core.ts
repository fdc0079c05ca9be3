/**
 * The native core as objects: its calls with endpoints instead of memory, and its events handed to whoever
 * owns the slot they are about. While events are handed out the core itself is the event: nothing is allocated
 * for one that nobody reads.
 *
 * A slot is used again from the next poll on, and each batch is handed out whole before that: a number means
 * one socket for as long as its owner can hear of it. Events of slots that were given up meanwhile have no owner.
 */
import { constants } from 'node:os';
import { getSystemErrorMap, getSystemErrorName } from 'node:util';
import { type CounterName, type Counters, counterIndex } from '../../flow/counters.ts';
import type { Source } from '../../flow/flow.ts';
import { type Endpoint, formatHost } from '../../net/address.ts';
import type { ReplyBudget } from '../reply-budget.ts';
import {
  endpointBytes,
  eventBytes,
  eventKind,
  layoutFor,
  maxEvents,
  sourceEndpoint,
  sourceKind,
} from './layout.ts';
import type { CoreHandle, Native } from './native.ts';
import { Zones } from './zones.ts';

/** Hears of what happens to a slot; a listener also of those it accepted. */
export interface SlotOwner {
  /** @param core the event: its kind, slot and value, and what the methods read of it */
  happened(core: Core): void;
}

/** The kernel cuts it to net.core.somaxconn, 4096 by default since Linux 5.4. */
const backlog = 4096;

/** Within an event, as native/core.h has it. */
const peerOffset = 24;
const localOffset = 48;

/** In the order of `struct counters`. */
const countedNames: readonly CounterName[] = [
  'bytesFromClient',
  'bytesFromUpstream',
  'datagramsFromClient',
  'datagramsFromUpstream',
  'resets',
  'droppedSource',
  'droppedOversize',
  'droppedQueue',
  'droppedBudget',
];
const countedPlaces = Int32Array.from(countedNames, (name) => counterIndex[name]);

/** What a read says when there is nothing yet. */
export const nothingYet: number = -constants.errno.EAGAIN;

/** The name of an errno, positive or, as calls give it, negative. */
export function errnoName(errno: number): string {
  return getSystemErrorName(-Math.abs(errno));
}

const noBudget: ReplyBudget = { datagrams: 0, bytes: 0, factor: 0, bytesPerSecond: 0 };

export class Core {
  /** By slot: payload that came from this socket; of a UDP flow, from the client. */
  readonly bytes: Float64Array;
  /** Of a UDP flow: payload that came from the upstream. */
  readonly answerBytes: Float64Array;
  /** When the last byte came, by `now`. */
  readonly activeMs: Float64Array;
  /** 1 once this direction has ended. */
  readonly ended: Uint8Array;
  /** The event at hand. */
  kind = 0;
  slot = 0;
  value = 0;
  readonly #native: Native;
  readonly #handle: CoreHandle;
  readonly #memory: Uint8Array;
  readonly #words: Int32Array;
  readonly #ports: Uint16Array;
  readonly #endpoints: number;
  readonly #arena: number;
  readonly #owners: (SlotOwner | undefined)[];
  readonly #zones = new Zones();
  readonly #scratch = Buffer.allocUnsafeSlow(16 * 1024);
  /** Where the event at hand begins. */
  #at = 0;
  #lastLocal: Endpoint = { address: new Uint8Array(16), zone: '', port: 0 };
  #open = true;

  /** @param slots most sockets at once */
  constructor(native: Native, slots: number) {
    const layout = layoutFor(slots);
    const memory = new Uint8Array(layout.total);
    const { buffer } = memory;
    this.bytes = new Float64Array(buffer, layout.bytes, slots);
    this.answerBytes = new Float64Array(buffer, layout.answerBytes, slots);
    this.activeMs = new Float64Array(buffer, layout.activeMs, slots);
    this.ended = new Uint8Array(buffer, layout.ended, slots);
    this.#native = native;
    this.#memory = memory;
    this.#words = new Int32Array(buffer, 0, layout.bytes / 4);
    this.#ports = new Uint16Array(buffer, 0, layout.bytes / 2);
    this.#endpoints = layout.endpoints;
    this.#arena = layout.arena;
    this.#owners = new Array<SlotOwner | undefined>(slots).fill(undefined);
    this.#handle = native.open(memory, slots);
    native.watch(this.#handle, (count) => this.#handOut(count));
  }

  /** Bits of `enum fallback`: what was tried and cannot be done here. */
  get fallbacks(): number {
    return this.#open ? this.#native.fallbacks(this.#handle) : 0;
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /** Closes every socket; not to be called while events are handed out. */
  shut(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#native.unwatch(this.#handle);
    this.#native.shut(this.#handle);
  }

  /** The clock of `activeMs`. */
  now(): number {
    return this.#native.now();
  }

  own(slot: number, owner: SlotOwner): void {
    this.#owners[slot] = owner;
  }

  /** The socket is closed already, or is another owner's business: nobody hears of it any more. */
  disown(slot: number): void {
    this.#owners[slot] = undefined;
  }

  close(slot: number, reset: boolean): void {
    this.#owners[slot] = undefined;
    if (this.#open) this.#native.close(this.#handle, slot, reset);
  }

  /* The event at hand */

  peer(): Endpoint {
    return this.#endpointAt(this.#at + peerOffset);
  }

  /** Hardly ever another than the last one, which is given again then. */
  local(): Endpoint {
    const at = this.#at + localOffset;
    const { address, port } = this.#lastLocal;
    const sameAddress = Buffer.compare(address, this.#memory.subarray(at, at + 16)) === 0;
    if (!sameAddress || port !== this.#ports[at / 2 + 10] || this.#words[at / 4 + 4] !== 0) {
      this.#lastLocal = this.#endpointAt(at);
    }
    return this.#lastLocal;
  }

  /** Peer and local address as one Map key. */
  pair(): string {
    const { buffer } = this.#memory;
    return Buffer.from(buffer as ArrayBuffer, this.#at + peerOffset, 2 * endpointBytes).toString('latin1');
  }

  /** Of the process that hands a socket over; 0 where it is not known here. */
  pid(): number {
    return (this.#words[this.#at / 4 + 5] ?? 0) >>> 0;
  }

  /** The datagram's or record's payload, in memory that is used again when this batch has been handed out. */
  payload(): Buffer {
    const word = this.#at / 4;
    const length = this.#words[word + 3] ?? 0;
    const offset = this.#words[word + 4] ?? 0;
    return Buffer.from(this.#memory.buffer as ArrayBuffer, this.#arena + offset, length);
  }

  /* Listeners */

  /** @throws the system's error */
  listenTcp(at: Endpoint): number {
    this.#setEndpoint(0, at);
    return this.#listening(this.#native.tcpListen(this.#handle, backlog), at);
  }

  /** @throws the system's error */
  listenUdp(at: Endpoint, counters: number): number {
    this.#setEndpoint(0, at);
    return this.#listening(this.#native.udpListen(this.#handle, counters), at);
  }

  /**
   * Binds an address for the cores of several threads: a descriptor for each of them to adopt, or for none.
   *
   * @throws the system's error
   */
  bindGroup(at: Endpoint, isUdp: boolean, count: number): readonly number[] {
    const descriptors = new Int32Array(count);
    this.#setEndpoint(0, at);
    this.#listening(this.#native.bindGroup(this.#handle, isUdp, backlog, descriptors), at);
    return [...descriptors];
  }

  /**
   * Takes over a socket that is bound and, for TCP, listens; one that cannot be taken over is closed.
   *
   * @throws the system's error
   */
  adopt(descriptor: number, isUdp: boolean, counters: number): number {
    const slot = this.#native.adopt(this.#handle, descriptor, isUdp, counters);
    if (slot < 0) throw systemError(slot, 'take over', 'a socket');
    return slot;
  }

  /** Where a socket is bound on this host; of a UDP flow, that of its upstream's side. */
  localOf(slot: number): Endpoint {
    this.#native.local(this.#handle, slot);
    return this.#endpointAt(this.#endpoints);
  }

  /** Returns whether it could be done: to be told of clients takes memory of the kernel. */
  accepting(listener: number, on: boolean): boolean {
    return this.#open && this.#native.accepting(this.#handle, listener, on) >= 0;
  }

  /* Sockets that other processes hand over */

  /** @throws the system's error */
  listenHandover(path: string, most: number): number {
    const slot = this.#native.handoverListen(this.#handle, Buffer.from(path), most);
    if (slot < 0) throw systemError(slot, 'listen', path);
    return slot;
  }

  /** A descriptor, or -errno. */
  takeHanded(giver: number): number {
    return this.#native.handoverTake(this.#handle, giver);
  }

  /** Whoever does not listen any more is told in vain. */
  answerGiver(giver: number, record: string): void {
    if (this.#open) this.#native.handoverAnswer(this.#handle, giver, Buffer.from(record));
  }

  /* TCP */

  /** A slot whose outcome comes as an event, or -errno. */
  connect(to: Endpoint, source: Source | undefined): number {
    this.#setEndpoint(0, to);
    return this.#native.connect(this.#handle, this.#setSource(source));
  }

  /** What has come, as a copy; no bytes at the end, and a negative number for {@link nothingYet} or an errno. */
  read(slot: number): Buffer | number {
    const length = this.#native.read(this.#handle, slot, this.#scratch);
    return length < 0 ? length : Buffer.from(this.#scratch.subarray(0, length));
  }

  relay(
    client: number,
    upstream: number,
    early: Buffer | undefined,
    payload: number,
    clientEnded: boolean,
    counters: number,
  ): number {
    return this.#native.relay(this.#handle, client, upstream, early, payload, clientEnded, counters);
  }

  /** Has the kernel find out when this upstream is dead. */
  keepAlive(upstream: number): void {
    this.#native.keepAlive(this.#handle, upstream);
  }

  abortRelay(client: number, upstream: number): void {
    this.disown(client);
    this.disown(upstream);
    this.#native.relayAbort(this.#handle, client);
  }

  /* UDP */

  /** A slot, or -errno. */
  openUdpFlow(
    listener: number,
    peer: Endpoint,
    local: Endpoint,
    upstream: Endpoint,
    source: Source | undefined,
    counters: number,
  ): number {
    this.#setEndpoint(0, peer);
    this.#setEndpoint(1, local);
    this.#setEndpoint(2, upstream);
    return this.#native.udpFlow(this.#handle, listener, counters, this.#setSource(source));
  }

  connectUdp(flow: number, upstream: Endpoint, source: Source | undefined): number {
    this.#setEndpoint(0, upstream);
    return this.#native.udpConnect(this.#handle, flow, this.#setSource(source));
  }

  inspectUdp(slot: number, on: boolean): void {
    this.#native.udpInspect(this.#handle, slot, on);
  }

  /** For the flows of this listener that begin from now on; undefined: they may have any answer. */
  limitReplies(listener: number, budget: ReplyBudget | undefined): void {
    const { datagrams, bytes, factor, bytesPerSecond } = budget ?? noBudget;
    this.#native.udpBudget(this.#handle, listener, datagrams, bytes, factor, bytesPerSecond);
  }

  /** Undefined for nothing. */
  prefixUdp(flow: number, header: Buffer | undefined): void {
    this.#native.udpPrefix(this.#handle, flow, header);
  }

  sendUdp(flow: number, header: Buffer | undefined, payload: Buffer): number {
    return this.#native.udpSend(this.#handle, flow, header, payload);
  }

  /* Counters */

  /** Has the core add to this block, under the number that is returned. */
  countInto(block: Counters): number {
    return this.#native.countInto(this.#handle, block, countedPlaces);
  }

  forgetCounters(counters: number): void {
    if (this.#open) this.#native.forgetCounters(this.#handle, counters);
  }

  #handOut(count: number): void {
    const words = this.#words;
    for (let i = 0; i < count; i++) {
      this.#at = i * eventBytes;
      const word = this.#at / 4;
      this.kind = words[word] ?? 0;
      this.slot = words[word + 1] ?? 0;
      this.value = words[word + 2] ?? 0;
      // Who has just come has no owner yet but its listener.
      const isNew = this.kind === eventKind.accepted || this.kind === eventKind.handed;
      this.#owners[isNew ? this.value : this.slot]?.happened(this);
    }
  }

  /** The error says what one of node:net would. */
  #listening(slot: number, at: Endpoint): number {
    if (slot >= 0) return slot;
    throw Object.assign(systemError(slot, 'listen', formatHost(at)), { port: at.port });
  }

  /** What of the call's arguments says which kind it is. */
  #setSource(source: Source | undefined): number {
    if (source === undefined) return sourceKind.any;
    this.#setEndpoint(sourceEndpoint, source);
    return source.transparent ? sourceKind.foreign : sourceKind.local;
  }

  #setEndpoint(index: number, { address, zone, port }: Endpoint): void {
    const at = this.#endpoints + index * endpointBytes;
    this.#memory.set(address, at);
    this.#words[at / 4 + 4] = zone === '' ? 0 : this.#zones.indexOf(zone);
    this.#ports[at / 2 + 10] = port;
  }

  #endpointAt(at: number): Endpoint {
    const address = this.#memory.slice(at, at + 16);
    const zone = this.#zones.nameOf(this.#words[at / 4 + 4] ?? 0);
    return { address, zone, port: this.#ports[at / 2 + 10] ?? 0 };
  }
}

function systemError(errno: number, syscall: string, what: string): NodeJS.ErrnoException {
  const [code, text] = getSystemErrorMap().get(errno) ?? [errnoName(errno), 'unknown'];
  return Object.assign(new Error(`${syscall} ${code}: ${text} ${what}`), { code, errno, syscall });
}

/** Most sockets that other processes hand over; with the connections of their givers they fit into any table. */
export const mostHanded = 10_000;

/** Sockets beside those of flows: listeners, and what one poll may accept beyond the limit. */
const otherSlots = mostHanded + 2 * maxEvents;

/** How many slots do for this many flows: a TCP flow has two sockets, and a third while two upstreams race. */
export function slotsFor(maxFlows: number): number {
  return 3 * maxFlows + otherSlots;
}
