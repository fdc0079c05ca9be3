/**
 * Source ports that no datagram honestly comes from. Nobody can be answered at port 0; echo, daytime, quote of the
 * day, character generator and time answer whatever they get, and so would we at our own ports: two services
 * answering each other for ever.
 */
import { networkInterfaces } from 'node:os';
import { type Endpoint, endpointKey, equalAddress, isLoopback, tryParseZoned } from '../net/address.ts';
import { ListenerPorts, type Passage } from './passage.ts';

/** As native/udp-batch.c has them. */
const dropped: ReadonlySet<number> = new Set([0, 7, 13, 17, 19, 37]);

/** Of whoever sends from there every datagram is dropped. */
export function isDroppedSource(port: number): boolean {
  return port < 64 && dropped.has(port);
}

/** Our own: of listeners, and of flows whose upstream is at a port of a listener. */
export class UdpPorts extends ListenerPorts {
  readonly #flows = new Map<string, Passage>();

  /** The system is asked for its addresses only when the port is one of ours, which it hardly ever is. */
  isOwn(peer: Endpoint): boolean {
    return this.has(peer.port) && isOwnAddress(peer);
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
}

function keyOf({ address, port }: Endpoint): string {
  return endpointKey({ address, port, zone: '' });
}

function isOwnAddress(peer: Endpoint): boolean {
  if (isLoopback(peer.address)) return true;
  return Object.values(networkInterfaces()).some((addresses) =>
    addresses?.some(({ address }) => {
      const own = tryParseZoned(address);
      return own !== undefined && equalAddress(own.address, peer.address);
    }),
  );
}
