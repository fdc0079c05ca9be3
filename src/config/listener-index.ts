/**
 * Who listens where, by protocol, port and address, so that a question about one more listener costs a few
 * look-ups however many there are. Only ports that are known go in: one the kernel chooses takes no other's.
 */
import { type Address, anyIpv4, anyIpv6, endpointKey, isIpv4, isUnspecified } from '../net/address.ts';
import type { BindHost, Protocol } from './port-spec.ts';

/** An index of listeners; `T` is what there is to say of one. */
export class ListenerIndex<T> {
  readonly #bound = new Map<string, T>();
  /** One of each family, for a wildcard that comes later. */
  readonly #ofFamily = new Map<string, T>();

  add(protocol: Protocol, port: number, host: BindHost | undefined, listener: T): void {
    for (const bound of boundHosts(host)) {
      this.#bound.set(boundKey(protocol, port, bound), listener);
      this.#ofFamily.set(familyKey(protocol, port, bound.address), listener);
    }
  }

  /** A listener that would not let this one bind. */
  overlapping(protocol: Protocol, port: number, host: BindHost | undefined): T | undefined {
    for (const bound of boundHosts(host)) {
      const other = isUnspecified(bound.address)
        ? this.#ofFamily.get(familyKey(protocol, port, bound.address))
        : (this.exact(protocol, port, bound) ?? this.wildcard(protocol, port, bound.address));
      if (other !== undefined) return other;
    }
    return undefined;
  }

  /** The listener bound to exactly this address. */
  exact(protocol: Protocol, port: number, host: BindHost): T | undefined {
    return this.#bound.get(boundKey(protocol, port, host));
  }

  /** The listener on every address of this one's family. */
  wildcard(protocol: Protocol, port: number, address: Address): T | undefined {
    return this.exact(protocol, port, { address: isIpv4(address) ? anyIpv4 : anyIpv6, zone: '' });
  }
}

const bothFamilies: readonly BindHost[] = [anyIpv4, anyIpv6].map((address) => ({ address, zone: '' }));

/** No host is both families, each with a listener of its own. */
export function boundHosts(host: BindHost | undefined): readonly BindHost[] {
  return host === undefined ? bothFamilies : [host];
}

function boundKey(protocol: Protocol, port: number, host: BindHost): string {
  return protocol + endpointKey({ ...host, port });
}

function familyKey(protocol: Protocol, port: number, address: Address): string {
  return `${protocol} ${port} ${isIpv4(address) ? 4 : 6}`;
}
