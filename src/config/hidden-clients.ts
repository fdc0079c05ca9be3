/**
 * Rules whose program sees every client under one address, which is dualport's own: the gateway's, or loopback. A program
 * that grants rights by its peer's address grants them to the world then: a mail server relays for everybody, a resolver
 * answers everybody, a database takes everybody for local. Most programs grant nothing by address, so this is the
 * default; but whoever has not said it may not know it, and is told at the start.
 *
 * Nothing is told of a rule where `source` was written, even as `none`; where `allow` says who may connect, for then
 * it was thought of; and where nobody but this host can connect.
 */
import { isLoopback } from '../net/address.ts';
import { boundHosts } from './listener-index.ts';
import type { BindHost } from './port-spec.ts';
import type { Rule } from './rules.ts';

/** @param saysSource somebody has written how the program is to learn who calls; unwritten it does not */
export function hidesClients(host: BindHost | undefined, allow: Rule['allow'], saysSource: boolean): boolean {
  if (saysSource || allow.length > 0) return false;
  return boundHosts(host).some(({ address }) => !isLoopback(address));
}

/** Why that matters, and what to do. */
export const hiddenClientsAdvice: string =
  'IPv6 clients too arrive from the gateway or from loopback, and a program that trusts such addresses, as mail servers, ' +
  'resolvers and databases do, would trust everybody (an open relay); use --source proxy-v2 (or transparent, pseudo) or ' +
  '--allow (in the file source, allow), or say --source none where it trusts nobody by address';

/** A range of ports is as many rules. */
const mostNames = 10;

/** Those that are told of, and how many more there are. */
export function namesToTell(names: readonly string[]): {
  readonly named: readonly string[];
  readonly more: number;
} {
  return { named: names.slice(0, mostNames), more: Math.max(0, names.length - mostNames) };
}
