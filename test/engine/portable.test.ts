/** The portable engine under the suite, and what node:net and node:dgram cannot do. */
import { makePortableEngine } from '../../src/engine/portable/portable.ts';
import { headerCases } from './header-cases.ts';
import { lateCases } from './late-cases.ts';
import { sourceCases } from './source-cases.ts';
import { engineSuite } from './suite.ts';
import { tcpConnectCases } from './tcp-connect-cases.ts';
import { tcpRelayCases } from './tcp-relay-cases.ts';
import { udpAbuseCases } from './udp-abuse-cases.ts';
import { udpHeaderCases } from './udp-header-cases.ts';
import { udpLimitCases } from './udp-limit-cases.ts';
import { udpRelayCases } from './udp-relay-cases.ts';
import { udpUpstreamCases } from './udp-upstream-cases.ts';

const noBacklog = 'node:net cannot stop accepting and leave new connections in the backlog';
const noPacketInfo =
  'node:dgram has no IP_PKTINFO: the kernel chooses where answers of a wildcard leave from';

engineSuite('portable: TCP relay', makePortableEngine, tcpRelayCases);
engineSuite('portable: TCP connect', makePortableEngine, tcpConnectCases, [
  {
    title: 'at the flow limit new connections wait in the backlog and are served when a place is free',
    reason: noBacklog,
  },
]);
engineSuite('portable: late upstreams', makePortableEngine, lateCases);
engineSuite('portable: PROXY protocol', makePortableEngine, headerCases);
engineSuite('portable: UDP relay', makePortableEngine, udpRelayCases, [
  { title: '0.0.0.0: answers leave from the address the client dialled', reason: noPacketInfo },
  { title: '[::]: answers leave from the address the client dialled', reason: noPacketInfo },
]);
engineSuite('portable: UDP upstreams', makePortableEngine, udpUpstreamCases);
engineSuite('portable: UDP limits', makePortableEngine, udpLimitCases);
engineSuite('portable: UDP abuse', makePortableEngine, udpAbuseCases);
engineSuite('portable: sources', makePortableEngine, sourceCases);
engineSuite('portable: PROXY protocol over UDP', makePortableEngine, udpHeaderCases);
