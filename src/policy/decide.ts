/**
 * A rule and the upstreams it resolved to, compiled to the one question an engine asks per flow: access first,
 * then the family order, then what the upstream is told of the client. Pure: the same flow gets the same
 * verdict.
 */
import type { Rule } from '../config/rules.ts';
import type { Announcement, Decide, LateUpstreams, NewFlow, TrustsPeer } from '../flow/flow.ts';
import { type Endpoint, type Family, familyOf, isUnicast } from '../net/address.ts';
import { compileCidrs } from '../net/cidr.ts';
import { compileAccess } from './access.ts';
import { announcementOf } from './announcement.ts';
import { compileOffer, compileRoom } from './mismatch.ts';
import { compileRoute } from './route.ts';
import type { Surroundings } from './surroundings.ts';

/**
 * @param upstreams every address of the rule's targets, in the order they were written
 * @param around needed by rules whose upstreams see the client's address, or one that stands for it
 * @param late where there may be more upstreams than are known yet
 */
export function compileDecide(
  rule: Rule,
  upstreams: readonly Endpoint[],
  around?: Surroundings,
  late?: LateUpstreams,
): Decide {
  const access = compileAccess(rule.allow, rule.deny);
  const anyway = compileRoute(rule.family, upstreams);
  const offers = around && compileOffer(rule, around);
  const route = offers === undefined ? anyway : compileRoute(rule.family, upstreams, offers);
  const hasRoom = around && compileRoom(rule, around);
  const announce = compileAnnouncement(rule);
  // Whoever may not be sent to an upstream may not be sent to one that is found later.
  const lateTo = (client: Family, find: LateUpstreams) => async () =>
    compileRoute(rule.family, await find(), offers)(client);
  const lateFor = late && { 4: lateTo(4, late), 6: lateTo(6, late) };
  return (flow) => {
    // A header may claim any source; one that no host can have must not pass for an address that rules allow.
    if (flow.client !== flow.peer && !isUnicast(flow.client.address)) return { refuse: 'client-not-unicast' };
    const refuse = access(flow.client.address);
    if (refuse !== undefined) return { refuse };
    const family = familyOf(flow.client.address);
    const candidates = route(family);
    const [first] = candidates;
    if (first === undefined) {
      return { refuse: anyway(family).length === 0 ? 'no-upstream' : 'family-mismatch' };
    }
    if (hasRoom !== undefined && !hasRoom(flow.client.address, first)) return { refuse: 'no-pseudo-address' };
    const accepted = { upstreams: candidates, announce: announce(flow) };
    return lateFor === undefined
      ? accepted
      : { upstreams: candidates, announce: accepted.announce, late: lateFor[family] };
  };
}

/** Who must send a PROXY header, asked of the socket's own peer; undefined when the rule accepts none. */
export function compileTrust(rule: Rule): TrustsPeer | undefined {
  return rule.acceptProxy.length === 0 ? undefined : compileCidrs(rule.acceptProxy);
}

function compileAnnouncement(rule: Rule): (flow: NewFlow) => Announcement | undefined {
  if (rule.source !== 'proxy-v1' && rule.source !== 'proxy-v2') return () => undefined;
  const version = rule.source === 'proxy-v1' ? 1 : 2;
  return (flow) => announcementOf(rule, version, flow);
}
