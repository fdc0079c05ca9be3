/**
 * Connections of ours that arrive at one of our own listeners, and would go round until no place is left. The
 * configuration refuses what it can see (config/self-connect.ts); it does not see where names lead, which addresses
 * this host has, and what packet filters make of them.
 *
 *   a flow of rule A connects to a port we listen on ──► its end of the connection is remembered, with the rule
 *   a client arrives from just there ──► it came through A already: rule B takes it, and A refuses it
 *
 * So rules may lead to each other, each once. Of upstreams at other ports nothing is remembered, which is nearly all
 * of them. What another thread connects is not known here: a circle ends when it comes to a thread twice.
 */
import { type Endpoint, endpointKey } from '../net/address.ts';
import type { RuleGroup } from './admission.ts';

/** The rules a flow came through, the last one first. */
export interface Passage {
  readonly group: RuleGroup;
  readonly before: Passage | undefined;
}

export function isCircle(came: Passage | undefined, group: RuleGroup): boolean {
  for (let passage = came; passage !== undefined; passage = passage.before)
    if (passage.group === group) return true;
  return false;
}

/** Ports with how many listeners each has. */
export class ListenerPorts {
  readonly #listeners = new Map<number, number>();

  open(port: number): void {
    this.#listeners.set(port, (this.#listeners.get(port) ?? 0) + 1);
  }

  close(port: number): void {
    const left = (this.#listeners.get(port) ?? 0) - 1;
    if (left > 0) this.#listeners.set(port, left);
    else this.#listeners.delete(port);
  }

  has(port: number): boolean {
    return this.#listeners.has(port);
  }
}

/** Connections of ours over TCP, by both ends: two may have one port, to different upstreams. */
export class TcpPassages {
  readonly ports = new ListenerPorts();
  readonly #known = new Map<string, Passage>();

  /** @returns what to call when the connection is over */
  leave(port: number, upstream: Endpoint, passage: Passage): () => void {
    const key = keyOf(port, upstream);
    this.#known.set(key, passage);
    return () => this.#known.delete(key);
  }

  /** Of a client of ours; undefined for anybody else. */
  of(peer: Endpoint, local: Endpoint): Passage | undefined {
    return this.#known.size === 0 ? undefined : this.#known.get(keyOf(peer.port, local));
  }
}

function keyOf(port: number, { address, port: to }: Endpoint): string {
  return `${port} ${endpointKey({ address, port: to, zone: '' })}`;
}
