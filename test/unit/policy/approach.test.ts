import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { loadConfig } from '../../../src/config/load.ts';
import type { Rule } from '../../../src/config/rules.ts';
import type { Flags } from '../../../src/config/sources.ts';
import type { Approach, NewFlow, PlainReason } from '../../../src/flow/flow.ts';
import {
  type Endpoint,
  endpointOf,
  type Family,
  formatAddress,
  formatEndpoint,
  parseAddress,
} from '../../../src/net/address.ts';
import { parseCidr } from '../../../src/net/cidr.ts';
import { compileApproach } from '../../../src/policy/approach.ts';
import { compileDecide } from '../../../src/policy/decide.ts';
import type { Surroundings } from '../../../src/policy/surroundings.ts';

const ipv4Upstream = endpointOf('172.17.0.2', 80);
const ipv6Upstream = endpointOf('fd00:17::2', 80);
const upstreams = [ipv4Upstream, ipv6Upstream];

const lease = { begin: () => {}, end: () => {} };

/** A host on two networks, with routes for both kinds of pseudo addresses, which say whom they are for. */
const around: Surroundings = {
  own: ['198.18.1.1', '172.17.0.1', '2001:db8:1::1', 'fd00:17::1'].map(parseAddress),
  networks: ['198.18.1.0/24', '172.17.0.0/16', '2001:db8:1::/64', 'fd00:17::/64', '10.0.0.1/32'].map(
    parseCidr,
  ),
  pseudo: { 4: true, 6: true },
  pseudonyms: {
    of: (client, upstream) => ({
      address: upstream === 4 ? parseAddress('240.0.0.9') : parseAddress('fd5f::f000:9'),
      lease: client[0] === 0 && upstream === 6 ? undefined : lease,
    }),
    hasOneFor: () => true,
  },
};

function ruleOf(flags: Flags): Rule {
  const [rule] = loadConfig({
    flags: { publish: ['8080:80'], to: ['172.17.0.2', 'fd00:17::2'], ...flags },
    env: {},
  }).rules;
  assert.ok(rule);
  return rule;
}

function flowFrom(client: string, change: Partial<NewFlow> = {}): NewFlow {
  const peer = endpointOf(client, 50_000);
  const local = endpointOf(client.includes(':') ? '2001:db8:1::1' : '198.18.1.1', 8080);
  return { protocol: 'tcp', peer, local, client: peer, dialled: local, ...change };
}

function approached(
  flags: Flags,
  flow: NewFlow,
  upstream: Endpoint,
  change: Partial<Surroundings> = {},
): Approach {
  const approach = compileApproach(ruleOf(flags), upstreams, { ...around, ...change });
  assert.ok(approach);
  return approach(flow, upstream);
}

/** What the upstream's program has for its peer, in a word. */
function shown({ source, announce, plain }: Approach): string {
  if (announce !== undefined) return `proxy-v${announce.version} ${formatEndpoint(announce.source)}`;
  if (plain !== undefined) return plain;
  if (source === undefined) return 'dualport';
  return `${formatEndpoint(source)}${source.transparent ? ' transparent' : ''}`;
}

test('rules that leave the source address to the kernel have no approach', () => {
  for (const source of ['none', 'proxy-v1', 'proxy-v2']) {
    assert.equal(compileApproach(ruleOf({ source }), upstreams, around), undefined);
  }
});

const transparent = { source: 'transparent' };

test('source transparent shows a client of its family to the upstream, on any port', () => {
  const ipv4 = approached(transparent, flowFrom('203.0.113.9'), ipv4Upstream);
  assert.equal(shown(ipv4), '203.0.113.9:0 transparent');
  assert.equal(ipv4.lease, undefined);
  const ipv6 = approached(transparent, flowFrom('2001:db8::9'), ipv6Upstream);
  assert.equal(shown(ipv6), '[2001:db8::9]:0 transparent');
});

test('source port keep keeps the port of the client', () => {
  const keep = { ...transparent, sourcePort: 'keep' };
  assert.equal(
    shown(approached(keep, flowFrom('203.0.113.9'), ipv4Upstream)),
    '203.0.113.9:50000 transparent',
  );
  assert.equal(shown(approached(keep, flowFrom('2001:db8::9'), ipv4Upstream)), '240.0.0.9:50000');
});

test('what a header told of the client is shown, and not the proxy that sent it', () => {
  const flow = flowFrom('10.0.0.1', { client: endpointOf('203.0.113.9', 40_000) });
  const keep = { ...transparent, sourcePort: 'keep', acceptProxy: ['10.0.0.1'] };
  assert.equal(shown(approached(keep, flow, ipv4Upstream)), '203.0.113.9:40000 transparent');
});

const mismatches: Readonly<Record<string, readonly [ipv4Upstream: string, ipv6Upstream: string]>> = {
  auto: ['240.0.0.9:0', '[fd5f::f000:9]:0'],
  pseudo: ['240.0.0.9:0', '[fd5f::f000:9]:0'],
  'proxy-v2': ['proxy-v2 [2001:db8::9]:50000', 'proxy-v2 203.0.113.9:50000'],
  plain: ['dualport', 'dualport'],
};
for (const [mismatch, [toIpv4, toIpv6]] of Object.entries(mismatches)) {
  test(`mismatch ${mismatch} shows a client of the other family as ${toIpv4} or ${toIpv6}`, () => {
    const flags = { ...transparent, mismatch };
    assert.equal(shown(approached(flags, flowFrom('2001:db8::9'), ipv4Upstream)), toIpv4);
    assert.equal(shown(approached(flags, flowFrom('203.0.113.9'), ipv6Upstream)), toIpv6);
    assert.equal(
      shown(approached(flags, flowFrom('203.0.113.9'), ipv4Upstream)),
      '203.0.113.9:0 transparent',
    );
  });
}

test('the header of mismatch proxy-v2 is as the rule has it', () => {
  const flags = {
    ...transparent,
    mismatch: 'proxy-v2',
    proxyCrc32c: true,
    proxyUniqueId: true,
    udpHeader: 'first',
  };
  const flow = flowFrom('2001:db8::9');
  assert.deepEqual(approached(flags, flow, ipv4Upstream).announce, {
    version: 2,
    source: flow.client,
    destination: flow.dialled,
    crc32c: true,
    uniqueId: true,
    datagrams: 'first',
  });
});

test('a pseudo address comes with its lease, where somebody else could have it later', () => {
  assert.equal(approached(transparent, flowFrom('2001:db8::9'), ipv4Upstream).lease, lease);
  assert.equal(approached(transparent, flowFrom('203.0.113.9'), ipv6Upstream).lease, undefined);
});

test('source pseudo shows every client under an address of the upstream’s family that stands for it', () => {
  for (const client of ['203.0.113.9', '2001:db8::9', '172.17.0.9', 'fe80::9', '127.0.0.1', '::1']) {
    assert.equal(
      shown(approached({ source: 'pseudo' }, flowFrom(client), ipv4Upstream)),
      '240.0.0.9:0',
      client,
    );
    assert.equal(
      shown(approached({ source: 'pseudo', mismatch: 'refuse' }, flowFrom(client), ipv6Upstream)),
      '[fd5f::f000:9]:0',
      client,
    );
  }
});

/** Clients whose answers would not come back, and those beside them who can be shown. */
const obstacles: readonly (readonly [client: string, upstream: Endpoint, seen: PlainReason | 'shown'])[] = [
  ['172.17.0.9', ipv4Upstream, 'same-subnet'],
  ['172.17.255.254', ipv4Upstream, 'same-subnet'],
  ['172.18.0.9', ipv4Upstream, 'shown'],
  ['198.18.1.2', ipv4Upstream, 'shown'],
  ['fd00:17::9', ipv6Upstream, 'same-subnet'],
  ['fd00:17:0:1::9', ipv6Upstream, 'shown'],
  ['2001:db8:1::2', ipv6Upstream, 'shown'],
  ['172.17.0.2', ipv4Upstream, 'upstream-itself'],
  ['fd00:17::2', ipv6Upstream, 'upstream-itself'],
  ['fe80::9', ipv6Upstream, 'link-local'],
  ['169.254.1.1', ipv4Upstream, 'link-local'],
  ['169.253.1.1', ipv4Upstream, 'shown'],
  ['172.17.0.1', ipv4Upstream, 'own-address'],
  ['198.18.1.1', ipv4Upstream, 'own-address'],
  ['2001:db8:1::1', ipv6Upstream, 'own-address'],
  ['127.0.0.1', ipv4Upstream, 'own-address'],
  ['127.1.2.3', ipv4Upstream, 'own-address'],
  ['::1', ipv6Upstream, 'own-address'],
];
for (const [client, upstream, seen] of obstacles) {
  test(`${client} before ${formatEndpoint(upstream)}: ${seen}`, () => {
    const shownAs = `${formatEndpoint(endpointOf(client, 0))} transparent`;
    const expected = seen === 'shown' ? shownAs : seen;
    assert.equal(shown(approached(transparent, flowFrom(client), upstream)), expected);
  });
}

test('a client with a zone is link-local, whatever its address', () => {
  const client = { ...endpointOf('2001:db8::9', 1), zone: 'eth0' };
  assert.equal(
    shown(approached(transparent, flowFrom('2001:db8::9', { client }), ipv6Upstream)),
    'link-local',
  );
});

test('a program on this host sees its neighbours, too: its answers never leave the host unrouted', () => {
  for (const [own, client] of [
    ['198.18.1.1', '198.18.1.2'],
    ['127.0.0.1', '198.18.1.2'],
    ['172.17.0.1', '172.17.0.9'],
  ] as const) {
    const upstream = endpointOf(own, 80);
    const approach = compileApproach(ruleOf(transparent), [upstream], around);
    assert.equal(approach && shown(approach(flowFrom(client), upstream)), `${client}:0 transparent`);
  }
});

/** The reason, or the upstreams in order. */
function decided(flags: Flags, client: string, change: Partial<Surroundings> = {}, to = upstreams): string {
  const verdict = compileDecide(ruleOf(flags), to, { ...around, ...change })(flowFrom(client));
  return 'refuse' in verdict ? verdict.refuse : verdict.upstreams.map(formatEndpoint).join(' ');
}

const both: Readonly<Record<Family, string>> = {
  4: '172.17.0.2:80 [fd00:17::2]:80',
  6: '[fd00:17::2]:80 172.17.0.2:80',
};

test('mismatch refuse offers a client no upstream of the other family', () => {
  const refuse = { ...transparent, mismatch: 'refuse' };
  assert.equal(decided(refuse, '203.0.113.9'), '172.17.0.2:80');
  assert.equal(decided(refuse, '2001:db8::9'), '[fd00:17::2]:80');
  assert.equal(decided(refuse, '2001:db8::9', {}, [ipv4Upstream]), 'family-mismatch');
  assert.equal(decided(refuse, '203.0.113.9', {}, [ipv6Upstream]), 'family-mismatch');
  assert.equal(decided({ ...refuse, family: 'v4' }, '2001:db8::9'), 'family-mismatch');
  assert.equal(decided(refuse, '203.0.113.9', {}, []), 'no-upstream');
  assert.equal(decided({ ...refuse, family: 'v6' }, '203.0.113.9', {}, [ipv4Upstream]), 'no-upstream');
});

/** What a client is offered of upstreams that are found when all that were known have failed. */
async function offeredLate(flags: Flags, client: string, change: Partial<Surroundings> = {}) {
  const late = () => Promise.resolve([...upstreams].reverse());
  const decide = compileDecide(ruleOf(flags), upstreams, { ...around, ...change }, late);
  const verdict = decide(flowFrom(client));
  assert.ok('upstreams' in verdict && verdict.late !== undefined);
  return (await verdict.late()).map(formatEndpoint).join(' ');
}

test('upstreams that are found late are offered to whom they would have been offered, in that order', async () => {
  for (const [flags, toIpv4, toIpv6] of [
    [transparent, both[4], both[6]],
    [{ ...transparent, mismatch: 'refuse' }, '172.17.0.2:80', '[fd00:17::2]:80'],
    [{ source: 'none', mismatch: 'refuse' }, both[4], both[6]],
    [{ source: 'none', family: 'prefer-v4' }, both[4], both[4]],
    [{ source: 'none', family: 'v6' }, '[fd00:17::2]:80', '[fd00:17::2]:80'],
  ] as const) {
    assert.equal(await offeredLate(flags, '203.0.113.9'), toIpv4, JSON.stringify(flags));
    assert.equal(await offeredLate(flags, '2001:db8::9'), toIpv6, JSON.stringify(flags));
  }
  const neither = { pseudo: { 4: false, 6: false } };
  assert.equal(await offeredLate(transparent, '2001:db8::9', neither), '[fd00:17::2]:80');
});

test('an upstream that is found late has the same neighbours as one that was known', () => {
  const approach = compileApproach(ruleOf(transparent), [], around);
  assert.ok(approach);
  for (const [client, upstream, seen] of obstacles) {
    if (seen !== 'shown') assert.equal(shown(approach(flowFrom(client), upstream)), seen, client);
  }
  assert.equal(
    shown(approach(flowFrom('172.18.0.9'), endpointOf('172.17.0.5', 80))),
    '172.18.0.9:0 transparent',
  );
});

test('every other mismatch offers both families, and so do other sources with mismatch refuse', () => {
  for (const mismatch of ['auto', 'pseudo', 'proxy-v2', 'plain']) {
    assert.equal(decided({ ...transparent, mismatch }, '203.0.113.9'), both[4]);
    assert.equal(decided({ ...transparent, mismatch }, '2001:db8::9'), both[6]);
  }
  for (const source of ['none', 'proxy-v2', 'pseudo'])
    assert.equal(decided({ source, mismatch: 'refuse' }, '2001:db8::9'), both[6]);
});

test('mismatch auto is pseudo for the family whose packets are kept here, and refuse for the other', () => {
  const onlyIpv4 = { pseudo: { 4: true, 6: false } };
  assert.equal(decided(transparent, '2001:db8::9', onlyIpv4), both[6]);
  assert.equal(decided(transparent, '203.0.113.9', onlyIpv4), '172.17.0.2:80');
  assert.equal(
    shown(approached(transparent, flowFrom('2001:db8::9'), ipv4Upstream, onlyIpv4)),
    '240.0.0.9:0',
  );
  const neither = { pseudo: { 4: false, 6: false } };
  assert.equal(decided(transparent, '2001:db8::9', neither, [ipv4Upstream]), 'family-mismatch');
  // Written out it is what it is: the start has warned.
  assert.equal(decided({ ...transparent, mismatch: 'pseudo' }, '2001:db8::9', neither), both[6]);
});

test('a client is refused when no pseudo address is left for it, and only when it would need one', () => {
  const asked: string[] = [];
  const hasOneFor = (client: Uint8Array, upstream: Family) => {
    asked.push(`${formatAddress(client)} ${upstream}`);
    return false;
  };
  const full = { pseudonyms: { ...around.pseudonyms, hasOneFor } };
  assert.equal(decided({ source: 'pseudo' }, '203.0.113.9', full), 'no-pseudo-address');
  assert.equal(decided(transparent, '2001:db8::9', full, [ipv4Upstream]), 'no-pseudo-address');
  assert.deepEqual(asked.splice(0), ['203.0.113.9 4', '2001:db8::9 4']);
  assert.equal(decided(transparent, '2001:db8::9', full), both[6]);
  assert.equal(
    decided({ ...transparent, mismatch: 'plain' }, '2001:db8::9', full, [ipv4Upstream]),
    '172.17.0.2:80',
  );
  assert.equal(decided({ source: 'proxy-v2' }, '203.0.113.9', full), both[4]);
  assert.deepEqual(asked, []);
  assert.equal(decided({ source: 'pseudo', deny: ['203.0.113.9'] }, '203.0.113.9', full), 'denied');
});

test('the upstreams of a verdict are one array for all its clients, with every source', () => {
  for (const source of ['none', 'transparent', 'pseudo']) {
    const decide = compileDecide(ruleOf({ source, mismatch: 'refuse' }), upstreams, around);
    const [first, second] = [decide(flowFrom('203.0.113.9')), decide(flowFrom('203.0.113.8'))];
    assert.ok('upstreams' in first && 'upstreams' in second);
    assert.equal(first.upstreams, second.upstreams);
    assert.ok(Object.isFrozen(first.upstreams));
  }
});

const clients = fc.constantFrom(
  '203.0.113.9',
  '2001:db8::9',
  '172.17.0.9',
  'fe80::9',
  '127.0.0.1',
  'fd00:17::2',
);
const flagsOfRules = fc.record({
  source: fc.constantFrom('transparent', 'pseudo'),
  mismatch: fc.constantFrom('auto', 'pseudo', 'proxy-v2', 'plain'),
  sourcePort: fc.constantFrom('any', 'keep'),
});

test('a source is of its upstream’s family, and the same flow is approached in the same way', () => {
  fc.assert(
    fc.property(flagsOfRules, clients, fc.constantFrom(...upstreams), (flags, client, upstream) => {
      const approach = compileApproach(ruleOf(flags), upstreams, around);
      assert.ok(approach);
      const flow = flowFrom(client);
      const first = approach(flow, upstream);
      const text = shown(first);
      approach(flowFrom('203.0.113.77'), upstream);
      assert.equal(shown(approach(flow, upstream)), text);
      if (first.source === undefined) return;
      assert.equal(formatAddress(first.source.address).includes(':'), upstream === ipv6Upstream, text);
      assert.equal(first.plain ?? first.announce, undefined);
    }),
  );
});
