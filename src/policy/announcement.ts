/** What the PROXY header for one flow is to say, by its rule. */
import type { Rule } from '../config/rules.ts';
import type { Announcement, NewFlow } from '../flow/flow.ts';

/**
 * The proxy protocol is hop by hop: what a header told us goes on, not the proxy that sent it (2.1). Written out,
 * because a spread would take a microsecond of each flow.
 */
export function announcementOf(rule: Rule, version: 1 | 2, flow: NewFlow): Announcement {
  return {
    version,
    source: flow.client,
    destination: flow.dialled,
    crc32c: rule.proxyCrc32c,
    uniqueId: rule.proxyUniqueId,
    datagrams: rule.udpHeader,
  };
}
