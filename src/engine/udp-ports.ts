/**
 * Source ports that no datagram honestly comes from. Nobody can be answered at port 0; echo, daytime, quote of the
 * day, character generator and time answer whatever they get, and so would we at our own ports: two services
 * answering each other for ever.
 */
import { networkInterfaces } from 'node:os';
import { type Endpoint, equalAddress, isLoopback, tryParseZoned } from '../net/address.ts';
import { ListenerPorts, type Passage } from './passage.ts';

/** As native/udp-batch.c has them. */
const dropped: ReadonlySet<number> = new Set([0, 7, 13, 17, 19, 37]);

/** Of whoever sends from there every datagram is dropped. */
export function isDroppedSource(port: number): boolean {
  return port < 64 && dropped.has(port);
}

/** Our own: of listeners, and of flows whose upstream is at a port of a listener. */
export class UdpPorts extends ListenerPorts {
  readonly #flows = new Map<number, Passage>();

  /** The system is asked for its addresses only when the port is one of ours, which it hardly ever is. */
  isOwn(peer: Endpoint): boolean {
    return this.has(peer.port) && isOwnAddress(peer);
  }

  /** A flow sends from this port. */
  leave(port: number, passage: Passage): void {
    this.#flows.set(port, passage);
  }

  forget(port: number): void {
    this.#flows.delete(port);
  }

  /** Of a client that is a flow of ours; undefined for anybody else. */
  passageOf(peer: Endpoint): Passage | undefined {
    const passage = this.#flows.get(peer.port);
    return passage !== undefined && isOwnAddress(peer) ? passage : undefined;
  }
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
