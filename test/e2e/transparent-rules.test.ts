/**
 * That answers to the address of somebody else come back, by the rules of `dualport transparent up`, whatever else
 * the host has set; and that nothing else is concerned. Connections are made by spoof.c, so it is the rules that
 * are tested, and not the relay.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { Stage } from '../support/dualport.ts';
import {
  addresses,
  filterInput,
  type Namespace,
  namespacesOf,
  nft,
  type World,
} from '../support/namespace.ts';
import { skipUnless } from '../support/requirements.ts';
import {
  buildTools,
  call,
  type FamilyName,
  families,
  inside,
  ipEach,
  listenOn,
  openRoutedWorld,
  quick,
  strangers,
  sysctl,
  type Tools,
  transparently,
} from '../support/transparent.ts';

const options = { skip: skipUnless('root', 'netns', 'nft', 'gcc'), timeout: 60_000 };
const { container, client, host } = addresses;

let tools: Tools;
if (options.skip === false) {
  tools = buildTools(new Stage({ after }));
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

const published = ['-p', '8080:80', '-p', '5353:53/udp', '--source', 'transparent'];
const toContainer = [...published, '--to', container.v4, '--to', container.v6];
const everywhere = ['tcp 0.0.0.0 80', 'tcp :: 80', 'udp 0.0.0.0 53', 'udp :: 53'];
const ports = { tcp: 80, udp: 53 } as const;

type Addresses = Readonly<Record<FamilyName, string>>;

/** Whom the programs at these addresses take callers from this place for, who call as `from`, by protocol and family. */
async function callers(
  stage: Stage,
  place: Namespace,
  from: Addresses,
  to: Addresses,
): Promise<Record<string, string>> {
  const calls = families.flatMap((family) =>
    (['tcp', 'udp'] as const).map(async (protocol) => {
      const one = { protocol, client: from[family], to: to[family], port: ports[protocol] };
      return [`${protocol} ${family}`, await call(stage, tools, place, one)] as const;
    }),
  );
  return Object.fromEntries(await Promise.all(calls));
}

const peers = (stage: Stage, place: Namespace, to: Addresses) => callers(stage, place, strangers, to);

/** What `callers` says where everybody is taken for these. */
const everybody = ({ v4, v6 }: Addresses) => ({ 'tcp v4': v4, 'tcp v6': v6, 'udp v4': v4, 'udp v6': v6 });

const known = everybody(strangers);

async function containerWorld(stage: Stage): Promise<World> {
  const world = openRoutedWorld(stage);
  await listenOn(stage, tools, world.container, everywhere);
  return world;
}

test('without rules no answer comes back', options, async (t) => {
  const stage = new Stage(t);
  const world = await containerWorld(stage);
  for (const protocol of ['tcp', 'udp'] as const) {
    for (const family of families) {
      const one = {
        protocol,
        client: strangers[family],
        to: container[family],
        port: ports[protocol],
        milliseconds: 300,
      };
      assert.match(await call(stage, tools, world.host, one), / ETIMEDOUT$/);
    }
  }
});

const filters = { 'ipv4/conf/all/rp_filter': 0, 'ipv4/conf/default/rp_filter': 0 };
const rpFilter = (value: number) => ({ ...filters, 'ipv4/conf/container0/rp_filter': value });

/** What an operator's host may have set, and how the rules must not care. */
const surroundings: Readonly<Record<string, (world: World) => void>> = {
  'rp_filter=0': ({ host }) => sysctl(host, rpFilter(0)),
  'rp_filter=1': ({ host }) => sysctl(host, rpFilter(1)),
  'rp_filter=2': ({ host }) => sysctl(host, rpFilter(2)),
  'src_valid_mark=1 and rp_filter=1': ({ host }) =>
    sysctl(host, { ...rpFilter(1), 'ipv4/conf/all/src_valid_mark': 1 }),
  'src_valid_mark=1 and rp_filter=2': ({ host }) =>
    sysctl(host, { ...rpFilter(2), 'ipv4/conf/all/src_valid_mark': 1 }),
  'rp_filter=1 in the container': (world) =>
    sysctl(world.container, { 'ipv4/conf/all/rp_filter': 1, 'ipv4/conf/eth0/rp_filter': 1 }),
  'a reverse path filter as firewalld has it': ({ host }) => nft(host, reversePathFilter),
  'forwarding on': ({ host }) => sysctl(host, { 'ipv4/ip_forward': 1, 'ipv6/conf/all/forwarding': 1 }),
  'forwarding off': ({ host }) => sysctl(host, { 'ipv4/ip_forward': 0, 'ipv6/conf/all/forwarding': 0 }),
  'an input filter that drops all but what is established': ({ host }) =>
    filterInput(host, [
      'policy drop;',
      'ct state established,related accept',
      'meta l4proto ipv6-icmp accept',
    ]),
  'a default route to the client': ({ host }) =>
    ipEach(host, [`route add default via ${client.v4}`, `-6 route add default via ${client.v6}`]),
  // Tailscale's `from all lookup 52` has a route to each of its clients.
  'a rule of somebody else that would lead answers to the client': ({ host }) =>
    ipEach(host, [
      'rule add pref 5270 lookup 52',
      `route add ${strangers.v4} via ${client.v4} table 52`,
      '-6 rule add pref 5270 lookup 52',
      `-6 route add ${strangers.v6} via ${client.v6} table 52`,
    ]),
};

const reversePathFilter = `table inet filter {
chain prerouting {
type filter hook prerouting priority mangle + 10; policy accept;
fib saddr . mark . iif oif missing drop
}
}
`;

for (const [what, set] of Object.entries(surroundings)) {
  test(`a container's answers come back with ${what}`, options, async (t) => {
    const stage = new Stage(t);
    const world = await containerWorld(stage);
    set(world);
    await transparently(stage, world.host, 'up', toContainer);
    assert.deepEqual(await peers(stage, world.host, container), known);
  });
}

test('a container on another bridge is another interface, and both are served', options, async (t) => {
  const stage = new Stage(t);
  const world = await containerWorld(stage);
  // The client's namespace is a second container now.
  await listenOn(stage, tools, world.client, everywhere);
  ipEach(world.client, [`route add default via ${host.v4}`, `-6 route add default via ${host.v6}`]);
  await transparently(stage, world.host, 'up', [...toContainer, '--to', client.v4, '--to', client.v6]);
  assert.deepEqual(await peers(stage, world.host, container), known);
  assert.deepEqual(await peers(stage, world.host, client), known);
});

test('an interface can be named before there is an upstream behind it', options, async (t) => {
  const stage = new Stage(t);
  const world = await containerWorld(stage);
  const args = [...published, '--to', client.v4, '--transparent-interface', 'container0'];
  await transparently(stage, world.host, 'up', args);
  assert.deepEqual(await peers(stage, world.host, container), known);
});

test('another mark, mask, priority, table and route table do as well', options, async (t) => {
  const stage = new Stage(t);
  const world = await containerWorld(stage);
  const names = [
    '--transparent-mark',
    '0x5/0xf',
    '--transparent-priority',
    '4000',
    '--transparent-table',
    'other',
  ];
  await transparently(stage, world.host, 'up', [
    ...toContainer,
    ...names,
    '--transparent-route-table',
    '700',
  ]);
  assert.deepEqual(await peers(stage, world.host, container), known);
  assert.match(
    inside(world.host, ['ip', 'rule']),
    /^4000:\tfrom all fwmark 0x5\/0xf iif container0 lookup 700 proto 240 ?$/m,
  );
});

test('a refusal by ICMP comes to the caller, and not to the client', options, async (t) => {
  const stage = new Stage(t);
  const world = openRoutedWorld(stage);
  sysctl(world.host, { 'ipv4/ip_forward': 1, 'ipv6/conf/all/forwarding': 1 });
  const counting = [
    'icmp type destination-unreachable counter',
    'icmpv6 type destination-unreachable counter',
  ];
  filterInput(world.client, counting);
  await transparently(stage, world.host, 'up', toContainer);
  for (const family of families) {
    const one = { protocol: 'udp', client: client[family], to: container[family], port: 53 } as const;
    assert.equal(await call(stage, tools, world.host, one), 'answer ECONNREFUSED');
  }
  const counted = inside(world.client, ['nft', 'list', 'ruleset']).match(/counter packets \d+/g);
  assert.deepEqual(counted, ['counter packets 0', 'counter packets 0']);
});

const loopback = { v4: '127.0.0.1', v6: '::1' } as const;
const toLoopback = [
  '-p',
  '8080:80',
  '-p',
  '5353:53/udp',
  '--source',
  'transparent',
  '--to',
  '127.0.0.1',
  '--to',
  '::1',
];

/** A sidecar's program is where dualport is. */
const listeners: Readonly<Record<string, readonly string[]>> = {
  '127.0.0.1 and ::1': ['tcp 127.0.0.1 80', 'tcp ::1 80', 'udp 127.0.0.1 53', 'udp ::1 53'],
  '0.0.0.0 and [::]': everywhere,
};

for (const [where, words] of Object.entries(listeners)) {
  test(`a program on ${where} of the same host is answered from`, options, async (t) => {
    const stage = new Stage(t);
    const world = openRoutedWorld(stage);
    // The container has a default route, as one with a sidecar has.
    await listenOn(stage, tools, world.container, words);
    await transparently(stage, world.container, 'up', toLoopback);
    assert.deepEqual(await peers(stage, world.container, loopback), known);
  });

  test(`the same without any other route, and with rp_filter=1 (${where})`, options, async (t) => {
    const stage = new Stage(t);
    const world = openRoutedWorld(stage);
    ipEach(world.container, ['route del default', '-6 route del default']);
    sysctl(world.container, { 'ipv4/conf/all/rp_filter': 1 });
    await listenOn(stage, tools, world.container, words);
    await transparently(stage, world.container, 'up', toLoopback);
    assert.deepEqual(await peers(stage, world.container, loopback), known);
  });

  test(`pseudo addresses are answered by a program on ${where} of the same host`, options, async (t) => {
    const stage = new Stage(t);
    const world = openRoutedWorld(stage);
    await listenOn(stage, tools, world.container, words);
    const pseudo = toLoopback.map((word) => (word === 'transparent' ? 'pseudo' : word));
    await transparently(stage, world.container, 'up', pseudo);
    for (const protocol of ['tcp', 'udp'] as const) {
      for (const [client, to] of [
        ['240.1.2.3', '127.0.0.1'],
        ['fd5f:bf90:309::cb00:714d', '::1'],
      ] as const) {
        const one = { protocol, client, to, port: ports[protocol] };
        assert.equal(await call(stage, tools, world.container, one), client, `${protocol} ${client}`);
      }
    }
  });
}

test('an address of this host that is not loopback is an upstream, too', options, async (t) => {
  const stage = new Stage(t);
  const world = openRoutedWorld(stage);
  await listenOn(stage, tools, world.container, everywhere);
  await transparently(stage, world.container, 'up', toContainer);
  assert.deepEqual(await peers(stage, world.container, container), known);
});

test('a closed UDP port of this host refuses the caller', options, async (t) => {
  const stage = new Stage(t);
  const world = openRoutedWorld(stage);
  await transparently(stage, world.container, 'up', toLoopback);
  for (const family of families) {
    const one = { protocol: 'udp', client: strangers[family], to: loopback[family], port: 53 } as const;
    assert.equal(await call(stage, tools, world.container, one), 'answer ECONNREFUSED');
  }
});

/** Answers from the outside, by one who is who he says he is. */
const outside = (stage: Stage, world: World, to: Addresses) => callers(stage, world.client, client, to);

const itself = everybody(client);

function routeThrough(world: World): void {
  sysctl(world.host, { 'ipv4/ip_forward': 1, 'ipv6/conf/all/forwarding': 1 });
  ipEach(world.client, [`route add default via ${host.v4}`, `-6 route add default via ${host.v6}`]);
}

/** Whom the real client takes the container for. */
const callsOf = (stage: Stage, world: World) => callers(stage, world.container, container, client);

const theContainer = everybody(container);

test(
  "the container's other traffic is untouched: who is routed to it, and whom it calls",
  options,
  async (t) => {
    const stage = new Stage(t);
    const world = await containerWorld(stage);
    routeThrough(world);
    await listenOn(stage, tools, world.client, everywhere);
    await transparently(stage, world.host, 'up', toContainer);
    assert.deepEqual(await outside(stage, world, container), itself);
    assert.deepEqual(await callsOf(stage, world), theContainer);
  },
);

test('whom the container calls is not shadowed by a transparent proxy of somebody else on this host', {
  ...options,
  skip: skipUnless('root', 'netns', 'nft', 'gcc', 'socat'),
}, async (t) => {
  const stage = new Stage(t);
  const world = await containerWorld(stage);
  routeThrough(world);
  await listenOn(stage, tools, world.client, everywhere);
  for (const listener of [
    'TCP4-LISTEN:80',
    'TCP6-LISTEN:80,ipv6only',
    'UDP4-RECV:53',
    'UDP6-RECV:53,ipv6only',
  ])
    stage.start(world.host, 'socat', ['-u', `${listener},ip-transparent`, '-']);
  await until(() => inside(quick(world.host), ['ss', '-Hltun']).trim().split('\n').length === 4, 'listeners');
  assert.deepEqual(await callsOf(stage, world), theContainer);
  await transparently(stage, world.host, 'up', toContainer);
  assert.deepEqual(await callsOf(stage, world), theContainer);
});

test(
  "a sidecar's other traffic is untouched: programs on the same port of another address",
  options,
  async (t) => {
    const stage = new Stage(t);
    const world = openRoutedWorld(stage);
    routeThrough(world);
    const { v4, v6 } = container;
    const own = [`tcp ${v4} 80`, `tcp ${v6} 80`, `udp ${v4} 53`, `udp ${v6} 53`];
    await listenOn(stage, tools, world.container, [...(listeners['127.0.0.1 and ::1'] ?? []), ...own]);
    await transparently(stage, world.container, 'up', toLoopback);
    assert.deepEqual(await outside(stage, world, container), itself);
    assert.deepEqual(await peers(stage, world.container, loopback), known);
  },
);
