/**
 * Source ports that no datagram honestly comes from. Nobody can be answered at port 0; echo, daytime, quote of the
 * day, character generator and time answer whatever they get, and so would we at our own ports: two services
 * answering each other for ever.
 */
import { networkInterfaces } from 'node:os';
import { type Endpoint, equalAddress, isLoopback, tryParseZoned } from '../net/address.ts';

/** As native/udp-batch.c has them. */
const dropped: ReadonlySet<number> = new Set([0, 7, 13, 17, 19, 37]);

/** Of whoever sends from there every datagram is dropped. */
export function isDroppedSource(port: number): boolean {
  return port < 64 && dropped.has(port);
}

/** Our own. */
export class UdpPorts {
  /** How many listeners have each port. */
  readonly #listeners = new Map<number, number>();

  open(port: number): void {
    this.#listeners.set(port, (this.#listeners.get(port) ?? 0) + 1);
  }

  close(port: number): void {
    const left = (this.#listeners.get(port) ?? 0) - 1;
    if (left > 0) this.#listeners.set(port, left);
    else this.#listeners.delete(port);
  }

  /** The system is asked for its addresses only when the port is one of ours, which it hardly ever is. */
  isOwn(peer: Endpoint): boolean {
    return this.#listeners.has(peer.port) && isOwnAddress(peer);
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
