/**
 * How each upstream is connected, so that its program's peer is the client, or an address that stands for it.
 *
 *   transparent: same family ──► the client's own address, unless its answers would not come back: then plain
 *                other family ─► pseudo, a PROXY header, plain, or not at all, as the rule says (`mismatch`)
 *   pseudo:      every client ─► an address that only it has, and whose packets this host keeps
 *
 * What is around is a value: the same flow is approached in the same way until the rule is compiled again.
 */
import type { Rule } from '../config/rules.ts';
import type { Approach, ApproachTo, Lease, NewFlow, PlainReason, Source } from '../flow/flow.ts';
import { type Address, type Endpoint, familyOf } from '../net/address.ts';
import { announcementOf } from './announcement.ts';
import { compileMismatch } from './mismatch.ts';
import { compileObstacles } from './obstacles.ts';
import type { Pseudonyms, Surroundings } from './surroundings.ts';

/** Undefined when the rule leaves the source address to the kernel. */
export function compileApproach(
  rule: Rule,
  upstreams: readonly Endpoint[],
  around: Surroundings,
): ApproachTo | undefined {
  const pseudo = (flow: NewFlow, upstream: Endpoint) =>
    approachPseudo(rule, around.pseudonyms, flow, upstream);
  if (rule.source === 'pseudo') return pseudo;
  if (rule.source !== 'transparent') return undefined;
  const mismatch = compileMismatch(rule, around);
  const obstacleTo = compileObstacles(upstreams, around);
  return (flow, upstream) => {
    const family = familyOf(upstream.address);
    if (familyOf(flow.client.address) === family) {
      const plain = obstacleTo(flow.client, upstream);
      return plain === undefined
        ? approachAs(sourceOf(rule, flow, flow.client.address, true))
        : plainly[plain];
    }
    if (mismatch(family) === 'pseudo') return pseudo(flow, upstream);
    return mismatch(family) === 'proxy-v2' ? announced(rule, flow) : unshown;
  };
}

function approachPseudo(rule: Rule, pseudonyms: Pseudonyms, flow: NewFlow, upstream: Endpoint): Approach {
  const { address, lease } = pseudonyms.of(flow.client.address, familyOf(upstream.address));
  return approachAs(sourceOf(rule, flow, address, false), lease);
}

function sourceOf(rule: Rule, { client }: NewFlow, address: Address, transparent: boolean): Source {
  return { address, zone: '', port: rule.sourcePort === 'keep' ? client.port : 0, transparent };
}

function approachAs(source: Source, lease?: Lease): Approach {
  return { source, announce: undefined, lease, plain: undefined };
}

function announced(rule: Rule, flow: NewFlow): Approach {
  return { source: undefined, announce: announcementOf(rule, 2, flow), lease: undefined, plain: undefined };
}

const unshown: Approach = Object.freeze({
  source: undefined,
  announce: undefined,
  lease: undefined,
  plain: undefined,
});

/** One for all flows. */
const plainly: Readonly<Record<PlainReason, Approach>> = {
  'same-subnet': Object.freeze({ ...unshown, plain: 'same-subnet' }),
  'upstream-itself': Object.freeze({ ...unshown, plain: 'upstream-itself' }),
  'link-local': Object.freeze({ ...unshown, plain: 'link-local' }),
  'own-address': Object.freeze({ ...unshown, plain: 'own-address' }),
};
