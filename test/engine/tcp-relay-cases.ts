/** TCP: bytes, ends, resets, limits of time and memory. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Endpoint } from '../../src/net/address.ts';
import { formatEndpoint } from '../../src/net/address.ts';
import { collectGarbage, heldBytes } from '../support/garbage.ts';
import { stalledPeers } from '../support/stalled-peers.ts';
import { at, type Harness, type Path, paths, until } from './harness.ts';
import type { Case } from './suite.ts';

const MiB = 1024 * 1024;

/** Sends pseudo-random bytes and returns their hash. */
async function sendHashed(socket: Socket, bytes: number): Promise<string> {
  const hash = createHash('sha256');
  const block = randomBytes(MiB + 13);
  for (let left = bytes; left > 0; left -= block.length) {
    const chunk = block.subarray(0, Math.min(left, block.length));
    hash.update(chunk);
    if (!socket.write(chunk)) await once(socket, 'drain');
  }
  socket.end();
  return hash.digest('hex');
}

async function receiveHashed(socket: Socket): Promise<string> {
  const hash = createHash('sha256');
  // Not `for await`: that destroys the socket at the end of one direction.
  socket.on('data', (chunk) => hash.update(chunk));
  await once(socket, 'end');
  return hash.digest('hex');
}

async function transferBothWays(harness: Harness, path: Path, bytes: number): Promise<void> {
  let atUpstream: Promise<[string, string]> | undefined;
  const upstream = await harness.server(path.upstream, (socket) => {
    atUpstream = Promise.all([receiveHashed(socket), sendHashed(socket, bytes)]);
  });
  const { local } = await harness.listen('tcp', path.listen, [upstream]);
  const { socket } = await rawClient(harness, local);
  const [answered, sent] = await Promise.all([receiveHashed(socket), sendHashed(socket, bytes)]);
  const [received, answer] = (await atUpstream) ?? [];
  assert.equal(received, sent, 'what the upstream got is what the client sent');
  assert.equal(answered, answer, 'what the client got is what the upstream sent');
  await until(() => harness.records.length === 1, 'the record');
  assert.deepEqual(harness.records[0]?.bytes, [bytes, bytes]);
  assert.equal(harness.records[0]?.reason, 'done');
}

/** A client whose bytes nobody collects. */
async function rawClient(harness: Harness, to: Endpoint): Promise<{ socket: Socket }> {
  const client = await harness.connect(to);
  client.socket.removeAllListeners('data');
  return client;
}

/** Upstream sockets as they come. */
async function collecting(
  harness: Harness,
  host: string,
): Promise<{ upstream: Endpoint; sockets: Socket[] }> {
  const sockets: Socket[] = [];
  const upstream = await harness.server(host, (socket) => sockets.push(socket));
  return { upstream, sockets };
}

async function onePair(
  harness: Harness,
  options = {},
): Promise<{ client: Awaited<ReturnType<Harness['connect']>>; server: Socket }> {
  const { upstream, sockets } = await collecting(harness, '127.0.0.1');
  const { local } = await harness.listen('tcp', '127.0.0.1', [upstream], options);
  const client = await harness.connect(local);
  await until(() => sockets.length === 1, 'the upstream connection');
  return { client, server: sockets[0] as Socket };
}

const perPath = paths.flatMap((path): Case[] => [
  {
    title: `${path.name}: bytes arrive whole and in order in both directions, with half-close`,
    run: (harness) => transferBothWays(harness, path, 3 * MiB + 17),
  },
  {
    title: `${path.name}: the record names both ends, the families' addresses and the byte counts`,
    async run(harness) {
      const upstream = await harness.echo(path.upstream);
      const { local } = await harness.listen('tcp', path.listen, [upstream]);
      const client = await harness.connect(local);
      const port = client.socket.localPort ?? 0;
      client.socket.end('hello');
      assert.equal(await client.text(5), 'hello');
      await until(() => harness.records.length === 1, 'the record');
      const [record] = harness.records;
      assert.equal(formatEndpoint(record?.flow.peer ?? local), formatEndpoint(at(path.listen, port)));
      assert.equal(formatEndpoint(record?.flow.local ?? local), formatEndpoint(local));
      assert.equal(record?.upstream && formatEndpoint(record.upstream), formatEndpoint(upstream));
      assert.deepEqual(record?.bytes, [5, 5]);
      assert.equal(record?.fallback, false);
      assert.ok((record?.durationMs ?? 0) > 0);
    },
  },
]);

/** Upstreams that send as much as they can to clients that never read, and the most that one could send. */
export async function stalledWriters(
  harness: Harness,
): Promise<{ before: number; flows: number; mostSent: number }> {
  const flows = 16;
  const peers = await stalledPeers();
  harness.defer(peers.close);
  const { local } = await harness.listen('tcp', '127.0.0.1', [at('127.0.0.1', peers.upstreamPort)]);
  collectGarbage();
  const before = process.memoryUsage().arrayBuffers;
  const stalled = await peers.stall(local.port, flows);
  assert.equal(stalled.flows, flows);
  return { before, flows, mostSent: stalled.mostSent };
}

export const tcpRelayCases: readonly Case[] = [
  ...perPath,
  ...[paths[0], paths[2]].map(
    (path): Case => ({
      title: `${path?.name}: 64 MiB in both directions at once have the same hash at both ends`,
      run: (harness) => transferBothWays(harness, path as Path, 64 * MiB),
    }),
  ),
  {
    title: '2 000 short connections lose no byte',
    async run(harness) {
      const upstream = await harness.echo('127.0.0.1');
      const { local } = await harness.listen('tcp', '::1', [upstream]);
      let bad = 0;
      const worker = async (first: number) => {
        for (let i = first; i < 2000; i += 16) {
          const client = await harness.connect(local);
          const text = `request ${i}`;
          client.socket.end(text);
          if ((await client.ending) !== 'end' || client.received.toString() !== text) bad++;
          client.socket.destroy();
        }
      };
      await Promise.all(Array.from({ length: 16 }, (_, i) => worker(i)));
      assert.equal(bad, 0);
      await until(() => harness.records.length === 2000, 'all records');
      assert.ok(harness.records.every((record) => record.reason === 'done'));
      assert.equal(harness.count('tcpFlowsActive'), 0);
    },
  },
  {
    title: 'an upstream that speaks first is heard before the client says anything',
    async run(harness) {
      const upstream = await harness.server('127.0.0.1', (socket) => socket.write('220 ready\r\n'));
      const { local } = await harness.listen('tcp', '::1', [upstream]);
      const client = await harness.connect(local);
      assert.equal(await client.text(11), '220 ready\r\n');
    },
  },
  {
    title: 'a client that ends its side still gets the whole answer',
    async run(harness) {
      const upstream = await harness.server('127.0.0.1', (socket) => {
        let got = 0;
        socket.on('data', (chunk) => (got += chunk.length));
        socket.on('end', () => setTimeout(() => socket.end(`got ${got}`), 50));
      });
      const { local } = await harness.listen('tcp', '::1', [upstream]);
      const client = await harness.connect(local);
      client.socket.end('12345');
      assert.equal(await client.ending, 'end');
      assert.equal(client.received.toString(), 'got 5');
    },
  },
  {
    title: 'a client may go on after the upstream has ended its side',
    async run(harness) {
      const { client, server } = await onePair(harness);
      server.end('that is all');
      assert.equal(await client.ending, 'end');
      const received = once(server, 'data');
      client.socket.write('still here');
      assert.equal(String((await received)[0]), 'still here');
      client.socket.end();
      await until(() => harness.records[0]?.reason === 'done', 'a clean end');
    },
  },
  {
    title: 'a client that ends before the upstream is reached is still served',
    async run(harness) {
      const upstream = await harness.echo('127.0.0.1');
      const { local } = await harness.listen('tcp', '127.0.0.1', [upstream]);
      const client = await harness.connect(local);
      client.socket.end('early');
      assert.equal(await client.ending, 'end');
      assert.equal(client.received.toString(), 'early');
    },
  },
  {
    title: 'a reset by the client is a reset for the upstream',
    async run(harness) {
      const { client, server } = await onePair(harness);
      const error = new Promise((resolve) =>
        server.on('error', (e: NodeJS.ErrnoException) => resolve(e.code)),
      );
      server.resume();
      client.socket.resetAndDestroy();
      assert.equal(await error, 'ECONNRESET');
      await until(() => harness.records[0]?.reason === 'client-reset', 'the reason');
    },
  },
  {
    title: 'a reset by the upstream is a reset for the client, never a clean end',
    async run(harness) {
      for (const answer of ['', 'half an answ']) {
        const { client, server } = await onePair(harness);
        if (answer !== '') {
          server.write(answer);
          await client.text(answer.length);
        }
        server.resetAndDestroy();
        assert.equal(await client.ending, 'ECONNRESET');
      }
      await until(() => harness.records.length === 2, 'both records');
      assert.ok(harness.records.every((record) => record.reason === 'upstream-reset'));
    },
  },
  {
    title: 'a reset right behind the bytes of an answer is not taken for their end',
    async run(harness) {
      for (const ended of [false, true]) {
        const { client, server } = await onePair(harness);
        if (ended) client.socket.end();
        await sleep(20);
        server.write('x'.repeat(1000));
        server.resetAndDestroy();
        assert.notEqual(
          await client.ending,
          'end',
          ended ? 'after the client ended its side' : 'both sides open',
        );
      }
    },
  },
  {
    title: 'a half-closed flow without traffic is reset after its limit, and an open one is not',
    async run(harness) {
      const { client, server } = await onePair(harness, { timeouts: { halfCloseMs: 1000 } });
      await sleep(2500);
      assert.equal(harness.records.length, 0, 'both sides open: no limit');
      server.end();
      await until(() => harness.records[0]?.reason === 'half-close-idle', 'the limit', 4000);
      // A socket that has read its end hears of a reset when it writes.
      client.socket.write('too late');
      await until(() => client.socket.destroyed, 'the client to hear of it');
    },
  },
  {
    title: 'a flow without traffic is reset after the idle limit, one with traffic is not',
    async run(harness) {
      const { client, server } = await onePair(harness, { timeouts: { idleMs: 1000 } });
      server.resume();
      for (let i = 0; i < 10; i++) {
        client.socket.write('.');
        await sleep(250);
      }
      assert.equal(harness.records.length, 0);
      assert.equal(await client.ending, 'ECONNRESET');
      await until(() => harness.records[0]?.reason === 'idle', 'the record');
    },
  },
  {
    title: 'a reader that stops holds up its writer within the stated bound of 160 KiB per direction',
    async run(harness) {
      const { before, flows, mostSent } = await stalledWriters(harness);
      const held = (await heldBytes(before + flows * 160 * 1024)) - before;
      assert.ok(mostSent < 32 * MiB, `writers stopped, at ${mostSent} bytes`);
      assert.ok(held <= flows * 160 * 1024, `${Math.round(held / flows)} bytes held per flow`);
    },
  },
  {
    title: 'single bytes are not held back (no Nagle delay on either side)',
    async run(harness) {
      const upstream = await harness.echo('127.0.0.1');
      const { local } = await harness.listen('tcp', '::1', [upstream]);
      const client = await harness.connect(local);
      const times: number[] = [];
      for (let i = 1; i <= 100; i++) {
        const start = performance.now();
        client.socket.write('x');
        await client.text(i);
        times.push(performance.now() - start);
      }
      times.sort((a, b) => a - b);
      assert.ok((times[50] ?? 99) < 20, `median ${times[50]} ms`);
    },
  },
  {
    title: 'the backlog is 4096 and both sides have keepalive at 15 s',
    needs: ['ip'],
    async run(harness) {
      const { upstream, sockets } = await collecting(harness, '127.0.0.1');
      const { local } = await harness.listen('tcp', '127.0.0.1', [upstream]);
      await harness.connect(local);
      await until(() => sockets.length === 1, 'the upstream connection');
      const ss = (...args: string[]) => spawnSync('ss', ['-Htno', ...args], { encoding: 'utf8' }).stdout;
      const [listening] = ss('-l', `sport = :${local.port}`).trim().split('\n');
      assert.equal(listening?.trim().split(/\s+/)[2], '4096');
      // The client's and the server's own sockets of this test have no keepalive: these two are the engine's.
      const isKept = (side: string) => /keepalive,1[45]/.test(ss(side));
      // An engine may leave it until a flow has lived for a second.
      await until(() => isKept(`sport = :${local.port}`), 'keepalive of the client');
      await until(() => isKept(`dport = :${upstream.port}`), 'keepalive of the upstream');
    },
  },
  {
    title: 'a closed listener frees its port at once and its flows go on',
    async run(harness) {
      const upstream = await harness.echo('127.0.0.1');
      const listener = await harness.listen('tcp', '127.0.0.1', [upstream]);
      const client = await harness.connect(listener.local);
      client.socket.write('a');
      await client.text(1);
      await listener.close();
      await listener.close();
      const again = await harness.engine.listen('tcp', listener.local, harness.plan([upstream]));
      client.socket.write('b');
      assert.equal(await client.text(2), 'ab');
      await again.close();
    },
  },
  {
    title: 'a replaced plan holds for new flows and leaves the others alone',
    async run(harness) {
      const first = await harness.server('127.0.0.1', (socket) => socket.write('1'));
      const second = await harness.server('127.0.0.1', (socket) => socket.write('2'));
      const listener = await harness.listen('tcp', '127.0.0.1', [first]);
      const old = await harness.connect(listener.local);
      assert.equal(await old.text(1), '1');
      listener.replace(harness.plan([second]));
      const fresh = await harness.connect(listener.local);
      assert.equal(await fresh.text(1), '2');
      assert.equal(harness.records.length, 0);
    },
  },
  {
    title: 'closing the engine resets what is left, and may be done twice',
    async run(harness) {
      const { client } = await onePair(harness);
      assert.equal(harness.engine.busyFlows(), 1);
      await harness.engine.close();
      assert.equal(await client.ending, 'ECONNRESET');
      assert.equal(harness.records[0]?.reason, 'shutdown');
      assert.equal(harness.engine.busyFlows(), 0);
      await harness.engine.close();
    },
  },
];
