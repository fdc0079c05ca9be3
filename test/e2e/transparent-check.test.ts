/**
 * `dualport transparent check`: it says that answers find back, or what is to blame that they do not. Each thing
 * that can be to blame is brought about in network namespaces; nothing of a check stays behind.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { type Place, Stage } from '../support/dualport.ts';
import {
  addresses,
  filterInput,
  type Namespace,
  namespacesOf,
  nft,
  type World,
} from '../support/namespace.ts';
import { main } from '../support/process.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import {
  buildTools,
  dump,
  inside,
  ipEach,
  listenOn,
  openRoutedWorld,
  quick,
  sysctl,
  type Tools,
  transparent,
  transparently,
} from '../support/transparent.ts';

const options = { skip: skipWithoutCore('root', 'netns', 'nft', 'gcc'), timeout: 60_000 };
const { container, client } = addresses;

let tools: Tools;
if (options.skip === false) {
  tools = buildTools(new Stage({ after }));
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

const ports = ['-p', '8080:80', '-p', '5353:53/udp'];
const toContainer = [...ports, '--to', container.v4, '--to', container.v6, '--source', 'transparent'];
const toIpv4 = [...ports, '--to', container.v4, '--source', 'transparent', '--mismatch', 'plain'];
const toLoopback = [
  ...ports,
  '--to',
  '127.0.0.1',
  '--to',
  '::1',
  '--source',
  'transparent',
  '--mismatch',
  'plain',
];
const everywhere = ['tcp 0.0.0.0 80', 'tcp :: 80', 'udp 0.0.0.0 53', 'udp :: 53'];

async function containerWorld(stage: Stage): Promise<World> {
  const world = openRoutedWorld(stage);
  await listenOn(stage, tools, world.container, everywhere);
  return world;
}

interface Found {
  readonly code: number | null;
  /** `198.18.2.2:80/tcp transparent` → works, untold, or the cause. */
  readonly results: Readonly<Record<string, string>>;
  readonly text: string;
}

async function check(stage: Stage, place: Place, args: readonly string[]): Promise<Found> {
  const { code, stdout, stderr } = await transparent(stage, place, 'check', [...args, '--json']);
  assert.equal(stderr, '');
  const { works, findings } = JSON.parse(stdout);
  assert.equal(code, works ? 0 : 1);
  const results = findings.map(({ upstream, source, verdict }: Finding) => [
    `${upstream} ${source}`,
    verdict.cause ?? verdict.result,
  ]);
  return { code, results: Object.fromEntries(results), text: stdout };
}

interface Finding {
  readonly upstream: string;
  readonly source: string;
  readonly verdict: { readonly result: string; readonly cause?: string };
}

/** TCP and UDP of the container's IPv4 address. */
function ipv4(tcp: string, udp: string = tcp): Readonly<Record<string, string>> {
  return { [`${container.v4}:80/tcp transparent`]: tcp, [`${container.v4}:53/udp transparent`]: udp };
}

// Most of them wait for answers that do not come.
describe('dualport transparent check', { concurrency: 4, skip: options.skip }, () => {
  test('what is set up works, transparent and pseudo, and nothing of the check stays', options, async (t) => {
    const stage = new Stage(t);
    const { host } = await containerWorld(stage);
    await transparently(stage, host, 'up', toContainer);
    const before = dump(host);
    const { code, results } = await check(stage, host, toContainer);
    assert.equal(code, 0);
    assert.equal(Object.keys(results).length, 8, 'two protocols, two families, two sources');
    assert.deepEqual([...new Set(Object.values(results))], ['works']);
    assert.equal(dump(host), before);
  });

  test('it is said in lines, too', options, async (t) => {
    const stage = new Stage(t);
    const { host } = await containerWorld(stage);
    await transparently(stage, host, 'up', toIpv4);
    const lines = await transparently(stage, host, 'check', [...toIpv4, '--from', '192.0.2.4']);
    assert.match(lines, /^ok {4}198\.18\.2\.2:80\/tcp as 192\.0\.2\.4 \(transparent\): answers find back$/m);
    await transparently(stage, host, 'down');
    const { code, stdout } = await transparent(stage, host, 'check', toIpv4);
    assert.equal(code, 1);
    assert.match(
      stdout,
      /^FAIL {2}198\.18\.2\.2:80\/tcp as 203\.0\.113\.1 .*not in force: ip -4 route add.*\[missing-rule\]$/m,
    );
    assert.equal(stdout.match(/^remedy for missing-rule: run dualport transparent up$/gm)?.length, 1);
  });

  test('without a set-up rules and routes are missing', options, async (t) => {
    const stage = new Stage(t);
    const { host } = await containerWorld(stage);
    const { results } = await check(stage, host, toContainer);
    for (const [upstream, result] of Object.entries(results)) {
      assert.equal(result, upstream.endsWith(' pseudo') ? 'missing-route' : 'missing-rule', upstream);
    }
  });

  /** What an operator's host may have, with a set-up in place, and what is to blame then. */
  const causes: Readonly<
    Record<string, readonly [spoil: (world: World) => void, results: object, says?: RegExp]>
  > = {
    'a rule that was removed': [
      ({ host }) => ipEach(host, ['rule del pref 60']),
      ipv4('missing-rule'),
      /not in force: ip -4 rule add pref 60 iif container0/,
    ],
    'a rule that was removed, where packets are forwarded': [
      ({ host }) => {
        ipEach(host, ['rule del pref 60', `route add default via ${client.v4}`]);
        sysctl(host, { 'ipv4/ip_forward': 1 });
      },
      ipv4('missing-rule'),
    ],
    'a table that was removed': [
      ({ host }) => nft(host, 'flush ruleset\n'),
      ipv4('missing-rule'),
      /the nft table/,
    ],
    'src_valid_mark=1 and a rule that names no interface': [
      ({ host }) => {
        withoutInterface(host);
        sysctl(host, { 'ipv4/conf/all/src_valid_mark': 1, 'ipv4/conf/container0/rp_filter': 1 });
      },
      ipv4('src_valid_mark'),
      /names? their interface/,
    ],
    'rp_filter=1 where answers come by another way': [
      (world) => {
        anotherCable(world);
        sysctl(world.host, { 'ipv4/conf/other0/rp_filter': 1 });
      },
      ipv4('rp_filter', 'no-answer'),
      /come back over other0, where rp_filter=1 drops them.*--transparent-interface other0/s,
    ],
    'answers that come by another way': [
      (world) => {
        anotherCable(world);
        sysctl(world.host, { 'ipv4/conf/all/rp_filter': 0, 'ipv4/conf/other0/rp_filter': 0 });
      },
      // The program is on a wildcard address, and UDP takes the address of the way out.
      ipv4('interface', 'no-answer'),
      /answers the client from another address/,
    ],
    'a masquerade': [
      ({ host }) => nft(host, natTable('oifname "container0" masquerade')),
      ipv4('masquerade'),
    ],
    'an address of NAT': [
      ({ host }) => nft(host, natTable('ip saddr 203.0.113.0/24 snat ip to 198.18.2.1')),
      ipv4('masquerade'),
    ],
    'an upstream without a way back': [
      ({ container }) => ipEach(container, ['route del default']),
      ipv4('no-answer'),
    ],
    'an upstream that drops strangers': [
      ({ container }) => filterInput(container, ['policy drop;', `ip saddr ${addresses.gateway.v4} accept`]),
      ipv4('no-answer'),
    ],
    'an upstream that refuses strangers': [
      ({ container }) => filterInput(container, ['ip saddr 203.0.113.0/24 reject']),
      ipv4('upstream'),
    ],
    'an input filter that drops answers': [
      ({ host }) => filterInput(host, ['ip daddr 203.0.113.0/24 drop']),
      ipv4('input'),
    ],
    'an input filter that drops answers to everybody': [
      ({ host }) => filterInput(host, ['policy drop;']),
      ipv4('input'),
    ],
    'an output filter': [
      ({ host }) => nft(host, filterTable('output', 'ip saddr 203.0.113.0/24 drop')),
      ipv4('output'),
    ],
    'a reverse path filter and a rule that names no interface': [
      ({ host }) => {
        withoutInterface(host);
        nft(host, filterTable('prerouting', 'fib saddr . mark . iif oif missing drop', 'mangle + 10'));
      },
      ipv4('firewall'),
    ],
    'an upstream that is gone': [
      ({ container }) => ipEach(container, ['link set eth0 down']),
      // Over UDP that looks like a program that answers nothing.
      ipv4('upstream', 'untold'),
    ],
  };

  function withoutInterface(place: Namespace): void {
    ipEach(place, ['rule del pref 60', 'rule add pref 60 fwmark 0x1000/0x1000 lookup 24000 protocol 240']);
  }

  function natTable(rule: string): string {
    return `table inet nat {\nchain out {\ntype nat hook postrouting priority srcnat; policy accept;\n${rule}\n}\n}\n`;
  }

  function filterTable(hook: string, rule: string, priority = '0'): string {
    return `table inet theirs {\nchain one {\ntype filter hook ${hook} priority ${priority}; policy accept;\n${rule}\n}\n}\n`;
  }

  /** A second cable between container and host, by which the container sends what is not for its own network. */
  function anotherCable(world: World): void {
    ipEach(world.host, [
      `link add other0 type veth peer name eth1 netns ${world.container.name}`,
      'link set other0 addrgenmode none',
      'link set other0 up',
      'address add 198.18.3.1/24 dev other0',
    ]);
    ipEach(world.container, [
      'link set eth1 up',
      'address add 198.18.3.2/24 dev eth1',
      'route replace default via 198.18.3.1',
      // rp_filter is asked for ARP, too.
      `neigh replace 198.18.3.1 lladdr ${macOf(world.host, 'other0')} dev eth1 nud permanent`,
    ]);
  }

  function macOf(place: Namespace, device: string): string {
    const [{ address }] = JSON.parse(inside(quick(place), ['ip', '-j', 'link', 'show', device]));
    return address;
  }

  for (const [what, [spoil, results, says]] of Object.entries(causes)) {
    test(`${what} is found to be to blame`, options, async (t) => {
      const stage = new Stage(t);
      const world = await containerWorld(stage);
      await transparently(stage, world.host, 'up', toIpv4);
      spoil(world);
      const before = dump(world.host);
      const found = await check(stage, world.host, toIpv4);
      assert.deepEqual(found.results, results);
      if (says !== undefined) assert.match(found.text, says);
      assert.equal(dump(world.host), before);
    });
  }

  test('a client beside the upstream cannot be spoofed, and is told from a fault', options, async (t) => {
    const stage = new Stage(t);
    const { host: place } = await containerWorld(stage);
    await transparently(stage, place, 'up', toIpv4);
    const { results, text } = await check(stage, place, [...toIpv4, '--from', '198.18.2.9']);
    assert.deepEqual(results, ipv4('on-link'));
    assert.match(text, /container0, too: the upstream answers it directly.*connects such clients plainly/s);
  });

  test('a bridge without a link-local address is remarked on', options, async (t) => {
    const stage = new Stage(t);
    const { host: place } = await containerWorld(stage);
    const remark = /container0 has no link-local IPv6 address/;
    assert.doesNotMatch((await transparent(stage, place, 'up', toContainer)).stderr, remark);
    ipEach(place, ['-6 address del fe80::21/64 dev container0']);
    assert.match((await transparent(stage, place, 'up', toContainer)).stderr, remark);
    assert.match((await check(stage, place, toContainer)).text, remark);
    assert.doesNotMatch((await transparent(stage, place, 'up', toIpv4)).stderr, remark);
  });

  test('a port where nobody listens shows by its refusal that answers find back', options, async (t) => {
    const stage = new Stage(t);
    const { host: place } = openRoutedWorld(stage);
    await transparently(stage, place, 'up', toIpv4);
    const { results, text } = await check(stage, place, toIpv4);
    assert.deepEqual(results, ipv4('works'));
    assert.match(text, /nobody listens there/);
  });

  test(
    'a UDP program that answers nothing is not held to be a fault, unless rules are missing',
    options,
    async (t) => {
      const stage = new Stage(t);
      const world = openRoutedWorld(stage);
      await listenOn(stage, tools, world.container, ['tcp 0.0.0.0 80']);
      stage.start(world.container, 'socat', ['-u', 'UDP-RECV:53', 'OPEN:/dev/null']);
      await until(() => /:53 /.test(inside(quick(world.container), ['ss', '-Hlun'])), 'a UDP program');
      await transparently(stage, world.host, 'up', toIpv4);
      const { code, results } = await check(stage, world.host, toIpv4);
      assert.deepEqual(results, ipv4('works', 'untold'));
      assert.equal(code, 0);
      ipEach(world.host, ['rule del pref 60']);
      assert.deepEqual((await check(stage, world.host, toIpv4)).results, ipv4('missing-rule'));
    },
  );

  for (const [where, listeners] of [
    ['loopback', ['tcp 127.0.0.1 80', 'tcp ::1 80', 'udp 127.0.0.1 53', 'udp ::1 53']],
    ['wildcard addresses', everywhere],
  ] as const) {
    test(`programs on ${where} of this host: what works, and what is missing`, options, async (t) => {
      const stage = new Stage(t);
      const { container: place } = openRoutedWorld(stage);
      await listenOn(stage, tools, place, listeners);
      await transparently(stage, place, 'up', toLoopback);
      const all = async () => [...new Set(Object.values((await check(stage, place, toLoopback)).results))];
      assert.deepEqual(await all(), ['works']);
      await transparently(stage, place, 'down');
      assert.deepEqual(await all(), ['missing-rule']);
    });
  }

  test(
    'without rules by UDP port a program on a wildcard address is the only one to fail',
    options,
    async (t) => {
      const stage = new Stage(t);
      const { container: place } = openRoutedWorld(stage);
      await listenOn(stage, tools, place, everywhere);
      await transparently(stage, place, 'up', toLoopback);
      ipEach(place, ['rule del pref 63', '-6 rule del pref 63']);
      const { results, text } = await check(stage, place, toLoopback);
      assert.deepEqual(results, {
        '127.0.0.1:80/tcp transparent': 'works',
        '[::1]:80/tcp transparent': 'works',
        '127.0.0.1:53/udp transparent': 'missing-rule',
        '[::1]:53/udp transparent': 'missing-rule',
      });
      assert.match(text, /the program listens on a wildcard address and answers from another one/);
    },
  );

  test('without the privilege to have an address it says so', options, async (t) => {
    const stage = new Stage(t);
    const { host: place } = await containerWorld(stage);
    await transparently(stage, place, 'up', toContainer);
    const words = ['setpriv', '--bounding-set', '-all', '--inh-caps', '-all', '--no-new-privs'];
    const { results, text } = await check(stage, { prefix: [...place.prefix, ...words] }, toContainer);
    for (const [upstream, result] of Object.entries(results)) {
      assert.equal(result, upstream.endsWith(' pseudo') ? 'works' : 'privilege', upstream);
    }
    assert.match(text, /nothing could be counted: .*CAP_NET_ADMIN/);
  });

  test(
    'with the privilege for sockets only, or without nft, it proves and cannot say why',
    options,
    async (t) => {
      const stage = new Stage(t);
      const { host: place } = await containerWorld(stage);
      await transparently(stage, place, 'up', toIpv4);
      const words = ['setpriv', '--bounding-set', '-all,+net_raw', '--inh-caps', '-all'];
      const socketsOnly = { prefix: [...place.prefix, ...words] };
      assert.deepEqual((await check(stage, socketsOnly, toIpv4)).results, ipv4('works'));
      ipEach(place, ['rule del pref 60']);
      const { results, text } = await check(stage, socketsOnly, toIpv4);
      assert.deepEqual(results, ipv4('unknown'));
      assert.match(text, /run this check as root, with nft installed/);
      const withoutNft = [
        ...place.prefix,
        'unshare',
        '--mount',
        'sh',
        '-c',
        'mount -t tmpfs tmpfs /usr/sbin && exec "$@"',
        'sh',
      ];
      assert.match((await check(stage, { prefix: withoutNft }, toIpv4)).text, /nft is not installed/);
    },
  );

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    test(`a check that ${signal} ends in the middle leaves nothing`, options, async (t) => {
      const stage = new Stage(t);
      const { host: place } = await containerWorld(stage);
      const before = dump(place);
      const running = stage.background(place, process.execPath, [main, 'transparent', 'check', ...toIpv4]);
      await until(() => dump(place) !== before, 'its table');
      running.signal(signal);
      const { code } = await running.exit;
      assert.equal(code, 1);
      assert.equal(dump(place), before);
    });
  }

  test('a check that was killed leaves a table, which the next one or down removes', options, async (t) => {
    const stage = new Stage(t);
    const { host: place } = await containerWorld(stage);
    const before = dump(place);
    const killed = async () => {
      const running = stage.background(place, process.execPath, [main, 'transparent', 'check', ...toIpv4]);
      await until(() => dump(place) !== before, 'its table');
      // It takes two seconds, and another one may take as long to begin.
      running.signal('SIGSTOP');
      const { code, stderr } = await transparent(stage, place, 'check', toIpv4);
      assert.equal(code, 75, 'meanwhile there is no other');
      assert.match(stderr, /another dualport transparent check runs/);
      running.signal('SIGKILL');
      await running.exit;
      assert.match(dump(place), /table inet dualport_check/);
    };
    await killed();
    await check(stage, place, toIpv4);
    assert.equal(dump(place), before);
    await killed();
    await transparently(stage, place, 'down');
    assert.equal(dump(place), before);
  });

  test('a client of a family that no upstream has is refused', options, async (t) => {
    const stage = new Stage(t);
    const { host: place } = openRoutedWorld(stage);
    const { code, stderr } = await transparent(stage, place, 'check', [...toIpv4, '--from', '2001:db8::1']);
    assert.equal(code, 2);
    assert.match(stderr, /--from: found 2001:db8::1, and no upstream with source transparent is of IPv6/);
    const bad = await transparent(stage, place, 'check', [...toIpv4, '--from', 'here']);
    assert.equal(bad.code, 2);
    assert.match(bad.stderr, /"here" is not an IP address/);
  });
});
