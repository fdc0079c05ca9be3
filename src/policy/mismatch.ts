/**
 * Clients and upstreams that differ in family, where the upstream is to see the client: no socket has a source
 * address of one family and an upstream of the other.
 */
import type { MismatchMode, Rule } from '../config/rules.ts';
import { type Address, type Endpoint, type Family, familyOf } from '../net/address.ts';
import type { Offer } from './route.ts';
import type { Surroundings } from './surroundings.ts';

/** What is done for an upstream of this family when the client is of the other one. */
export function compileMismatch(
  { mismatch }: Pick<Rule, 'mismatch'>,
  { pseudo }: Pick<Surroundings, 'pseudo'>,
): (upstream: Family) => Exclude<MismatchMode, 'auto'> {
  if (mismatch !== 'auto') return () => mismatch;
  return (upstream) => (pseudo[upstream] ? 'pseudo' : 'refuse');
}

/** Undefined when every client may be sent to every upstream. */
export function compileOffer(rule: Rule, around: Surroundings): Offer | undefined {
  if (rule.source !== 'transparent') return undefined;
  const mismatch = compileMismatch(rule, around);
  return (client, upstream) => client === upstream || mismatch(upstream) !== 'refuse';
}

/** Is there an address under which an upstream can be shown this client? Undefined when none is ever needed. */
export function compileRoom(
  rule: Rule,
  around: Surroundings,
): ((client: Address, upstream: Endpoint) => boolean) | undefined {
  if (rule.source !== 'pseudo' && rule.source !== 'transparent') return undefined;
  const mismatch = compileMismatch(rule, around);
  return (client, { address }) => {
    const family = familyOf(address);
    const isPseudo =
      rule.source === 'pseudo' || (familyOf(client) !== family && mismatch(family) === 'pseudo');
    return !isPseudo || around.pseudonyms.hasOneFor(client, family);
  };
}
