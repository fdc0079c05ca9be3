/**
 * What decisions depend on beside a rule and its upstreams. It changes while rules stay, and they are compiled
 * again then.
 */
import type { Lease } from '../flow/flow.ts';
import type { Address, Family } from '../net/address.ts';
import type { Cidr } from '../net/cidr.ts';

/** Where this host is. */
export interface HostNetworks {
  /** Its own addresses, loopback ones not needed. */
  readonly own: readonly Address[];
  /** The networks it has an interface in. */
  readonly networks: readonly Cidr[];
}

/** An address that stands for a client, and nobody else's while the lease is held. */
export interface Pseudonym {
  readonly address: Address;
  /** Undefined: it is this client's for ever. */
  readonly lease: Lease | undefined;
}

/** Who gives them out. */
export interface Pseudonyms {
  /** The pseudo address of a client before upstreams of a family. */
  of(client: Address, upstream: Family): Pseudonym;
  /** False when this client has none, and none is free. */
  hasOneFor(client: Address, upstream: Family): boolean;
}

/** What a rule's approach depends on beside the rule. */
export interface Surroundings extends HostNetworks {
  /** Whether pseudo addresses can be used here, by the family of the upstream. */
  readonly pseudo: Readonly<Record<Family, boolean>>;
  readonly pseudonyms: Pseudonyms;
}
