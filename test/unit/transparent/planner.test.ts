/** From rules and the ways there are to routes, rules and a table, each as it is typed. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { loadConfig } from '../../../src/config/load.ts';
import { endpointOf } from '../../../src/net/address.ts';
import { needsOf } from '../../../src/transparent/needs.ts';
import type { Plan } from '../../../src/transparent/plan.ts';
import { makePlan } from '../../../src/transparent/planner.ts';
import type { Way } from '../../../src/transparent/way.ts';

const local: Way = { kind: 'local' };
const over = (name: string, gateway?: string): Way => ({ kind: 'interface', name, gateway });

interface Given {
  readonly flags: Readonly<Record<string, string | readonly string[]>>;
  /** Instead of what the flags publish. */
  readonly file?: string;
  readonly ways?: Readonly<Record<string, Way>>;
  readonly ipv6?: boolean;
  readonly linkLocal?: readonly string[];
}

function planOf({ flags, file, ways = {}, ipv6 = true, linkLocal = [] }: Given): Plan {
  const given =
    file === undefined ? { publish: ['8080:80'], source: 'transparent', ...flags } : { config: 'file' };
  const readFile = () => new TextEncoder().encode(file ?? '');
  const config = loadConfig({ flags: given, env: {}, readFile });
  const rules = config.rules.map((rule) => ({
    rule,
    upstreams: rule.to.flatMap((target) =>
      target.kind === 'address'
        ? [{ address: target.address, zone: target.zone, port: rule.port.containerPort }]
        : [],
    ),
  }));
  const facts = { ways: new Map(Object.entries(ways)), ipv6, linkLocal: new Set(linkLocal) };
  return makePlan(needsOf(rules), facts, config.transparent, config.pseudo);
}

/** Everything of a plan in lines. */
function lines({ routes, rules, marking }: Plan): readonly string[] {
  return [
    ...routes.map(({ family, words }) => `route -${family} ${words}`),
    ...rules.map(({ family, priority, words }) => `rule -${family} ${priority} ${words}`),
    ...(marking === undefined ? [] : [`mark ${marking.interfaces.join(' ')}`]),
  ];
}

const only = { mismatch: 'plain' };

test('an upstream behind an interface: a mark, a rule for it, and a table', () => {
  const plan = planOf({ flags: { ...only, to: ['172.17.0.2'] }, ways: { '172.17.0.2': over('docker0') } });
  assert.deepEqual(lines(plan), [
    'route -4 local 0.0.0.0/0 dev lo table 24000',
    'rule -4 60 iif docker0 fwmark 0x1000/0x1000 lookup 24000',
    'mark docker0',
  ]);
  assert.deepEqual(plan.remarks, []);
});

test('both families and several interfaces: a rule for each, one table for all', () => {
  const plan = planOf({
    flags: { ...only, to: ['172.17.0.2', 'fd00::2', '172.18.0.2', '172.18.0.3'] },
    ways: {
      '172.17.0.2': over('docker0'),
      'fd00::2': over('docker0'),
      '172.18.0.2': over('br-1'),
      '172.18.0.3': over('br-1'),
    },
    linkLocal: ['docker0'],
  });
  assert.deepEqual(lines(plan), [
    'route -4 local 0.0.0.0/0 dev lo table 24000',
    'route -6 local ::/0 dev lo table 24000',
    'rule -4 60 iif br-1 fwmark 0x1000/0x1000 lookup 24000',
    'rule -4 60 iif docker0 fwmark 0x1000/0x1000 lookup 24000',
    'rule -6 60 iif docker0 fwmark 0x1000/0x1000 lookup 24000',
    'mark br-1 docker0',
  ]);
});

test('every rule names its interface', () => {
  const plan = planOf({
    flags: {
      publish: ['8080:80', '5353:53/udp'],
      to: ['172.17.0.2', 'fd00::2', '127.0.0.1', '::1', '192.0.2.1'],
    },
    ways: {
      '172.17.0.2': over('docker0'),
      'fd00::2': over('docker0'),
      '127.0.0.1': local,
      '::1': local,
      '192.0.2.1': local,
    },
  });
  for (const { words } of plan.rules) assert.match(words, /(?:^| )iif \S+/, words);
});

test('names, numbers and the mark are the configured ones', () => {
  const plan = planOf({
    flags: {
      ...only,
      to: ['172.17.0.2', '127.0.0.1'],
      transparentMark: '0x2/0xf',
      transparentPriority: '1000',
      transparentRouteTable: '500',
    },
    ways: { '172.17.0.2': over('docker0'), '127.0.0.1': local },
  });
  assert.deepEqual(lines(plan).slice(0, 3), [
    'route -4 local 0.0.0.0/0 dev lo table 500',
    'rule -4 1000 iif docker0 fwmark 0x2/0xf lookup 500',
    'rule -4 1001 from 127.0.0.0/8 iif lo lookup 500',
  ]);
});

test('an interface that was named has rules of both families, where the host has both', () => {
  const flags = { ...only, to: ['172.17.0.2'], transparentInterface: ['br-9', 'docker0'] };
  const ways = { '172.17.0.2': over('docker0') };
  assert.deepEqual(
    planOf({ flags, ways }).rules.map(({ family, words }) => `${family} ${words.split(' ')[1]}`),
    ['4 br-9', '6 br-9', '4 docker0', '6 docker0'],
  );
  assert.deepEqual(
    planOf({ flags, ways, ipv6: false }).rules.map(({ family }) => family),
    [4, 4],
  );
});

test('without IPv6 nothing is set up for it, by any recipe, and that is said once', () => {
  const ways = { '172.17.0.2': over('docker0'), 'fd00::2': over('docker0') };
  for (const source of ['transparent', 'pseudo']) {
    const flags = {
      source,
      publish: ['8080:80', '5353:53/udp'],
      to: ['172.17.0.2', 'fd00::2', '127.0.0.1', '::1'],
    };
    const plan = planOf({ flags, ways, ipv6: false });
    assert.ok(plan.routes.length > 0);
    assert.deepEqual(
      [...plan.routes, ...plan.rules].filter(({ family }) => family === 6),
      [],
    );
    assert.equal(plan.remarks.filter((remark) => /^IPv6 is switched off here/.test(remark)).length, 1);
    assert.doesNotMatch(plan.remarks.join('\n'), /::/);
  }
  assert.doesNotMatch(planOf({ flags: { to: ['127.0.0.1'] }, ipv6: false }).remarks.join(), /IPv6/);
});

test('an interface that was named waits for upstreams to come', () => {
  const flags = { source: 'none', to: ['172.17.0.2'], transparentInterface: ['br-9'] };
  assert.deepEqual(lines(planOf({ flags, ipv6: false })), [
    'route -4 local 0.0.0.0/0 dev lo table 24000',
    'rule -4 60 iif br-9 fwmark 0x1000/0x1000 lookup 24000',
    'mark br-9',
  ]);
});

test('a TCP program on loopback is told by the source of its answers', () => {
  const plan = planOf({
    flags: { ...only, to: ['127.0.0.1', '127.0.0.5', '::1'] },
    ways: { '127.0.0.1': local, '127.0.0.5': local, '::1': local },
  });
  assert.deepEqual(lines(plan), [
    'route -4 local 0.0.0.0/0 dev lo table 24000',
    'route -6 local ::/0 dev lo table 24000',
    'rule -4 61 from 127.0.0.0/8 iif lo lookup 24000',
    'rule -6 61 from ::1/128 iif lo lookup 24000',
  ]);
  assert.deepEqual(plan.remarks, []);
});

test('a UDP program on loopback is told by its port, too, before it has chosen a source', () => {
  const flags = { ...only, publish: ['5300-5302:53-55/udp', '5400:100/udp'], to: ['127.0.0.1', '::1'] };
  const plan = planOf({ flags, ways: { '127.0.0.1': local, '::1': local } });
  assert.deepEqual(lines(plan), [
    'route -4 local 0.0.0.0/0 dev lo table 24000',
    'route -6 local ::/0 dev lo table 24000',
    'route -4 local 0.0.0.0/0 dev lo table 24001 src 127.0.0.1',
    'route -6 local ::/0 dev lo table 24002 src ::1',
    'rule -4 61 from 127.0.0.0/8 iif lo lookup 24000',
    'rule -6 61 from ::1/128 iif lo lookup 24000',
    'rule -6 64 iif lo nop',
    'rule -6 62 from ::/1 iif lo ipproto udp goto 64',
    'rule -6 62 from 8000::/1 iif lo ipproto udp goto 64',
    'rule -4 63 from 0.0.0.0/32 iif lo ipproto udp sport 53-55 lookup 24001',
    'rule -4 63 from 0.0.0.0/32 iif lo ipproto udp sport 100 lookup 24001',
    'rule -6 63 iif lo ipproto udp sport 53-55 lookup 24002',
    'rule -6 63 iif lo ipproto udp sport 100 lookup 24002',
  ]);
  assert.match(plan.remarks.join('\n'), /UDP port 54 on a wildcard address answers nobody but dualport/);
});

test('0.0.0.0 and :: as upstreams are loopback', () => {
  const flags = { ...only, to: ['0.0.0.0', '::'] };
  assert.deepEqual(
    planOf({ flags, ways: { '127.0.0.1': local, '::1': local } }).rules.map(({ words }) => words),
    ['from 127.0.0.0/8 iif lo lookup 24000', 'from ::1/128 iif lo lookup 24000'],
  );
});

test("another address of the host is told by its ports, for the host's other answers come from there, too", () => {
  const flags = { ...only, publish: ['80:80', '8081-8083:81-83', '5353:53/udp'], to: ['192.0.2.1'] };
  const plan = planOf({ flags, ways: { '192.0.2.1': local } });
  assert.deepEqual(lines(plan), [
    'route -4 local 0.0.0.0/0 dev lo table 24000',
    'route -4 local 0.0.0.0/0 dev lo table 24001 src 192.0.2.1',
    'rule -4 61 from 192.0.2.1/32 iif lo ipproto tcp sport 80-83 lookup 24000',
    'rule -4 61 from 192.0.2.1/32 iif lo ipproto udp sport 53 lookup 24000',
    'rule -4 63 from 0.0.0.0/32 iif lo ipproto udp sport 53 lookup 24001',
  ]);
  assert.match(
    plan.remarks.join('\n'),
    /192\.0\.2\.1:80\/tcp is on this host: whoever else calls it.*give 127\.0\.0\.1/,
  );
});

test('a UDP port that two addresses of the host want is answered from loopback', () => {
  const flags = { ...only, publish: ['5353:53/udp'], to: ['192.0.2.1', '127.0.0.1'] };
  const plan = planOf({ flags, ways: { '127.0.0.1': local, '192.0.2.1': local } });
  const byPort = plan.rules.filter(({ priority }) => priority === 63);
  assert.deepEqual(
    byPort.map(({ words }) => words),
    ['from 0.0.0.0/32 iif lo ipproto udp sport 53 lookup 24001'],
  );
  assert.deepEqual(
    plan.routes.map(({ words }) => words),
    ['local 0.0.0.0/0 dev lo table 24000', 'local 0.0.0.0/0 dev lo table 24001 src 127.0.0.1'],
  );
});

test('more local addresses than there are tables: the first ones have them, and the others are said', () => {
  const hosts = Array.from({ length: 17 }, (_, i) => `192.0.2.${i + 1}`);
  const publish = hosts.map((to, i) => ({ ports: `${5000 + i}:${6000 + i}/udp`, to }));
  const file = JSON.stringify({ defaults: { source: 'transparent', mismatch: 'plain' }, publish });
  const plan = planOf({ flags: {}, file, ways: Object.fromEntries(hosts.map((host) => [host, local])) });
  const tables = plan.routes.map(({ words }) => /table (\d+)/.exec(words)?.[1]);
  assert.deepEqual([tables.length, tables.at(0), tables.at(-1)], [16, '24000', '24015']);
  assert.match(
    plan.remarks.join('\n'),
    /by at most 15 addresses of this host, and not by 192\.0\.2\.16, 192\.0\.2\.17:/,
  );
});

test('pseudo addresses need a route for each family of upstreams, and nothing else', () => {
  const flags = { source: 'pseudo', to: ['172.17.0.2', 'fd00::2'], pseudoV4: '240.1.0.0/16' };
  const ways = { '172.17.0.2': over('docker0'), 'fd00::2': over('docker0') };
  assert.deepEqual(lines(planOf({ flags, ways })), [
    'route -4 local 240.1.0.0/16 dev lo table local metric 60',
    'route -6 local fd5f:bf90:309::/96 dev lo table local metric 60',
  ]);
});

test('a UDP program on loopback answers pseudo addresses from loopback', () => {
  const flags = { source: 'pseudo', publish: ['5353:53/udp'], to: ['127.0.0.1', 'fd00::2'] };
  const ways = { '127.0.0.1': local, 'fd00::2': over('docker0') };
  assert.deepEqual(lines(planOf({ flags, ways })), [
    'route -4 local 240.0.0.0/4 dev lo table local metric 60 src 127.0.0.1',
    'route -6 local fd5f:bf90:309::/96 dev lo table local metric 60',
  ]);
});

for (const [mismatch, has] of Object.entries({
  auto: true,
  pseudo: true,
  plain: false,
  'proxy-v2': false,
  refuse: false,
})) {
  test(`a transparent rule with mismatch ${mismatch} has ${has ? 'a' : 'no'} pseudo route`, () => {
    const flags = { mismatch, to: ['172.17.0.2'] };
    const routes = planOf({ flags, ways: { '172.17.0.2': over('docker0') } }).routes;
    assert.equal(
      routes.some(({ words }) => words.includes('240.0.0.0/4')),
      has,
    );
  });
}

test('an upstream of a family that the rule does not use needs nothing', () => {
  const flags = { ...only, family: 'v4', to: ['172.17.0.2', 'fd00::2'] };
  const plan = planOf({ flags, ways: { '172.17.0.2': over('docker0'), 'fd00::2': over('docker0') } });
  assert.deepEqual(
    [...plan.routes, ...plan.rules].map(({ family }) => family),
    [4, 4],
  );
});

test('other sources need nothing', () => {
  for (const source of ['none', 'proxy-v2']) {
    const plan = planOf({ flags: { source, to: ['172.17.0.2'] }, ways: { '172.17.0.2': over('docker0') } });
    assert.deepEqual([lines(plan), plan.remarks], [[], []]);
  }
});

test('an upstream that nothing leads to is said once, and the others are set up', () => {
  const flags = { ...only, publish: ['8080:80', '8081:81'], to: ['172.17.0.2', '10.9.9.9'] };
  const ways = {
    '172.17.0.2': over('docker0'),
    '10.9.9.9': { kind: 'none', reason: 'Network is unreachable' } as const,
  };
  const plan = planOf({ flags, ways });
  assert.equal(plan.rules.length, 1);
  assert.equal(plan.remarks.length, 1);
  assert.match(
    plan.remarks[0] ?? '',
    /^no way leads to 10\.9\.9\.9 \(Network is unreachable\).*--transparent-interface/,
  );
});

test('an upstream behind a gateway is set up, with what this host cannot see to', () => {
  const to = ['10.9.9.9'];
  const ways = { '10.9.9.9': over('eth0', '192.0.2.254') };
  const plan = planOf({ flags: { ...only, to }, ways });
  assert.deepEqual(plan.marking?.interfaces, ['eth0']);
  assert.match(
    plan.remarks.join(),
    /behind the gateway 192\.0\.2\.254: what it answers to clients has to come back/,
  );
  assert.match(
    planOf({ flags: { source: 'pseudo', to }, ways }).remarks.join(),
    /has to be routed to this host over there/,
  );
});

test('a pseudo address and a UDP program on another address of the host do not go together', () => {
  const flags = { source: 'pseudo', publish: ['5353:53/udp'], to: ['192.0.2.1'] };
  assert.match(
    planOf({ flags, ways: { '192.0.2.1': local } }).remarks.join(),
    /does not answer pseudo addresses there; give 127/,
  );
});

test('an interface without a link-local address is remarked on where IPv6 goes over it', () => {
  const ways = { 'fd00::2': over('docker0'), '172.17.0.2': over('docker0') };
  const remark = /docker0 has no link-local IPv6 address.*ip -6 address add fe80::1\/64 dev docker0/;
  assert.match(planOf({ flags: { ...only, to: ['fd00::2'] }, ways }).remarks.join(), remark);
  assert.deepEqual(planOf({ flags: { ...only, to: ['172.17.0.2'] }, ways }).remarks, []);
  assert.deepEqual(planOf({ flags: { ...only, to: ['fd00::2'] }, ways, linkLocal: ['docker0'] }).remarks, []);
});

test('a link-local upstream is one of its interface', () => {
  const plan = planOf({
    flags: { ...only, to: ['fe80::2%eth5'] },
    ways: { 'fe80::2%eth5': over('eth5') },
    linkLocal: ['eth5'],
  });
  assert.deepEqual(
    plan.rules.map(({ words }) => words),
    ['iif eth5 fwmark 0x1000/0x1000 lookup 24000'],
  );
  assert.deepEqual(endpointOf('fe80::2%eth5', 1).zone, 'eth5');
});

test('everything has its reason', () => {
  const plan = planOf({
    flags: { publish: ['8080:80', '5353:53/udp'], to: ['172.17.0.2', '127.0.0.1', '::1'] },
    ways: { '172.17.0.2': over('docker0'), '127.0.0.1': local, '::1': local },
  });
  for (const { why } of [...plan.routes, ...plan.rules, plan.marking ?? { why: '' }])
    assert.match(why, /^\S.{10,}\S$/);
});
