import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { loadConfig } from '../../../src/config/load.ts';
import type { Flags } from '../../../src/config/sources.ts';
import { formatUpstream } from '../../../src/config/target.ts';
import { readContainer } from '../../../src/docker/container.ts';
import { readNetwork } from '../../../src/docker/network.ts';
import { type Facts, planRoutes, type Refusal, type Route, type Routes } from '../../../src/docker/routes.ts';
import { parseAddress } from '../../../src/net/address.ts';
import { formatCidr } from '../../../src/net/cidr.ts';
import {
  container,
  idOf,
  type ListedContainer,
  type ListedNetwork,
  network,
} from '../../support/docker-lists.ts';

const bridge = network('bridge', ['172.17.0.0/16', 'fd00:17::/64']);

interface Given {
  readonly networks?: readonly ListedNetwork[];
  readonly flags?: Flags;
  readonly facts?: Partial<Facts>;
  /** dualport's own addresses. */
  readonly own?: readonly string[];
}

function plan(containers: readonly ListedContainer[], given: Given = {}): Routes {
  const { networks = [bridge], flags = {}, own = ['172.17.0.1', 'fd00:17::1', '127.0.0.1'] } = given;
  const snapshot = {
    containers: containers.map(readContainer).filter((one) => one !== undefined),
    networks: networks.map(readNetwork).filter((one) => one !== undefined),
    unread: [],
  };
  const config = loadConfig({ flags: { docker: true, ...flags }, env: {} });
  const facts = { config, own: own.map(parseAddress), mostRules: 1000, holder: () => undefined };
  return planRoutes(snapshot, { ...facts, ...given.facts });
}

/** `web [::]:8080:80/tcp → 172.17.0.2:80`, one a route. */
function ways({ routes }: Routes): readonly string[] {
  return routes.map(({ container: { name }, rule }) => {
    const to = rule.to.map((target) => formatUpstream(target, rule.port.containerPort));
    return `${name} ${rule.name} → ${to.join(' ')}`;
  });
}

function reasons(refusals: readonly Refusal[]): readonly string[] {
  return refusals.map(
    ({ container: { name }, port, reason }) => `${name}${port ? ` ${port}` : ''}: ${reason}`,
  );
}

function only<T>(list: readonly T[]): T {
  assert.equal(list.length, 1, JSON.stringify(list));
  return list[0] as T;
}

const web = { 'io.dualport.ports': '8080:80' };

test('a port leads to the addresses of its container, of both families', () => {
  const routes = plan([container('web', { labels: web, networks: { bridge: '172.17.0.2 fd00:17::2' } })]);
  assert.deepEqual(ways(routes), ['web 8080:80/tcp → 172.17.0.2:80 [fd00:17::2]:80']);
  const { owners, network: id, why } = only(routes.routes);
  assert.deepEqual([owners, id], [[idOf('web')], idOf('bridge')]);
  assert.equal(why, 'io.dualport.ports; network bridge');
  assert.deepEqual([routes.refusals, routes.warnings, routes.left], [[], [], []]);
});

test('a container without labels is left alone', () => {
  const routes = plan([container('web', { published: ['0.0.0.0:80:80/tcp'] })]);
  assert.deepEqual(routes, { routes: [], refusals: [], warnings: [], left: [] });
});

test('what labels do not say comes from the options; what they say wins', () => {
  const flags = {
    source: 'proxy-v2',
    family: 'prefer-v4',
    idleTimeout: '9s',
    acceptProxy: ['10.0.0.1'],
    to: ['10.9.9.9'],
  };
  const labels = { 'io.dualport.ports': '1024:1,1025:2', 'io.dualport.port.2.source': 'proxy-v1' };
  const routes = plan([container('a', { labels: { ...labels, 'io.dualport.family': 'prefer-v6' } })], {
    flags,
  });
  const [first, second] = routes.routes.map(({ rule }) => rule);
  assert.deepEqual([first?.source, second?.source], ['proxy-v2', 'proxy-v1']);
  assert.deepEqual([first?.family, first?.timeouts.idleMs], ['prefer-v6', 9000]);
  assert.deepEqual(first?.acceptProxy.map(formatCidr), ['10.0.0.1/32'], 'trust is the operator’s');
  assert.match(ways(routes).join(), /172\.17\.0\.2:1,/, 'and not --to');
  const none = plan([container('a', { labels: { ...web, 'io.dualport.source': 'none' } })], { flags });
  assert.equal(only(none.routes).rule.source, 'none');
});

test('source transparent is for networks that the operator has named, and other ports are published', () => {
  const labels = {
    'io.dualport.ports': '8080:80,8081:81',
    'io.dualport.source': 'transparent',
    'io.dualport.port.81.source': 'none',
  };
  const on = (networks: Readonly<Record<string, string>>, more: object, granted: readonly string[]) =>
    plan([container('web', { labels: { ...labels, ...more }, networks })], {
      networks: [bridge, network('front', ['172.18.0.0/16'])],
      own: ['172.17.0.1', '172.18.0.1'],
      flags: { transparentNetworks: granted },
    });
  const sources = ({ routes }: Routes) => routes.map(({ rule }) => rule.source);
  const both = { bridge: '172.17.0.2', front: '172.18.0.2' };
  const inFront = { 'io.dualport.network': 'front' };

  const refused = on({ bridge: '172.17.0.2' }, {}, []);
  assert.deepEqual(sources(refused), ['none']);
  assert.match(
    only(reasons(refused.refusals)),
    /^web 8080:80\/tcp: io\.dualport\.source: found "transparent", and the container is on the network "bridge"; allowed there: none, .*\(now none\)$/,
  );
  assert.deepEqual(sources(on({ bridge: '172.17.0.2' }, {}, ['bridge'])), ['transparent', 'none']);
  assert.deepEqual(sources(on({ bridge: '172.17.0.2' }, {}, ['*'])), ['transparent', 'none']);
  assert.deepEqual(sources(on(both, inFront, ['bridge'])), ['none'], 'the network it is reached on counts');
  assert.deepEqual(sources(on(both, inFront, ['front'])), ['transparent', 'none']);
  const own = on({ bridge: '172.17.0.2' }, { 'io.dualport.port.81.source': 'transparent' }, []);
  assert.match(reasons(own.refusals).join('\n'), /8081:81\/tcp: io\.dualport\.port\.81\.source: found/);
});

test('a network of a Compose file is named by what Docker calls it', () => {
  const labels = { ...web, 'io.dualport.source': 'transparent', 'io.dualport.network': 'granted' };
  const compose = { 'com.docker.compose.project': 'own', 'com.docker.compose.network': 'granted' };
  const given = (granted: string) =>
    plan(
      [
        container('web', {
          labels: { ...labels, 'com.docker.compose.project': 'own' },
          networks: { own_granted: '172.18.0.2' },
        }),
      ],
      {
        networks: [network('own_granted', ['172.18.0.0/16'], { labels: compose })],
        own: ['172.18.0.1'],
        flags: { transparentNetworks: [granted] },
      },
    );
  assert.equal(given('granted').routes.length, 0);
  assert.equal(only(given('own_granted').routes).rule.source, 'transparent');
});

test('an allow label narrows what the operator allows, and widens it never', () => {
  const allowed = (label: string, ...flags: readonly string[]) => {
    const labels = { ...web, 'io.dualport.allow': label };
    const routes = plan([container('web', { labels })], { flags: flags.length > 0 ? { allow: flags } : {} });
    return (
      routes.routes.map(({ rule }) => rule.allow.map(formatCidr).join(' ')).join() ||
      reasons(routes.refusals).join()
    );
  };
  assert.equal(allowed('10.1.0.0/16'), '10.1.0.0/16');
  assert.equal(allowed('10.1.0.0/16', '10.0.0.0/8'), '10.1.0.0/16');
  assert.equal(allowed('0.0.0.0/0,::/0', '10.0.0.0/8'), '10.0.0.0/8');
  assert.match(
    allowed('192.0.2.0/24', '10.0.0.0/8'),
    /^web: io\.dualport\.allow: it has nothing in common with --allow/,
  );
  const deny = plan([container('web', { labels: { ...web, 'io.dualport.allow': '10.0.0.0/8' } })], {
    flags: { deny: ['10.0.0.1'] },
  });
  assert.deepEqual(only(deny.routes).rule.deny.map(formatCidr), ['10.0.0.1/32']);
});

/** Asked for by a label, under these flags: what is published, or why not. */
function asked(port: string, flags: Flags = {}): string {
  const routes = plan([container('web', { labels: { 'io.dualport.ports': port } })], { flags });
  return [...routes.routes.map(({ rule }) => rule.name), ...reasons(routes.refusals)].join(' | ');
}

test('host ports are those the operator allows', () => {
  for (const port of [
    '22:80',
    '80:80',
    '1023:80',
    '2375:80',
    '2376:80',
    '2377:80',
    '32768:80',
    '65535:80',
    '1000-2000:80',
    '2370-2380:80',
  ]) {
    assert.match(
      asked(port),
      /^web \S+: io\.dualport\.ports: found host port [\d-]+; allowed: 1024-2374, 2378-32767 \(--docker-ports\)$/,
      port,
    );
  }
  for (const port of ['1024:80', '32767:80', '2374:80', '2000-2010:80'])
    assert.equal(asked(port), `${port}/tcp`);
  assert.equal(asked('22:22', { dockerPorts: ['22,8000-8999'] }), '22:22/tcp');
  assert.equal(asked('8000-9999:22', { dockerPorts: ['9000-9999,22', '8000-8999'] }), '8000-9999:22/tcp');
  assert.match(
    asked('9000:22', { dockerPorts: ['22,8000-8999'] }),
    /found host port 9000; allowed: 22, 8000-8999 \(/,
  );
});

test('a port is not chosen for a container', () => {
  assert.match(
    asked('80'),
    /^web 80\/tcp: io\.dualport\.ports: 80\/tcp names no host port, and none is chosen/,
  );
  assert.match(asked('0:80'), /names no host port/);
  assert.match(asked('127.0.0.1::80'), /names no host port/);
});

test('the port of --admin is not given away', () => {
  assert.match(
    asked('9090:80', { admin: ':9090' }),
    /found host port 9090, which is that of --admin; allowed/,
  );
  assert.match(asked('9080-9099:80', { admin: '127.0.0.1:9090' }), /is that of --admin/);
  assert.equal(asked('9091:80', { admin: ':9090' }), '9091:80/tcp');
  assert.equal(asked('9090:80', { admin: '/run/admin.sock' }), '9090:80/tcp');
});

test('host addresses are those the operator allows', () => {
  for (const port of ['0.0.0.0:8080:80', '[::]:8080:80', '127.0.0.1:8080:80', '[::1]:8080:80'])
    assert.equal(asked(port), `${port}/tcp`);
  for (const host of [
    '172.17.0.2',
    '172.17.0.3',
    '192.0.2.1',
    '[2001:db8::1]',
    '127.0.0.2',
    '169.254.169.254',
  ]) {
    assert.match(
      asked(`${host}:8080:80`),
      /: found host address \S+; allowed: 0\.0\.0\.0, \[::\], 127\.0\.0\.1, \[::1\] \(--docker-bind\)$/,
    );
  }
  const flags = { dockerBind: ['192.0.2.1', '[2001:db8::1]'] };
  assert.equal(asked('8080:80', flags), '192.0.2.1:8080:80/tcp | [2001:db8::1]:8080:80/tcp', 'each of them');
  assert.equal(asked('192.0.2.1:8080:80', flags), '192.0.2.1:8080:80/tcp');
  assert.match(asked('[::]:8080:80', flags), /allowed: 192\.0\.2\.1, \[2001:db8::1\]/);
  assert.equal(asked('8080:80', { dockerBind: ['::,192.0.2.1'] }), '[::]:8080:80/tcp', 'of one family');
  assert.equal(asked('8080:80', { dockerBind: ['0.0.0.0,0.0.0.0'] }), '0.0.0.0:8080:80/tcp');
  assert.equal(asked('8080:80', { dockerBind: ['0.0.0.0,::,192.0.2.1'] }), '8080:80/tcp', 'all there are');
});

test('one port out of bounds does not keep the others back', () => {
  const routes = plan([container('web', { labels: { 'io.dualport.ports': '22:22,8080:80' } })]);
  assert.deepEqual(ways(routes), ['web 8080:80/tcp → 172.17.0.2:80']);
  assert.equal(routes.refusals.length, 1);
});

test('labels that are wrong as a whole are told, and nothing is published', () => {
  const routes = plan([
    container('web', { labels: { ...web, 'io.dualport.alow': '10.0.0.0/8' } }),
    container('b', { labels: { 'io.dualport.ports': '8081:80' } }),
  ]);
  assert.deepEqual(ways(routes), ['b 8081:80/tcp → 172.17.0.2:80'], 'others are not touched');
  assert.match(
    only(reasons(routes.refusals)),
    /^web: io\.dualport\.alow: found an unknown label; did you mean io\.dualport\.allow\?/,
  );
});

test('labels that ask for no port are told of', () => {
  const routes = plan([container('web', { labels: { 'io.dualport.source': 'proxy-v2' } })]);
  assert.match(only(reasons(routes.warnings)), /^web: its labels name no port; add io\.dualport\.ports/);
});

test('host, none and strange networks are refused by name', () => {
  const reason = (options: Parameters<typeof container>[1]) =>
    only(reasons(plan([container('web', { labels: web, ...options })]).refusals));
  assert.match(
    reason({ mode: 'host', networks: { host: '' } }),
    /^web: network mode host: its program listens on this host's own/,
  );
  assert.match(
    reason({ mode: 'none', networks: { none: '' } }),
    /^web: network mode none: it has no address/,
  );
  assert.match(reason({ networks: {} }), /^web: found no address of it on any network/);
  assert.match(
    reason({ mode: 'container:gone' }),
    /^web: network mode container:gone: that container is not running/,
  );
  assert.match(reason({ mode: `container:${idOf('web')}` }), /that container is not running/, 'itself');
});

test('a container in the network of another has its addresses, and ends with it', () => {
  const owner = container('pod', { networks: { bridge: '172.17.0.9 fd00:17::9' } });
  for (const other of [idOf('pod'), 'pod']) {
    const side = container('side', { labels: web, mode: `container:${other}`, networks: {} });
    const routes = plan([side, owner]);
    assert.deepEqual(ways(routes), ['side 8080:80/tcp → 172.17.0.9:80 [fd00:17::9]:80']);
    assert.deepEqual(only(routes.routes).owners, [idOf('side'), idOf('pod')]);
    assert.equal(only(routes.routes).why, 'io.dualport.ports; network bridge of container pod');
  }
  const onHost = plan([
    container('side', { labels: web, mode: 'container:pod', networks: {} }),
    container('pod', { mode: 'host', networks: { host: '' } }),
  ]);
  assert.match(only(reasons(onHost.refusals)), /network mode host/);
  const ring = ['a', 'b'].map((name, i) =>
    container(name, { labels: web, mode: `container:${['b', 'a'][i]}`, networks: {} }),
  );
  assert.equal(plan(ring).refusals.length, 2, 'a ring has no owner');
  const restarting = container('pod', { state: 'restarting' });
  assert.match(
    only(reasons(plan([container('side', { labels: web, mode: 'container:pod' }), restarting]).refusals)),
    /not running/,
  );
});

test('a container that waits to be restarted is not there, and not wrong', () => {
  for (const state of ['restarting', 'exited', 'created', 'dead', 'removing']) {
    const routes = plan([container('web', { labels: web, state, networks: { bridge: '' } })]);
    assert.deepEqual(routes, { routes: [], refusals: [], warnings: [], left: [] }, state);
  }
  assert.equal(plan([container('web', { labels: web, state: 'paused' })]).routes.length, 1);
});

test('an address a container cannot have is none', () => {
  for (const address of [
    '127.0.0.1',
    '0.0.0.0',
    '169.254.169.254',
    '224.0.0.1',
    '255.255.255.255',
    '1.2.3',
    'fe80::1',
    '::1',
    '::',
    'ff02::1',
    '::ffff:10.0.0.1',
  ]) {
    const routes = plan([container('web', { labels: web, networks: { bridge: address } })]);
    assert.deepEqual(routes.routes, [], address);
    assert.match(only(reasons(routes.refusals)), /found no address of it on any network/);
  }
});

test('what would lead dualport to itself is refused', () => {
  const routes = plan([container('dualport', { labels: web })], { own: ['172.17.0.2'] });
  assert.match(
    only(reasons(routes.refusals)),
    /^dualport: its address 172\.17\.0\.2 is dualport's own: it would connect to itself/,
  );
});

const front = network('front', ['10.1.0.0/16', 'fd00:1::/64'], {
  labels: { 'com.docker.compose.network': 'public', 'com.docker.compose.project': 'shop' },
});
const back = network('back', ['10.2.0.0/16']);
const lan = network('lan', ['192.0.2.0/24'], { driver: 'macvlan' });
const networks = [bridge, front, back, lan];

/** Which address a container of these networks is reached at, and what is said about it. */
function chosen(
  places: Readonly<Record<string, string>>,
  own: readonly string[],
  labels: Readonly<Record<string, string>> = {},
): string {
  const routes = plan([container('web', { labels: { ...web, ...labels }, networks: places })], {
    networks,
    own,
  });
  const said = [...reasons(routes.refusals), ...reasons(routes.warnings)].join();
  return [
    ...routes.routes.map(
      ({ rule, why }) => `${rule.to.map((to) => formatUpstream(to, 80)).join(' ')} ${why.slice(19)}`,
    ),
    said,
  ]
    .filter(Boolean)
    .join(' | ');
}

test('of several networks it is the one a label names', () => {
  const places = { front: '10.1.0.2', back: '10.2.0.2' };
  assert.equal(
    chosen(places, ['10.2.0.1'], { 'io.dualport.network': 'front' }),
    '10.1.0.2:80 network front (io.dualport.network)',
  );
  assert.match(
    chosen(places, ['10.2.0.1'], { 'io.dualport.network': 'frnt' }),
    /^web: io\.dualport\.network: found "frnt"; did you mean front\?; allowed: back, front, which it is on$/,
  );
  assert.match(
    chosen(places, [], { 'io.dualport.network': 'bridge' }),
    /found "bridge".*allowed: back, front/,
  );
});

test('a network may be named as its Compose file does, within the project', () => {
  const labels = { 'io.dualport.network': 'public' };
  const places = { front: '10.1.0.2', back: '10.2.0.2' };
  const ofShop = { ...labels, 'com.docker.compose.project': 'shop' };
  assert.match(chosen(places, [], ofShop), /^10\.1\.0\.2:80 network front \(io\.dualport\.network\)$/);
  assert.match(chosen(places, [], { ...labels, 'com.docker.compose.project': 'other' }), /found "public"/);
  assert.match(chosen(places, [], labels), /found "public"/);
});

test('else it is the one dualport is on', () => {
  const places = { front: '10.1.0.2', back: '10.2.0.2' };
  assert.equal(
    chosen(places, ['10.2.0.1']),
    '10.2.0.2:80 network back, the only one of its networks dualport is on',
  );
  assert.equal(
    chosen(places, ['fd00:1::1']),
    '10.1.0.2:80 network front, the only one of its networks dualport is on',
  );
});

test('else it is a choice that stays the same, with a warning that names it', () => {
  const places = { front: '10.1.0.2', back: '10.2.0.2' };
  assert.equal(
    chosen(places, ['10.2.0.1', '10.1.0.1']),
    '10.2.0.2:80 network back | web: network back was chosen; it is also on front: say which with io.dualport.network',
  );
  assert.equal(
    chosen({ front: '10.1.0.2 fd00:1::2', back: '10.2.0.2' }, ['10.2.0.1', '10.1.0.1']),
    '10.1.0.2:80 [fd00:1::2]:80 network front | web: network front was chosen; it is also on back: say which with io.dualport.network',
  );
  assert.match(
    chosen(places, []),
    /network back was chosen; it is also on front: say which .*; dualport has no address on it/,
  );
  assert.equal(
    chosen({ back: '10.2.0.2' }, []),
    '10.2.0.2:80 network back, out of reach | web: network back was chosen; dualport has no address on it, so connections may not arrive',
  );
});

test('a macvlan network is not within reach of the host it shares a subnet with, but of a container on it', () => {
  const places = { lan: '192.0.2.9', back: '10.2.0.2' };
  assert.match(chosen(places, ['192.0.2.1', '10.2.0.1']), /^10\.2\.0\.2:80 network back, the only one/);
  const self = container('dualport', { networks: { lan: '192.0.2.1' } });
  const routes = plan([container('web', { labels: web, networks: places }), self], {
    networks,
    own: ['192.0.2.1'],
  });
  assert.deepEqual(ways(routes), ['web 8080:80/tcp → 192.0.2.9:80']);
});

test('the first of two containers has the port, and the other is told who has it', () => {
  const labels = web;
  const late = container('late', { labels, created: 20 });
  const early = container('early', { labels, created: 10, networks: { bridge: '172.17.0.3' } });
  const routes = plan([late, early]);
  assert.deepEqual(ways(routes), ['early 8080:80/tcp → 172.17.0.3:80']);
  assert.equal(
    only(reasons(routes.refusals)),
    'late 8080:80/tcp: "8080:80/tcp" (container late: io.dualport.ports) is published already by "8080:80/tcp" ' +
      '(container early: io.dualport.ports); remove one of them',
  );
  const held = plan([late, early], { facts: { holder: () => idOf('late') } });
  assert.deepEqual(ways(held), ['late 8080:80/tcp → 172.17.0.2:80'], 'whoever has it keeps it');
});

test('a rule of the configuration is never taken away', () => {
  const flags = { publish: ['8080:1'], to: ['10.0.0.1'] };
  const routes = plan([container('web', { labels: { 'io.dualport.ports': '[::]:8080:80, 8081:80' } })], {
    flags,
  });
  assert.deepEqual(ways(routes), ['web 8081:80/tcp → 172.17.0.2:80']);
  assert.match(
    only(reasons(routes.refusals)),
    /"8080:1\/tcp" \(the configuration\) would both listen on tcp port 8080/,
  );
});

test('there is an end to the ports of all containers', () => {
  const many = Array.from({ length: 5 }, (_, i) =>
    container(`c${i}`, { labels: { 'io.dualport.ports': `${3000 + i}:80` }, created: i }),
  );
  const routes = plan(many, { facts: { mostRules: 3 } });
  assert.deepEqual(
    routes.routes.map(({ container: { name } }) => name),
    ['c0', 'c1', 'c2'],
  );
  assert.match(
    reasons(routes.refusals)[0] ?? '',
    /^c3 3003:80\/tcp: containers have 3 ports already; allowed: no more in all/,
  );
  const held = plan(many, {
    facts: { mostRules: 3, holder: (rule) => (rule.startsWith('3004') ? idOf('c4') : undefined) },
  });
  assert.deepEqual(
    held.routes.map(({ container: { name } }) => name),
    ['c4', 'c0', 'c1'],
  );
});

test('a container of which too much is said is named', () => {
  const config = loadConfig({ flags: { docker: true }, env: {} });
  const bomb = readContainer(container('bomb'));
  assert.ok(bomb);
  const facts = { config, own: [], mostRules: 9, holder: () => undefined };
  const routes = planRoutes({ containers: [], networks: [], unread: [bomb] }, facts);
  assert.match(
    only(reasons(routes.refusals)),
    /^bomb: what the engine lists of it is longer than 1 MiB; shorten its labels/,
  );
});

const mirror = { flags: { dockerMirror: true } };

test('mirrored are ports that Docker publishes on IPv4 and not on IPv6', () => {
  const published = [
    '0.0.0.0:8080:80/tcp',
    '0.0.0.0:53:53/udp',
    '0.0.0.0:443:443/tcp',
    '[::]:443:443/tcp',
    '127.0.0.1:9000:90/tcp',
    '0.0.0.0:5060:5060/sctp',
  ];
  const routes = plan([container('web', { published })], mirror);
  assert.deepEqual(ways(routes), [
    'web [::]:8080:80/tcp → 172.17.0.2:80',
    'web [::]:53:53/udp → 172.17.0.2:53',
    'web [::1]:9000:90/tcp → 172.17.0.2:90',
  ]);
  assert.equal(only(routes.routes.slice(0, 1)).why, 'mirror of 0.0.0.0:8080:80/tcp; network bridge');
  assert.deepEqual(plan([container('web', { published })]).routes, [], 'only when it was asked for');
});

test('a port on one address of the host stays there', () => {
  const routes = plan([container('web', { published: ['192.0.2.1:8080:80/tcp'] })], mirror);
  assert.deepEqual([routes.routes, routes.refusals], [[], []]);
  assert.match(
    only(reasons(routes.left)),
    /^web: 192\.0\.2\.1:8080:80\/tcp is published by Docker on one address/,
  );
});

test('mirrored ports are Docker’s choice: the bounds of labels do not hold for them, their other labels do', () => {
  const published = Array.from({ length: 50 }, (_, i) => `0.0.0.0:${i + 1}:80/tcp`);
  const labels = { 'io.dualport.source': 'proxy-v2', 'io.dualport.allow': '2001:db8::/32' };
  const routes = plan([container('web', { published, labels })], mirror);
  assert.equal(routes.routes.length, 50);
  assert.ok(routes.routes.every(({ rule }: Route) => rule.source === 'proxy-v2' && rule.allow.length === 1));
  assert.deepEqual([routes.warnings, routes.refusals], [[], []]);
});

test('labels that are wrong withdraw mirrored ports as well', () => {
  const labels = { 'io.dualport.alow': '2001:db8::/32' };
  const routes = plan([container('web', { published: ['0.0.0.0:80:80/tcp'], labels })], mirror);
  assert.deepEqual(routes.routes, []);
  assert.equal(routes.refusals.length, 1);
});

test('a port that labels publish on IPv6 is not mirrored again', () => {
  const published = ['0.0.0.0:8080:80/tcp', '0.0.0.0:8081:81/tcp'];
  const labels = { 'io.dualport.ports': '[::]:8080:8000,0.0.0.0:8081:81' };
  const routes = plan([container('web', { published, labels })], mirror);
  assert.deepEqual(
    ways(routes).map((way) => way.split(' ')[1]),
    ['[::]:8080:8000/tcp', '0.0.0.0:8081:81/tcp', '[::]:8081:81/tcp'],
  );
});

test('what Docker itself holds is known, for when a port turns out to be taken', () => {
  const published = ['0.0.0.0:8080:80/tcp', '[::]:8080:80/tcp'];
  const routes = plan([
    container('web', { published, labels: { 'io.dualport.ports': '8080:80,8081:80,8000-8100:80' } }),
  ]);
  assert.deepEqual(
    routes.routes.map(({ rival }) => rival),
    ['0.0.0.0:8080 for container web', undefined, undefined],
  );
});

test('the same list gives the same routes, in whatever order it comes', () => {
  const all = Array.from({ length: 8 }, (_, i) =>
    container(`c${i}`, {
      created: i % 3,
      labels: {
        'io.dualport.ports': `${3000 + (i % 4)}:80`,
        ...(i % 5 === 0 ? { 'io.dualport.x': '' } : {}),
      },
      networks: { back: `10.2.0.${i + 2}`, front: `10.1.0.${i + 2}` },
    }),
  );
  const expected = plan(all, { networks });
  fc.assert(
    fc.property(fc.shuffledSubarray(all, { minLength: all.length }), (shuffled) => {
      assert.deepEqual(ways(plan(shuffled, { networks })), ways(expected));
    }),
    { numRuns: 200 },
  );
});
