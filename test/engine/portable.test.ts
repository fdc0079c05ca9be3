/** The portable engine under the suite, and what node:net and node:dgram cannot do. */
import { makePortableEngine } from '../../src/engine/portable/portable.ts';
import { headerCases } from './header-cases.ts';
import { engineSuite } from './suite.ts';
import { tcpConnectCases } from './tcp-connect-cases.ts';
import { tcpRelayCases } from './tcp-relay-cases.ts';

engineSuite('portable: TCP relay', makePortableEngine, tcpRelayCases);
engineSuite('portable: TCP connect', makePortableEngine, tcpConnectCases);
engineSuite('portable: PROXY protocol', makePortableEngine, headerCases);
