/** UDP: datagrams and their answers, the life of a listener, and where answers come from. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatEndpoint } from '../../src/net/address.ts';
import { at, type Harness, paths, type UdpPeer, until } from './harness.ts';
import type { Case } from './suite.ts';

/** Sizes where something changes: nothing, usual MTUs, and the most an IPv4 datagram can carry. */
const sizes = [0, 1, 2, 1199, 1200, 1201, 1471, 1472, 1473, 8999, 9000, 9001, 65_506, 65_507];

/** A client whose first datagram was answered. */
async function answeredClient(
  harness: Harness,
  listen: string,
  upstreamHost: string,
): Promise<{ client: UdpPeer; upstream: UdpPeer }> {
  const upstream = await harness.udpEcho(upstreamHost);
  const { local } = await harness.listen('udp', listen, [upstream.local]);
  const client = await harness.udp(listen, local);
  client.send('first');
  await client.datagrams(1);
  return { client, upstream };
}

const perPath = paths.flatMap((path): Case[] => [
  {
    title: `${path.name}: datagrams and answers are counted, and the record names both ends`,
    async run(harness) {
      const upstream = await harness.udpEcho(path.upstream);
      const listener = await harness.listen('udp', path.listen, [upstream.local]);
      const client = await harness.udp(path.listen, listener.local);
      for (const [i, text] of ['hello', 'world!'].entries()) {
        client.send(text);
        assert.equal(String((await client.datagrams(i + 1))[i]), text);
      }
      assert.equal(upstream.from[0]?.address, path.upstream, 'the flow has an address of its own family');
      const names = ['datagramsFromClient', 'datagramsFromUpstream', 'bytesFromClient', 'bytesFromUpstream'];
      assert.deepEqual(
        names.map((name) => harness.count(name as 'bytesFromClient')),
        [2, 2, 11, 11],
      );
      assert.deepEqual([harness.count('udpFlows'), harness.count('udpFlowsActive')], [1, 1]);
      await listener.close();
      assert.equal(harness.count('udpFlowsActive'), 0);
      assert.equal(harness.records.length, 1);
      const [record] = harness.records;
      assert.equal(record?.flow.protocol, 'udp');
      assert.equal(record?.flow.client, record?.flow.peer);
      assert.equal(formatEndpoint(record?.flow.peer ?? at('::', 0)), formatEndpoint(client.local));
      assert.equal(formatEndpoint(record?.flow.local ?? at('::', 0)), formatEndpoint(listener.local));
      assert.equal(formatEndpoint(record?.upstream ?? at('::', 0)), formatEndpoint(upstream.local));
      assert.deepEqual([record?.bytes, record?.fallback], [[11, 11], false]);
      assert.ok((record?.durationMs ?? 0) > 0);
    },
  },
  {
    title: `${path.name}: datagrams of every size come whole in both directions, empty ones too`,
    async run(harness) {
      const { client, upstream } = await answeredClient(harness, path.listen, path.upstream);
      for (const [i, size] of sizes.entries()) {
        const datagram = randomBytes(size);
        client.send(datagram);
        const answer = (await client.datagrams(i + 2))[i + 1];
        assert.ok(upstream.received[i + 1]?.equals(datagram), `${size} bytes at the upstream`);
        assert.ok(answer?.equals(datagram), `${size} bytes at the client`);
      }
      assert.equal(harness.count('datagramsFromUpstream'), sizes.length + 1);
    },
  },
]);

const oversize: readonly Case[] = [
  {
    title: '6→4: a datagram that IPv4 has no room for is counted as droppedOversize, and the flow lives on',
    async run(harness) {
      const { client, upstream } = await answeredClient(harness, '::1', '127.0.0.1');
      client.send(Buffer.alloc(65_508));
      await until(() => harness.count('droppedOversize') === 1, 'the count');
      client.send('second');
      await client.datagrams(2);
      assert.deepEqual(upstream.texts, ['first', 'second']);
      assert.equal(harness.count('udpFlows'), 1);
    },
  },
  {
    title: '4→6: an answer that IPv4 has no room for is counted as droppedOversize, and the flow lives on',
    async run(harness) {
      const { client, upstream } = await answeredClient(harness, '127.0.0.1', '::1');
      upstream.answer(Buffer.alloc(65_508));
      await until(() => harness.count('droppedOversize') === 1, 'the count');
      client.send('second');
      await client.datagrams(2);
      assert.deepEqual(client.texts, ['first', 'second']);
      assert.equal(harness.count('udpFlows'), 1);
    },
  },
];

const clients: readonly Case[] = [
  {
    title: '64 clients at once get their own answers, in order and none mixed',
    maxFlows: 200,
    async run(harness) {
      const upstream = await harness.udpEcho('127.0.0.1');
      const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local]);
      const talk = async (name: number) => {
        const client = await harness.udp('127.0.0.1', local);
        const sent: string[] = [];
        while (sent.length < 60) {
          // Three at a time: what 64 clients have under way must fit into the kernel's default buffers.
          for (let i = 0; i < 3; i++) client.send(sent[sent.push(`${name}: ${sent.length}`) - 1] ?? '');
          await client.datagrams(sent.length);
        }
        assert.deepEqual(client.texts, sent);
      };
      await Promise.all(Array.from({ length: 64 }, (_, name) => talk(name)));
      assert.equal(harness.count('udpFlows'), 64);
      assert.equal(harness.count('datagramsFromUpstream'), 64 * 60);
    },
  },
  {
    title: 'a burst of 400 datagrams waits in the listener, and none is lost',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      upstream.socket.setRecvBufferSize(1024 * 1024);
      const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local]);
      const client = await harness.udp('127.0.0.1', local);
      const sent = Array.from({ length: 400 }, (_, i) => `datagram ${i}`);
      // All in one turn of the event loop: the engine cannot read in between.
      for (const text of sent) client.send(text);
      await upstream.datagrams(400);
      assert.deepEqual(upstream.texts, sent);
    },
  },
  {
    title: 'clients are told apart by address as well as by port',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local]);
      const one = await harness.udp('127.0.0.1', local);
      const other = await harness.udp('127.0.0.2', local, one.local.port);
      one.send('one');
      await upstream.datagrams(1);
      other.send('other');
      await upstream.datagrams(2);
      upstream.answer('for other');
      upstream.answer('for one', 0);
      await Promise.all([one.datagrams(1), other.datagrams(1)]);
      assert.deepEqual([one.texts, other.texts], [['for one'], ['for other']]);
    },
  },
  {
    title: 'a client that has gone before its answer came disturbs nobody',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local]);
      const gone = await harness.udp('127.0.0.1', local);
      const staying = await harness.udp('127.0.0.1', local);
      gone.send('bye');
      await upstream.datagrams(1);
      gone.close();
      for (let i = 0; i < 10; i++) upstream.answer('nobody hears this', 0);
      staying.send('hello');
      await upstream.datagrams(2);
      upstream.answer('hello');
      await staying.datagrams(1);
      assert.equal(harness.count('droppedQueue'), 0);
    },
  },
];

const listening: readonly Case[] = [
  {
    title: 'a stopped listener takes no new flows, and serves those it has',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const listener = await harness.listen('udp', '127.0.0.1', [upstream.local]);
      const old = await harness.udp('127.0.0.1', listener.local);
      const late = await harness.udp('127.0.0.1', listener.local);
      old.send('before');
      await upstream.datagrams(1);
      await listener.stop();
      await listener.stop();
      late.send('too late');
      old.send('after');
      await upstream.datagrams(2);
      upstream.answer('answer');
      await old.datagrams(1);
      await sleep(100);
      assert.deepEqual(upstream.texts, ['before', 'after']);
      assert.equal(harness.count('udpFlows'), 1);
    },
  },
  {
    title: 'a closed UDP listener frees its port at once and ends its flows, and may be closed twice',
    async run(harness) {
      const upstream = await harness.udpEcho('127.0.0.1');
      const listener = await harness.listen('udp', '127.0.0.1', [upstream.local]);
      const client = await harness.udp('127.0.0.1', listener.local);
      client.send('to the first');
      await client.datagrams(1);
      await Promise.all([listener.close(), listener.close()]);
      await listener.stop();
      await listener.close();
      assert.deepEqual(
        harness.records.map(({ reason }) => reason),
        ['rule-changed'],
      );
      await harness.engine.listen('udp', listener.local, harness.plan([upstream.local]));
      client.send('to the second');
      await client.datagrams(2);
      assert.equal(harness.count('udpFlows'), 2);
      assert.notEqual(upstream.from[0]?.port, upstream.from[1]?.port, 'the second flow is not the first');
    },
  },
  {
    title: 'closing the engine ends UDP flows with the reason shutdown',
    async run(harness) {
      await answeredClient(harness, '::1', '127.0.0.1');
      await harness.engine.close();
      assert.deepEqual(
        harness.records.map(({ reason }) => reason),
        ['shutdown'],
      );
      assert.equal(harness.count('udpFlowsActive'), 0);
    },
  },
  {
    title: 'a UDP flow counts as busy for at least a second after its last datagram, and not for long',
    async run(harness) {
      const start = performance.now();
      await answeredClient(harness, '127.0.0.1', '127.0.0.1');
      const since = performance.now();
      assert.equal(harness.engine.busyFlows(), 1);
      await until(() => harness.engine.busyFlows() === 0, 'the end of the exchange', 4000);
      const now = performance.now();
      assert.ok(now - since >= 950 && now - start < 2500, `after ${now - since} ms`);
      assert.equal(harness.records.length, 0, 'the flow itself goes on');
    },
  },
];

/** A client of the wildcard listener that hears only the address it dialled. */
async function dialledAnswers(
  harness: Harness,
  wildcard: string,
  client: string,
  dialled: string,
): Promise<void> {
  const upstream = await harness.udpEcho('127.0.0.1');
  const { local } = await harness.listen('udp', wildcard, [upstream.local]);
  const connected = await harness.udp(client, at(dialled, local.port));
  connected.send('hello');
  await connected.datagrams(1);
  assert.equal(connected.from[0]?.address, dialled);
}

const answering: readonly Case[] = [
  {
    title: '0.0.0.0: answers leave from the address the client dialled',
    run: (harness) => dialledAnswers(harness, '0.0.0.0', '127.0.0.1', '127.0.0.2'),
  },
  {
    title: '[::]: answers leave from the address the client dialled',
    needs: ['root', 'ip'],
    async run(harness) {
      const dialled = 'fd00:6475:616c::2';
      const address = (verb: string) =>
        spawnSync('ip', ['-6', 'address', verb, `${dialled}/128`, 'dev', 'lo']);
      assert.equal(address('add').status, 0, 'lo has a second address');
      harness.defer(() => address('del'));
      await dialledAnswers(harness, '::', '::1', dialled);
    },
  },
];

export const udpRelayCases: readonly Case[] = [
  ...perPath,
  ...oversize,
  ...clients,
  ...listening,
  ...answering,
];
