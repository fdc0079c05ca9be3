/**
 * Source ports that no datagram honestly comes from. Nobody can be answered at port 0; echo, daytime, quote of the
 * day, character generator and time answer whatever they get, and so would we at our own ports: two services
 * answering each other for ever.
 */
import { networkInterfaces } from 'node:os';
import { type Address, type Endpoint, endpointKey, isLoopback, tryParseZoned } from '../net/address.ts';
import { ListenerPorts, type Passage } from './passage.ts';

/** As native/udp-batch.c has them. */
const dropped: ReadonlySet<number> = new Set([0, 7, 13, 17, 19, 37]);

/** Of whoever sends from there every datagram is dropped. */
export function isDroppedSource(port: number): boolean {
  return port < 64 && dropped.has(port);
}

/**
 * For how long the host is taken to have the addresses it had. On one with many, as with many containers, asking costs
 * ten times what a new flow does, and whoever forges the port of a listener can have it asked for each datagram.
 */
const knownForMs = 1000;

/** Our own: of listeners, and of flows whose upstream is at a port of a listener. */
export class UdpPorts extends ListenerPorts {
  readonly #flows = new Map<string, Passage>();
  readonly #addresses: () => readonly Address[];
  readonly #now: () => number;
  #own: ReadonlySet<string> = new Set();
  #askedMs = Number.NEGATIVE_INFINITY;

  /**
   * @param addresses those of this host
   * @param now a monotonic clock in milliseconds
   */
  constructor(
    addresses: () => readonly Address[] = hostAddresses,
    now: () => number = () => performance.now(),
  ) {
    super();
    this.#addresses = addresses;
    this.#now = now;
  }

  /** The system is asked for its addresses only when the port is one of ours, which it hardly ever is. */
  isOwn(peer: Endpoint): boolean {
    return this.has(peer.port) && (isLoopback(peer.address) || this.#isOwnAddress(peer.address));
  }

  /**
   * A flow sends from there.
   *
   * @returns what to call when it is over
   */
  leave(from: Endpoint, passage: Passage): () => void {
    const key = keyOf(from);
    this.#flows.set(key, passage);
    return () => this.#flows.delete(key);
  }

  /** Of a client that is a flow of ours; undefined for anybody else. */
  passageOf(peer: Endpoint): Passage | undefined {
    return this.#flows.size === 0 ? undefined : this.#flows.get(keyOf(peer));
  }

  #isOwnAddress(address: Address): boolean {
    const nowMs = this.#now();
    if (nowMs - this.#askedMs >= knownForMs) {
      this.#askedMs = nowMs;
      this.#own = new Set(this.#addresses().map(addressKey));
    }
    return this.#own.has(addressKey(address));
  }
}

function keyOf({ address, port }: Endpoint): string {
  return endpointKey({ address, port, zone: '' });
}

function addressKey(address: Address): string {
  return keyOf({ address, port: 0, zone: '' });
}

function hostAddresses(): readonly Address[] {
  return Object.values(networkInterfaces()).flatMap((all = []) =>
    all.flatMap(({ address }) => tryParseZoned(address)?.address ?? []),
  );
}
