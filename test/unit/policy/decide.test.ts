import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { loadConfig } from '../../../src/config/load.ts';
import type { Rule } from '../../../src/config/rules.ts';
import type { Flags } from '../../../src/config/sources.ts';
import type { Announcement, NewFlow, Verdict } from '../../../src/flow/flow.ts';
import {
  type Endpoint,
  endpointOf,
  formatEndpoint,
  fromBytes,
  parseAddress,
} from '../../../src/net/address.ts';
import { compileDecide, compileTrust } from '../../../src/policy/decide.ts';
import { lookAlikes, spelledIpv4 } from '../net/spellings.ts';

/** The rule these flags make. */
function ruleOf(flags: Flags = {}): Rule {
  const [rule] = loadConfig({
    flags: { publish: ['8080:80'], to: ['10.0.0.2', 'fd00::2'], ...flags },
    env: {},
  }).rules;
  assert.ok(rule);
  return rule;
}

const upstreams = [endpointOf('10.0.0.2', 80), endpointOf('fd00::2', 80)];

/** A flow as the engine sees it without a header. */
function flowFrom(peer: string, change: Partial<NewFlow> = {}): NewFlow {
  const at = endpointOf(peer, 50_000);
  const local = endpointOf(at.address[0] === 0 ? '192.0.2.80' : '2001:db8::80', 8080);
  return { protocol: 'tcp', peer: at, local, client: at, dialled: local, ...change };
}

/** The same after a header that names this client was accepted. */
function announced(peer: string, client: string, dialled = '198.51.100.1'): NewFlow {
  return flowFrom(peer, { client: endpointOf(client, 40_000), dialled: endpointOf(dialled, 443) });
}

/** The reason, or the upstreams in order. */
function outcome(verdict: Verdict): string {
  return 'refuse' in verdict ? verdict.refuse : verdict.upstreams.map(formatEndpoint).join(' ');
}

function decided(flow: NewFlow, flags: Flags = {}, candidates: readonly Endpoint[] = upstreams): string {
  return outcome(compileDecide(ruleOf(flags), candidates)(flow));
}

const ipv4First = '10.0.0.2:80 [fd00::2]:80';
const ipv6First = '[fd00::2]:80 10.0.0.2:80';

test('a client is offered the upstream of its own family first', () => {
  assert.equal(decided(flowFrom('203.0.113.9')), ipv4First);
  assert.equal(decided(flowFrom('2001:db8::9')), ipv6First);
});

test('a client seen as v4-mapped is an IPv4 client', () => {
  for (const spelling of spelledIpv4) assert.equal(decided(flowFrom(spelling)), ipv4First, spelling);
  for (const lookAlike of Object.keys(lookAlikes))
    assert.equal(decided(flowFrom(lookAlike)), ipv6First, lookAlike);
});

const modes: Readonly<Record<string, readonly [ipv4Client: string, ipv6Client: string]>> = {
  same: [ipv4First, ipv6First],
  v4: ['10.0.0.2:80', '10.0.0.2:80'],
  v6: ['[fd00::2]:80', '[fd00::2]:80'],
  'prefer-v4': [ipv4First, ipv4First],
  'prefer-v6': [ipv6First, ipv6First],
};
for (const [family, [ipv4Client, ipv6Client]] of Object.entries(modes)) {
  test(`the rule's family ${family} is what decides the order`, () => {
    assert.equal(decided(flowFrom('203.0.113.9'), { family }), ipv4Client);
    assert.equal(decided(flowFrom('2001:db8::9'), { family }), ipv6Client);
  });
}

test('a rule whose names have no address yet refuses, and says why', () => {
  assert.equal(decided(flowFrom('203.0.113.9'), {}, []), 'no-upstream');
  assert.equal(decided(flowFrom('203.0.113.9'), { family: 'v6' }, upstreams.slice(0, 1)), 'no-upstream');
  assert.equal(decided(flowFrom('2001:db8::9'), { family: 'v4' }, upstreams.slice(1)), 'no-upstream');
});

test('access is asked before upstreams are: a denied client learns nothing of them', () => {
  assert.equal(decided(flowFrom('203.0.113.9'), { deny: ['203.0.113.0/24'] }, []), 'denied');
  assert.equal(decided(flowFrom('203.0.113.9'), { allow: ['10.0.0.0/8'] }, []), 'not-allowed');
});

test('deny wins over allow', () => {
  const flags = { allow: ['203.0.113.0/24'], deny: ['203.0.113.9'] };
  assert.equal(decided(flowFrom('203.0.113.9'), flags), 'denied');
  assert.equal(decided(flowFrom('203.0.113.8'), flags), ipv4First);
  assert.equal(decided(flowFrom('198.51.100.1'), flags), 'not-allowed');
});

test('no spelling of a denied client gets past, from a socket or from a header', () => {
  for (const rule of spelledIpv4) {
    const decide = compileDecide(ruleOf({ deny: [rule] }), upstreams);
    for (const spelling of spelledIpv4) {
      assert.equal(outcome(decide(flowFrom(spelling))), 'denied', `${spelling} against ${rule}`);
      assert.equal(outcome(decide(announced('10.0.0.1', spelling))), 'denied', `${spelling} against ${rule}`);
    }
  }
});

test('once a header is accepted its client decides, not the proxy that sent it', () => {
  const flags = { acceptProxy: ['10.0.0.1'], allow: ['203.0.113.0/24'] };
  assert.equal(decided(announced('10.0.0.1', '203.0.113.9'), flags), ipv4First);
  assert.equal(decided(announced('10.0.0.1', '198.51.100.9'), flags), 'not-allowed');
  assert.equal(decided(announced('203.0.113.9', '10.0.0.1'), flags), 'not-allowed');
  assert.equal(decided(announced('10.0.0.1', '203.0.113.9'), { deny: ['10.0.0.1'] }), ipv4First);
  assert.equal(decided(announced('203.0.113.9', '10.0.0.1'), { deny: ['10.0.0.1'] }), 'denied');
});

test('the family order follows the client of the header too', () => {
  assert.equal(decided(announced('10.0.0.1', '2001:db8::9')), ipv6First);
  assert.equal(decided(announced('fd00::1', '203.0.113.9')), ipv4First);
});

test('a header without addresses leaves the peer as the client', () => {
  const flow = flowFrom('10.0.0.1');
  assert.equal(decided(flow, { acceptProxy: ['10.0.0.1'], deny: ['10.0.0.1'] }), 'denied');
  assert.equal(decided(flow, { acceptProxy: ['10.0.0.1'] }), ipv4First);
});

/** Sources no host has: to let one in is to let in what no rule can be written for. */
const nobody = [
  '0.0.0.0',
  '::',
  '::ffff:0:0',
  '224.0.0.1',
  '239.255.255.255',
  '255.255.255.255',
  'ff02::1',
  'ff0e::1',
];

test('a header whose client no host can be is refused, though every rule allows it', () => {
  for (const client of nobody) {
    assert.equal(decided(announced('10.0.0.1', client)), 'client-not-unicast', client);
    const flags = { allow: ['0.0.0.0/0', '::/0'], deny: ['::/0'] };
    assert.equal(decided(announced('10.0.0.1', client), flags), 'client-not-unicast', client);
  }
});

test('a header may name loopback, link-local and pseudo-IPv4 clients: rules can be written for those', () => {
  for (const client of ['127.0.0.1', '::1', 'fe80::9', '240.0.0.1']) {
    assert.notEqual(decided(announced('10.0.0.1', client)), 'client-not-unicast', client);
  }
});

test('the rule of unicast clients is for headers: the kernel does not invent peers', () => {
  const peer = endpointOf('0.0.0.0', 9);
  assert.equal(decided(flowFrom('0.0.0.0', { peer, client: peer })), ipv4First);
});

function announcement(flow: NewFlow, flags: Flags): Announcement | undefined {
  const verdict = compileDecide(ruleOf(flags), upstreams)(flow);
  assert.ok('upstreams' in verdict);
  return verdict.announce;
}

test('source none tells the upstream nothing', () => {
  assert.equal(announcement(flowFrom('203.0.113.9'), { source: 'none', proxyCrc32c: true }), undefined);
});

test('source proxy-v1 and proxy-v2 announce the client and what it dialled', () => {
  const flow = flowFrom('203.0.113.9');
  const expected = {
    source: flow.peer,
    destination: flow.local,
    crc32c: false,
    uniqueId: false,
    datagrams: 'every',
  };
  assert.deepEqual(announcement(flow, { source: 'proxy-v1' }), { version: 1, ...expected });
  assert.deepEqual(announcement(flow, { source: 'proxy-v2' }), { version: 2, ...expected });
});

test('extras of the header are those of the rule', () => {
  const flow = flowFrom('2001:db8::9');
  const crc = announcement(flow, { source: 'proxy-v2', proxyCrc32c: true });
  assert.deepEqual([crc?.crc32c, crc?.uniqueId, crc?.datagrams], [true, false, 'every']);
  const id = announcement(flow, { source: 'proxy-v2', proxyUniqueId: true, udpHeader: 'first' });
  assert.deepEqual([id?.crc32c, id?.uniqueId, id?.datagrams], [false, true, 'first']);
});

test('what a header told is passed on, not the proxy that sent it', () => {
  const flow = announced('10.0.0.1', '2001:db8::9', '2001:db8::80');
  const told = announcement(flow, { source: 'proxy-v2', acceptProxy: ['10.0.0.1'] });
  assert.equal(told && formatEndpoint(told.source), '[2001:db8::9]:40000');
  assert.equal(told && formatEndpoint(told.destination), '[2001:db8::80]:443');
});

test('who must send a header is asked of the peer, in any spelling', () => {
  const trusts = compileTrust(ruleOf({ acceptProxy: ['192.0.2.1', 'fd00::/8'] }));
  assert.ok(trusts);
  for (const spelling of spelledIpv4) assert.ok(trusts(parseAddress(spelling)), spelling);
  for (const lookAlike of Object.keys(lookAlikes)) assert.ok(!trusts(parseAddress(lookAlike)), lookAlike);
  assert.ok(trusts(parseAddress('fd00::1')));
});

test('a rule that accepts headers from nobody does not look for any', () => {
  assert.equal(compileTrust(ruleOf()), undefined);
});

const bytes = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }).map(fromBytes),
  fc.uint8Array({ minLength: 16, maxLength: 16 }),
  fc.constantFrom('10.0.0.1', '203.0.113.9', '2001:db8::9', '::', 'ff02::1').map(parseAddress),
);
const endpoint = fc.record(
  { address: bytes, zone: fc.constant(''), port: fc.nat(65535) },
  { noNullPrototype: true },
);
const someFlow = fc
  .record({
    peer: endpoint,
    local: endpoint,
    source: fc.option(endpoint, { nil: undefined }),
    destination: endpoint,
  })
  .map(({ peer, local, source, destination }): NewFlow => {
    const header = source && { client: source, dialled: destination };
    return { protocol: 'tcp', peer, local, client: peer, dialled: local, ...header };
  });
const someFlags = fc.record({
  family: fc.constantFrom('same', 'v4', 'v6', 'prefer-v4', 'prefer-v6'),
  source: fc.constantFrom('none', 'proxy-v1', 'proxy-v2'),
  allow: fc.constantFrom(undefined, ['0.0.0.0/0'], ['::/0'], ['203.0.113.0/24', '2001:db8::/32']),
  deny: fc.constantFrom([], ['10.0.0.0/8'], ['::/1']),
});

test('the same flow gets the same verdict, whatever was asked in between and done to the answer', () => {
  fc.assert(
    fc.property(someFlags, someFlow, fc.array(someFlow, { maxLength: 3 }), (flags, flow, others) => {
      const decide = compileDecide(ruleOf(flags), upstreams);
      const before = structuredClone(flow);
      const first = decide(flow);
      const copy = structuredClone(first);
      for (const other of others) decide(other);
      if ('upstreams' in first) assert.throws(() => (first.upstreams as Endpoint[]).pop(), TypeError);
      Object.assign(first, { refuse: 'changed', announce: 'changed' });
      assert.deepEqual(decide(flow), copy);
      assert.deepEqual(flow, before);
    }),
    { numRuns: 1000 },
  );
});
