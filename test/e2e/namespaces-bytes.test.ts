/**
 * Many bytes, many connections and datagrams between namespaces: all of them arrive, whole, and from where
 * they are expected.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../engine/harness.ts';
import { Stage } from '../support/dualport.ts';
import { addresses, namespacesOf, openWorld } from '../support/namespace.ts';
import type { Echo, ManyAnswers, Transfer } from '../support/namespace-programs.ts';
import { client, serve } from '../support/namespace-traffic.ts';
import { skipUnless } from '../support/requirements.ts';

const { host, container } = addresses;
const options = { skip: skipUnless('root', 'netns'), timeout: 60_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

const MiB = 1024 * 1024;
const wildcard = { 4: '0.0.0.0', 6: '::' } as const;
const hostAddress = { 4: host.v4, 6: host.v6 } as const;
const containerAddress = { 4: container.v4, 6: container.v6 } as const;

for (const [from, to] of [
  [4, 4],
  [6, 6],
  [6, 4],
  [4, 6],
] as const) {
  test(
    `64 MiB each way arrive whole, the last half behind the client's end (${from}→${to})`,
    options,
    async (t) => {
      const stage = new Stage(t);
      const world = openWorld(stage);
      const bytes = 64 * MiB;
      const server = await serve(stage, world.container, 'transferServer', {
        host: wildcard[to],
        port: 80,
        bytes,
      });
      const dualport = await stage.dualport(world.host, ['-p', '8080:80', '-t', containerAddress[to]]);
      const atClient = await client<Transfer>(stage, world.client, 'transferClient', {
        host: hostAddress[from],
        port: 8080,
        bytes,
      });
      await until(() => server.stdout.endsWith('\n'), 'the server to be done');
      const atServer: Transfer = JSON.parse(server.stdout);
      assert.deepEqual(atClient, { sent: atServer.received, received: atServer.sent, ending: 'end' });
      assert.equal(atServer.ending, 'end');
      const flow = await dualport.flow();
      assert.equal(flow['dualport.bytes.from_client'], bytes);
      assert.equal(flow['dualport.bytes.from_upstream'], bytes);
      assert.equal(flow['dualport.close_reason'], 'done');
    },
  );
}

const connections = 2000;

test('2,000 short connections from IPv6 to IPv4 are all answered', options, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  await serve(stage, world.container, 'web', { host: '0.0.0.0', port: 80 });
  const dualport = await stage.dualport(world.host, ['-p', '[::]:8080:80', '-t', container.v4]);
  const asked = { host: host.v6, port: 8080, connections };
  const { answered, failures } = await client<ManyAnswers>(stage, world.client, 'many', asked);
  assert.deepEqual(failures, []);
  assert.equal(answered, connections);
  await until(() => dualport.flows.length === connections, 'a line for every connection');
  const reasons = new Set(dualport.flows.map((line) => line['dualport.close_reason']));
  assert.deepEqual([...reasons], ['done']);
});

test('2,000 connections do not notice that the rules are read again and again', options, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  for (const address of ['0.0.0.0', '::'])
    await serve(stage, world.container, 'web', { host: address, port: 80 });
  const file = join(stage.directory(), 'dualport.yaml');
  const write = (to: string) => writeFileSync(file, `publish:\n  - ports: "8080:80"\n    to: "${to}"\n`);
  write(container.v4);
  const dualport = await stage.dualport(world.host, ['-c', file]);
  const asked = { host: host.v6, port: 8080, connections };
  const done = client<ManyAnswers>(stage, world.client, 'many', asked);
  const over = done.then(() => true);
  for (let reload = 1; !(await Promise.race([over, sleep(20, false)])); reload++) {
    write(reload % 2 === 0 ? container.v4 : container.v6);
    dualport.running.signal('SIGHUP');
  }
  assert.deepEqual((await done).failures, []);
  const upstreams = new Set(dualport.flows.map((line) => line['server.address']));
  assert.deepEqual([...upstreams].sort(), [container.v4, container.v6], 'both kinds of rules were in use');
});

test('a server that resets in the middle of its answer resets the client, every time', options, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  await serve(stage, world.container, 'cutServer', { host: '0.0.0.0', port: 80 });
  await stage.dualport(world.host, ['-p', '[::]:8080:80', '-t', container.v4]);
  const asked = { host: host.v6, port: 8080, connections: 100 };
  const { failures } = await client<ManyAnswers>(stage, world.client, 'many', asked);
  assert.deepEqual(failures, Array(100).fill('ECONNRESET'));
});

const udpPaths = [
  { path: '4→4', dial: host.v4, to: [container.v4] },
  { path: '6→6', dial: host.v6, to: [container.v6] },
  { path: '6→4', dial: host.v6, to: [container.v4] },
  { path: '6→4 because nobody listens on 6', dial: host.v6, to: [container.v6, container.v4], only: 4 },
];

for (const { path, dial, to, only } of udpPaths) {
  test(`a datagram and its answer cross (${path})`, options, async (t) => {
    const stage = new Stage(t);
    const world = openWorld(stage);
    await serve(stage, world.container, 'udpEcho', { host: '0.0.0.0', port: 53 });
    if (only !== 4) await serve(stage, world.container, 'udpEcho', { host: '::', port: 53 });
    const targets = to.flatMap((address) => ['-t', address]);
    await stage.dualport(world.host, ['-p', '5300:53/udp', ...targets]);
    const echo = await client<Echo>(stage, world.client, 'udpAsk', { host: dial, port: 5300 });
    assert.equal(echo.text, 'echo hello');
  });
}

test('a UDP listener on one of several addresses answers from that address', options, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  await serve(stage, world.container, 'udpEcho', { host: '0.0.0.0', port: 53 });
  const published = host.more.map((address) => (address.includes(':') ? `[${address}]` : address));
  const ports = published.flatMap((address) => ['-p', `${address}:5300:53/udp`]);
  await stage.dualport(world.host, [...ports, '-t', container.v4]);
  for (const address of host.more) {
    const echo = await client<Echo>(stage, world.client, 'udpAsk', { host: address, port: 5300 });
    assert.deepEqual(echo, { text: 'echo hello', from: address });
  }
});
