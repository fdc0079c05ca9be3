/**
 * A rule and the upstreams it resolved to, compiled to the one question an engine asks per flow: access first,
 * then the family order, then what the upstream is told of the client. Pure: the same flow gets the same
 * verdict.
 */
import type { Rule } from '../config/rules.ts';
import type { Announcement, Decide, LateUpstreams, NewFlow, TrustsPeer } from '../flow/flow.ts';
import { type Endpoint, familyOf, isUnicast } from '../net/address.ts';
import { compileCidrs } from '../net/cidr.ts';
import { compileAccess } from './access.ts';
import { compileRoute } from './route.ts';

/**
 * @param upstreams every address of the rule's targets, in the order they were written
 * @param late where there may be more of them than are known yet
 */
export function compileDecide(rule: Rule, upstreams: readonly Endpoint[], late?: LateUpstreams): Decide {
  const access = compileAccess(rule.allow, rule.deny);
  const route = compileRoute(rule.family, upstreams);
  const announce = compileAnnouncement(rule);
  return (flow) => {
    // A header may claim any source; one that no host can have must not pass for an address that rules allow.
    if (flow.client !== flow.peer && !isUnicast(flow.client.address)) return { refuse: 'client-not-unicast' };
    const refuse = access(flow.client.address);
    if (refuse !== undefined) return { refuse };
    const candidates = route(familyOf(flow.client.address));
    if (candidates.length === 0) return { refuse: 'no-upstream' };
    const accepted = { upstreams: candidates, announce: announce(flow) };
    return late === undefined ? accepted : { upstreams: candidates, announce: accepted.announce, late };
  };
}

/** Who must send a PROXY header, asked of the socket's own peer; undefined when the rule accepts none. */
export function compileTrust(rule: Rule): TrustsPeer | undefined {
  return rule.acceptProxy.length === 0 ? undefined : compileCidrs(rule.acceptProxy);
}

function compileAnnouncement(rule: Rule): (flow: NewFlow) => Announcement | undefined {
  if (rule.source === 'none') return () => undefined;
  const version = rule.source === 'proxy-v1' ? 1 : 2;
  const { proxyCrc32c: crc32c, proxyUniqueId: uniqueId, udpHeader: datagrams } = rule;
  // The proxy protocol is hop by hop: what a header told us goes on, not the proxy that sent it (2.1).
  // Written out, because a spread would take a microsecond of each flow.
  return ({ client: source, dialled: destination }) => ({
    version,
    source,
    destination,
    crc32c,
    uniqueId,
    datagrams,
  });
}
