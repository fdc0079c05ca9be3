/**
 * Containers of a real dockerd, whose own rules (masquerade, isolation, what is published) are in force: on the
 * default bridge, a network of a user's and an internal one. Connections are made by spoof.c and by the check.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { bridge, type Container, type Dockerd, startDockerd } from '../support/dockerd.ts';
import { tracesOf } from '../support/dockerd-traces.ts';
import { Stage } from '../support/dualport.ts';
import { addresses, type Namespace, namespacesOf, openWorld } from '../support/namespace.ts';
import { curl } from '../support/namespace-traffic.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import {
  buildTools,
  call,
  dump,
  type FamilyName,
  families,
  inside,
  quick,
  settleAddresses,
  strangers,
  type Tools,
  transparent,
  transparently,
} from '../support/transparent.ts';

const options = { skip: skipWithoutCore('root', 'netns', 'dockerd', 'nft'), timeout: 90_000 };

let tools: Tools;
if (options.skip === false) {
  tools = buildTools(new Stage({ after }));
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
  after(() => assert.deepEqual(tracesOf(process.pid), [], 'no trace of a dockerd was left behind'));
}

const networks = {
  bridge: [],
  front: ['--subnet', '198.18.8.0/24', '--ipv6', '--subnet', 'fd00:8::/64'],
  back: ['--internal', '--subnet', '198.18.9.0/24', '--ipv6', '--subnet', 'fd00:9::/64'],
} as const;

const everywhere = ['tcp 0.0.0.0 80', 'tcp :: 80', 'udp 0.0.0.0 53', 'udp :: 53'];
const ports = { tcp: 80, udp: 53 } as const;

interface Placed {
  readonly container: Container;
  readonly at: Readonly<Record<FamilyName, string>>;
}

async function startContainers(dockerd: Dockerd): Promise<Readonly<Record<string, Placed>>> {
  const placed: Record<string, Placed> = {};
  for (const [network, words] of Object.entries(networks)) {
    if (network !== 'bridge') await dockerd.docker('network', 'create', ...words, network);
    const publish = network === 'bridge' ? ['8088:80'] : [];
    const args = ['--network', network];
    const container = await dockerd.run(`in-${network}`, { publish, listen: everywhere, args });
    placed[network] = { container, at: await container.addresses(network) };
  }
  return placed;
}

async function callAll(stage: Stage, host: Namespace, { at }: Placed): Promise<void> {
  for (const protocol of ['tcp', 'udp'] as const) {
    for (const family of families) {
      const one = { protocol, client: strangers[family], to: at[family], port: ports[protocol] };
      assert.equal(await call(stage, tools, host, one), strangers[family], `${protocol} to ${at[family]}`);
    }
  }
}

test('containers on three networks of a dockerd see the client, and all else goes on', options, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  const dockerd = await startDockerd(stage, world.host);
  const placed = await startContainers(dockerd);
  const to = Object.values(placed).flatMap(({ at }) => ['--to', at.v4, '--to', at.v6]);
  const args = ['-p', '8080:80', '-p', '5353:53/udp', ...to, '--source', 'transparent'];
  await settleAddresses(world.host);
  const before = dump(world.host);

  await transparently(stage, world.host, 'up', args);
  assert.match(dump(world.host), /elements = \{ "docker0",\s+"br-[0-9a-f]{12}",\s+"br-[0-9a-f]{12}" \}/);
  for (const one of Object.values(placed)) await callAll(stage, world.host, one);

  const { code, stdout } = await transparent(stage, world.host, 'check', args);
  assert.equal(stdout.match(/^ok /gm)?.length, 24, stdout);
  assert.equal(code, 0);
  const beside = placed['bridge'];
  assert.ok(beside);
  const { stdout: onLink } = await transparent(stage, world.host, 'check', [
    ...['-p', '8080:80', '--to', beside.at.v4, '--source', 'transparent', '--mismatch', 'plain'],
    ...['--from', bridge.v4Network.replace('0/24', '99')],
  ]);
  assert.match(onLink, /\[on-link\]|\[masquerade\]/);

  const published = await curl(stage, world.client, `http://${addresses.host.v4}:8088/`);
  assert.match(
    published.body,
    new RegExp(`^in-bridge was asked by ${addresses.client.v4} `),
    'past dualport',
  );
  const outgoing = inside(quick(world.host), ['nft', 'list', 'chain', 'inet', 'dualport', 'mark_answers']);
  assert.match(outgoing, /counter packets [1-9]/);

  await transparently(stage, world.host, 'down');
  assert.equal(dump(world.host), before);

  await transparently(stage, world.host, 'up', args);
  await beside.container.remove();
  const next = await dockerd.run('next', { listen: everywhere });
  await callAll(stage, world.host, { container: next, at: await next.addresses() });
  await dockerd.docker('rm', '-f', 'in-front');
  await dockerd.docker('network', 'rm', 'front');
  await transparently(stage, world.host, 'down');
  assert.doesNotMatch(dump(world.host), /inet dualport|proto 240/);
});

test('a program in the network of a container is a sidecar', options, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  const dockerd = await startDockerd(stage, world.host);
  const app = await dockerd.run('app', { listen: everywhere });
  const place = await app.inside();
  const args = [
    '-p',
    '8080:80',
    '-p',
    '5353:53/udp',
    '--to',
    '127.0.0.1',
    '--to',
    '::1',
    '--source',
    'transparent',
  ];
  await transparently(stage, place, 'up', args);
  for (const protocol of ['tcp', 'udp'] as const) {
    for (const [family, to] of [
      ['v4', '127.0.0.1'],
      ['v6', '::1'],
    ] as const) {
      const one = { protocol, client: strangers[family], to, port: ports[protocol] };
      assert.equal(await call(stage, tools, place, one), strangers[family]);
    }
  }
  await transparently(stage, place, 'check', args);
  await transparently(stage, place, 'down');
});
