/**
 * Which client has which pseudo address. A client is a network: an IPv4 address, or what counts as one client of
 * IPv6 (a /64 by default, since hosts change their addresses inside it).
 *
 *   network ── keyed hash ──► 1st, 2nd, 3rd … address of its own ──► the first that nobody else has
 *
 * The hash has a secret, so nobody can choose to have another's address; and since a client's first address is free
 * nearly always (of 20,000 clients in 240.0.0.0/4 one has its second, of 200,000 about 75), it stays the same even where
 * the table is lost. The table is what makes "nearly" into "always", and what leads from an address back to its client.
 *
 * It has a bound. At the bound a new client gets the place of the one that has gone longest without a flow, never of
 * one that has a flow: an address means one client for as long as anybody can see it.
 */
import { createHmac } from 'node:crypto';
import { type Address, isIpv4, isLinkLocal } from '../net/address.ts';
import { type Cidr, masked } from '../net/cidr.ts';
import { addressOf, type PseudoRange } from './range.ts';

/** Most clients that are remembered: at 64 bytes each on disk and some 350 in memory. */
const mostEntries = 262_144;

/** How old the time of a client's last use may be on disk. */
const saveAgainS = 24 * 3600;

/** Of one hash come this many addresses, and of one client this many hashes: 20 ms for whom there is none. */
const picksPerHash = 8;
const mostRounds = 4096;

/** What is kept of a client over restarts. */
export interface SavedEntry {
  /** The network's 16 bytes, as characters. */
  readonly key: string;
  readonly bits: number;
  readonly number: number;
  /** Seconds since the epoch. */
  readonly usedS: number;
}

/** A client and its address; also what its flows hold while they use it. */
export class PseudoEntry {
  /** The network's 16 bytes, as characters. */
  readonly key: string;
  readonly bits: number;
  readonly number: number;
  /** When it last began or ended to be used, in seconds since the epoch. */
  usedS: number;
  /** The same, as it is on disk; 0 is never. */
  savedS: number;
  flows = 0;
  readonly #table: PseudoTable;
  /** Made when it is asked for: of most of those that are known nobody comes. */
  #address: Address | undefined;

  constructor(table: PseudoTable, key: string, bits: number, number: number, usedS: number) {
    this.#table = table;
    this.key = key;
    this.bits = bits;
    this.number = number;
    this.usedS = usedS;
    this.savedS = 0;
  }

  begin(): void {
    this.flows++;
    this.#table.began(this);
  }

  end(): void {
    this.flows--;
    this.#table.ended(this);
  }

  get address(): Address {
    this.#address ??= addressOf(this.number);
    return this.#address;
  }

  get network(): Cidr {
    return { address: addressOfKey(this.key), bits: this.bits };
  }
}

export class PseudoTable {
  /** At most this many clients, so that at least half of the addresses are free for the next. */
  readonly capacity: number;
  readonly #secret: Buffer;
  readonly #range: PseudoRange;
  readonly #nowS: () => number;
  readonly #byKey = new Map<string, PseudoEntry>();
  readonly #byNumber = new Map<number, PseudoEntry>();
  /** Those without a flow, the longest unused first. */
  readonly #idle = new Set<PseudoEntry>();
  readonly #unsaved = new Set<PseudoEntry>();

  /** @param nowS seconds since the epoch */
  constructor(
    secret: Buffer,
    range: PseudoRange,
    nowS: () => number = () => Math.floor(Date.now() / 1000),
    most: number = mostEntries,
  ) {
    this.#secret = secret;
    this.#range = range;
    this.#nowS = nowS;
    this.capacity = Math.max(1, Math.min(most, Math.floor(range.usable / 2)));
  }

  get size(): number {
    return this.#byKey.size;
  }

  /** The client's entry, made when it has none. */
  of(network: Cidr): PseudoEntry {
    const key = keyOf(network);
    return this.#byKey.get(key) ?? this.#assign(network, key);
  }

  known(network: Cidr): PseudoEntry | undefined {
    return this.#byKey.get(keyOf(network));
  }

  /** Whose address this is. */
  at(number: number): PseudoEntry | undefined {
    return this.#byNumber.get(number);
  }

  /** False when a new client could only have the place of one that has a flow. */
  hasRoomFor(network: Cidr): boolean {
    return this.size < this.capacity || this.#idle.size > 0 || this.known(network) !== undefined;
  }

  /** Which address a client would get that is not known yet. */
  foresee(network: Cidr): number {
    return this.#freeNumber(network, keyOf(network));
  }

  /** What was saved; the last word on a client or an address counts. False when it cannot be in this table. */
  restore({ key, bits, number, usedS }: SavedEntry): boolean {
    if (!this.#range.has(number)) return false;
    const [before, holder] = [this.#byKey.get(key), this.#byNumber.get(number)];
    if (before !== undefined) this.#forget(before);
    if (holder !== undefined) this.#forget(holder);
    if (this.size >= this.capacity) this.#makeRoom();
    this.#add(key, bits, number, usedS).savedS = usedS;
    return true;
  }

  /** The longest unused first. */
  entries(): readonly PseudoEntry[] {
    const used = [...this.#byKey.values()].filter(({ flows }) => flows > 0);
    return [...this.#idle, ...used];
  }

  get hasUnsaved(): boolean {
    return this.#unsaved.size > 0;
  }

  /** Some of those that are not saved as they are; they count as saved from now on. */
  takeUnsaved(most: number): readonly PseudoEntry[] {
    const taken: PseudoEntry[] = [];
    for (const entry of this.#unsaved) {
      if (taken.length === most) break;
      this.#unsaved.delete(entry);
      entry.savedS = entry.usedS;
      taken.push(entry);
    }
    return taken;
  }

  /** They could not be saved. */
  putBack(entries: readonly PseudoEntry[]): void {
    for (const entry of entries) if (this.#byKey.get(entry.key) === entry) this.#unsaved.add(entry);
  }

  began(entry: PseudoEntry): void {
    this.#idle.delete(entry);
    this.#touch(entry);
  }

  ended(entry: PseudoEntry): void {
    this.#touch(entry);
    if (entry.flows === 0) this.#idle.add(entry);
  }

  #touch(entry: PseudoEntry): void {
    entry.usedS = this.#nowS();
    if (entry.usedS - entry.savedS >= saveAgainS) this.#unsaved.add(entry);
  }

  #assign(network: Cidr, key: string): PseudoEntry {
    if (this.size >= this.capacity) this.#makeRoom();
    const entry = this.#add(key, network.bits, this.#freeNumber(network, key), this.#nowS());
    this.#unsaved.add(entry);
    return entry;
  }

  #add(key: string, bits: number, number: number, usedS: number): PseudoEntry {
    const entry = new PseudoEntry(this, key, bits, number, usedS);
    this.#byKey.set(key, entry);
    this.#byNumber.set(number, entry);
    this.#idle.add(entry);
    return entry;
  }

  /** With every client in use the table grows: whoever is let in then is known not to be more than a few. */
  #makeRoom(): void {
    const oldest = this.#idle.values().next().value;
    if (oldest !== undefined) this.#forget(oldest);
  }

  #forget(entry: PseudoEntry): void {
    this.#byKey.delete(entry.key);
    this.#byNumber.delete(entry.number);
    this.#idle.delete(entry);
    this.#unsaved.delete(entry);
  }

  /** At least half of the addresses are free, so this is the first or second one nearly always, and never far. */
  #freeNumber(network: Cidr, key: string): number {
    for (let round = 0; round < mostRounds; round++) {
      const hash = createHmac('sha256', this.#secret)
        .update(key, 'latin1')
        .update(Uint8Array.of(network.bits, round >> 8, round & 0xff))
        .digest();
      for (let i = 0; i < picksPerHash; i++) {
        const number = this.#range.pick(hash.readUInt32BE(4 * i));
        if (number !== undefined && !this.#byNumber.has(number)) return number;
      }
    }
    throw new Error('no pseudo address is free');
  }
}

/**
 * What of an address is one client. Link-local hosts share their prefix with all others of their link, and ::/8 is
 * where addresses are that embed another one.
 */
export function clientNetwork(client: Address, unitBits: number): Cidr {
  if (isIpv4(client) || isLinkLocal(client) || client[0] === 0) return { address: client, bits: 128 };
  return { address: masked(client, unitBits), bits: unitBits };
}

/** 16 bytes as characters, to look up by. */
function keyOf({ address }: Cidr): string {
  // A sixth of what a Buffer and its toString take, and asked for each flow.
  return Reflect.apply(String.fromCharCode, undefined, address);
}

export function addressOfKey(key: string): Address {
  return Uint8Array.from(Buffer.from(key, 'latin1'));
}
