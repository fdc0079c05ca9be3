/**
 * Containers that ask by their labels to see clients as they are, with a real dockerd and `serve --transparent-setup`:
 * granted on the networks that were named for it and on no other, made for them before they are published, undone.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { launcherPath } from '../support/docker-player.ts';
import { bridge, type Container, type Dockerd, startDockerd } from '../support/dockerd.ts';
import { tracesOf } from '../support/dockerd-traces.ts';
import { Dualport, type Place, Stage } from '../support/dualport.ts';
import { addresses, namespacesOf, openWorld, type World } from '../support/namespace.ts';
import type { Echo } from '../support/namespace-programs.ts';
import { curl, client as program } from '../support/namespace-traffic.ts';
import { main } from '../support/process.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import { dump, settleAddresses, transparent } from '../support/transparent.ts';

const options = { skip: skipWithoutCore('root', 'netns', 'dockerd', 'nft', 'curl'), timeout: 110_000 };
const { client, host } = addresses;

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
  after(() => assert.deepEqual(tracesOf(process.pid), [], 'no trace of a dockerd was left behind'));
}

const everywhere = ['tcp 0.0.0.0 80', 'tcp :: 80', 'udp 0.0.0.0 53', 'udp :: 53'];
const ipv4Only = ['tcp 0.0.0.0 80', 'udp 0.0.0.0 53'];
const pseudoIpv4 = /^2(4\d|5[0-5])(\.\d+){3}$/;

/** A world with a dockerd on its host. */
class Yard {
  readonly stage: Stage;
  readonly world: World;
  readonly dockerd: Dockerd;

  constructor(stage: Stage, world: World, dockerd: Dockerd) {
    this.stage = stage;
    this.world = world;
    this.dockerd = dockerd;
  }

  /** @param labels without their prefix */
  run(
    name: string,
    network: string,
    labels: Readonly<Record<string, string>>,
    listen: readonly string[] = everywhere,
    publish: readonly string[] = [],
  ): Promise<Container> {
    const words = Object.entries(labels).flatMap(([key, value]) => [
      '--label',
      `io.dualport.${key}=${value}`,
    ]);
    return this.dockerd.run(name, { listen, publish, args: ['--network', network, ...words] });
  }

  /** Whom the program takes the client for; '' when nobody answers. */
  async peer(to: string, port: number): Promise<string> {
    const { body } = await curl(this.stage, this.world.client, `http://${hostText(to)}:${port}/`);
    return peerOf(body);
  }

  /** A container's IPv6 address is there a moment after its program, and a failure is remembered for ten seconds. */
  async peerIsSoon(to: string, port: number, expected: string): Promise<void> {
    const deadline = performance.now() + 20_000;
    for (;;) {
      const peer = await this.peer(to, port);
      if (peer === expected || performance.now() > deadline) return assert.equal(peer, expected);
    }
  }

  async udpPeer(to: string, port: number): Promise<string> {
    const { text } = await program<Echo>(this.stage, this.world.client, 'udpAsk', { host: to, port });
    return peerOf(text);
  }
}

/** Until it is told to end. */
async function startDualport(stage: Stage, place: Place, args: readonly string[]): Promise<Dualport> {
  const running = stage.background(place, process.execPath, [main, ...args, '--access-log']);
  await running.says('ready');
  return new Dualport(running);
}

function hostText(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}

function peerOf(answer: string): string {
  return / was asked by (\S+)/.exec(answer)?.[1] ?? '';
}

async function published(dualport: Dualport, rule: string): Promise<void> {
  const lines = () => dualport.running.said('container published').filter((line) => line['rule'] === rule);
  await until(() => lines().length > 0, `${rule} to be published: ${dualport.running.stdout}`);
}

async function openYard(stage: Stage, launcherSocket?: string): Promise<Yard> {
  const world = openWorld(stage);
  const env = launcherSocket === undefined ? {} : { DUALPORT_DOCKER_PROXY_SOCKET: launcherSocket };
  const dockerd = await startDockerd(stage, world.host, {
    env,
    ...(launcherSocket === undefined ? {} : { proxyPath: launcherPath }),
  });
  return new Yard(stage, world, dockerd);
}

test('labels grant nothing beside the networks that the operator has named', options, async (t) => {
  const stage = new Stage(t);
  const yard = await openYard(stage);
  const { world, dockerd } = yard;
  const front = ['--subnet', '198.18.8.0/24', '--ipv6', '--subnet', 'fd00:8::/64'];
  const back = ['--internal', '--subnet', '198.18.9.0/24', '--ipv6', '--subnet', 'fd00:9::/64'];
  await dockerd.docker('network', 'create', ...front, 'front');
  await dockerd.docker('network', 'create', ...back, 'back');
  const asking = { source: 'transparent' };
  await yard.run('in-front', 'front', { ports: '8081:80 5301:53/udp', ...asking });
  await yard.run('in-back', 'back', { ports: '8082:80 5302:53/udp', ...asking });
  await yard.run('old', 'front', { ports: '8083:80 5303:53/udp', ...asking }, ipv4Only);
  await yard.run('greedy', 'bridge', { ports: '8084:80 8085:80', ...asking });
  await yard.run('half', 'bridge', { ports: '8086:80 5306:53/udp', ...asking, 'port.80.source': 'none' });
  await yard.run('untold', 'front', { ports: '8087:80' });
  await settleAddresses(world.host);
  const before = dump(world.host);

  const file = join(stage.directory(), 'dualport.json');
  const stateDir = stage.directory();
  const write = (transparentNetworks: readonly string[]) => {
    const settings = { docker: true, dockerEngine: `unix://${dockerd.socket}`, transparentSetup: true };
    writeFileSync(file, JSON.stringify({ ...settings, transparentNetworks, stateDir }));
  };
  write(['front', 'back']);
  const dualport = await startDualport(stage, world.host, ['-c', file]);
  for (const rule of [
    '8081:80/tcp',
    '5301:53/udp',
    '8082:80/tcp',
    '5302:53/udp',
    '8083:80/tcp',
    '8087:80/tcp',
  ])
    await published(dualport, rule);

  await t.test('on a network that was named, and on an internal one, clients are seen', async () => {
    for (const [tcp, udp] of [
      [8081, 5301],
      [8082, 5302],
    ] as const) {
      for (const family of ['v4', 'v6'] as const) {
        await yard.peerIsSoon(host[family], tcp, client[family]);
        assert.equal(await yard.udpPeer(host[family], udp), client[family]);
      }
    }
  });

  await t.test('an IPv6 client of an IPv4-only program has an address that stands for it', async () => {
    assert.equal(await yard.peer(host.v4, 8083), client.v4);
    const pseudo = await yard.peer(host.v6, 8083);
    assert.match(pseudo, pseudoIpv4);
    assert.equal(await yard.peer(host.v6, 8083), pseudo, 'and keeps it');
  });

  await t.test('on another network the port is not published, and the log says what to do', async () => {
    assert.equal(await yard.peer(host.v4, 8084), '');
    const refused = dualport.complaints.filter(({ container }) => container === 'greedy');
    assert.equal(refused.length, 2);
    assert.match(
      String(refused[0]?.['reason']),
      /io\.dualport\.source: found "transparent", and the container is on the network "bridge".*--transparent-networks \(now front, back\)/,
    );
  });

  await t.test('a port that asks for less is published, and who does not ask sees dualport', async () => {
    assert.equal(await yard.peer(host.v4, 8086), bridge.v4);
    assert.equal(await yard.peer(host.v4, 8087), '198.18.8.1');
  });

  await t.test('transparent check finds the same, and nothing to blame', async () => {
    const { code, stdout, stderr } = await transparent(stage, world.host, 'check', ['-c', file]);
    assert.equal(code, 0, stdout + stderr);
    // Two protocols and both families on two networks, to be seen by either kind of address; and the IPv4-only one.
    assert.match(stdout, /^ok {4}198\.18\.8\.\d+:80\/tcp as 203\.0\.113\.\d+ \(transparent\)/m);
    assert.match(stdout, /^ok {4}\[fd00:9::\d+\]:53\/udp as 2001:db8:\S+ \(transparent\)/m);
    assert.doesNotMatch(stdout, /198\.18\.7\./);
  });

  await t.test('a network whose bridge was not there before is set up with its first container', async () => {
    await dockerd.docker('network', 'create', '--subnet', '198.18.20.0/24', 'late');
    write(['front', 'back', 'late']);
    dualport.running.signal('SIGHUP');
    await dualport.running.says('configuration reloaded');
    await yard.run('first', 'late', { ports: '8088:80', ...asking });
    await published(dualport, '8088:80/tcp');
    assert.equal(await yard.peer(host.v4, 8088), client.v4);
    await dockerd.docker('rm', '-f', 'first');
    await dockerd.docker('network', 'rm', 'late');
  });

  await t.test('what is granted no more is closed, and in the end nothing is left', async () => {
    write(['back']);
    dualport.running.signal('SIGHUP');
    const refusedNow = () => dualport.complaints.some(({ container }) => container === 'in-front');
    await until(refusedNow, 'the grant to be withdrawn');
    assert.equal(await yard.peer(host.v4, 8081), '');
    assert.equal(await yard.peer(host.v4, 8082), client.v4);
    dualport.running.signal('SIGTERM');
    assert.equal((await dualport.running.exit).code, 0);
    assert.equal(dump(world.host), before);
  });
});

test('ports that dockerd publishes by a launcher are granted the same', options, async (t) => {
  const stage = new Stage(t);
  const socket = join(stage.directory(), 'launchers.sock');
  const yard = await openYard(stage, socket);
  const { world, dockerd } = yard;
  const place: Place = { prefix: [...world.host.prefix, 'env', `DOCKER_HOST=unix://${dockerd.socket}`] };
  const file = join(stage.directory(), 'dualport.json');
  const settings = { dockerProxySocket: socket, transparentSetup: true, stateDir: stage.directory() };
  const write = (transparentNetworks: readonly string[]) =>
    writeFileSync(file, JSON.stringify({ ...settings, transparentNetworks, logLevel: 'debug' }));
  write(['bridge']);
  const dualport = await startDualport(stage, place, ['-c', file]);
  const known = () =>
    dualport.running.said('container known').filter(({ source }) => source === 'transparent');
  await yard.run('shown', 'bridge', { source: 'transparent' }, everywhere, ['8090:80', '5390:53/udp']);
  await until(() => known().length >= 4, `launchers to be transparent: ${dualport.running.stdout}`);
  // dockerd has rules of its own for clients of IPv4 that are not on this host.
  await yard.peerIsSoon(host.v6, 8090, client.v6);
  assert.equal(await yard.udpPeer(host.v6, 5390), client.v6);
  await dockerd.docker('network', 'create', '--subnet', '198.18.21.0/24', 'other');
  await yard.run('unasked', 'other', { source: 'transparent' }, everywhere, ['8091:80']);
  await dualport.running.says('a label is not followed');
  assert.equal(await yard.peer(host.v6, 8091), '198.18.21.1', 'it is served, as without the label');
  write([]);
  dualport.running.signal('SIGHUP');
  await yard.peerIsSoon(host.v6, 8090, bridge.v6);
  await dockerd.docker('rm', '-f', 'shown', 'unasked');
  await dockerd.docker('network', 'rm', 'other');
  dualport.running.signal('SIGTERM');
  assert.equal((await dualport.running.exit).code, 0);
  assert.doesNotMatch(dump(world.host), /inet dualport|proto 240/);
});
