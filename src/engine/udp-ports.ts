/**
 * Our own UDP ports. A datagram that claims to come from one of them would be answered by ourselves: two
 * services answering each other for ever.
 */
import { networkInterfaces } from 'node:os';
import { type Endpoint, equalAddress, isLoopback, tryParseZoned } from '../net/address.ts';

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
