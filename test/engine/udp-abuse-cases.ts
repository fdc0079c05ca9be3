/** UDP: forged sources, strangers, refused clients, and upstreams that are not there. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Endpoint } from '../../src/net/address.ts';
import { formatHost } from '../../src/net/address.ts';
import { openDescriptors } from '../support/fds.ts';
import { collectGarbage, heldBytes } from '../support/garbage.ts';
import { sendRawDatagram } from '../support/raw-datagram.ts';
import { at, type Harness, type UdpPeer, until } from './harness.ts';
import type { Case } from './suite.ts';

const MiB = 1024 * 1024;

/** A listener in front of an echo, and a check that it still serves. */
async function serving(
  harness: Harness,
): Promise<{ local: Endpoint; upstream: UdpPeer; serves(): Promise<void> }> {
  const upstream = await harness.udpEcho('127.0.0.1');
  const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local]);
  const serves = async () => {
    const client = await harness.udp('127.0.0.1', local);
    client.send('alive?');
    await client.datagrams(1);
  };
  return { local, upstream, serves };
}

const forged: readonly Case[] = [
  {
    title: 'a datagram from source port 0, or from a service that answers anything, is dropped and counted',
    needs: ['root', 'perl'],
    async run(harness) {
      const { local, upstream, serves } = await serving(harness);
      for (const [i, port] of [0, 7, 13, 17, 19, 37].entries()) {
        await sendRawDatagram(at('127.0.0.1', port), local, 'answer me');
        await until(() => harness.count('droppedSource') === i + 1, 'the count');
      }
      assert.deepEqual([upstream.received.length, harness.count('udpFlows')], [0, 0]);
      await sendRawDatagram(at('127.0.0.1', 53), local, 'name servers ask, too');
      await upstream.datagrams(1);
      await serves();
    },
  },
  {
    title: 'a datagram that claims to come from one of our own listeners is dropped and counted',
    needs: ['root', 'perl'],
    async run(harness) {
      const { local, upstream, serves } = await serving(harness);
      const other = await harness.listen('udp', '127.0.0.1', [upstream.local]);
      for (const [i, from] of [other.local, local].entries()) {
        await sendRawDatagram(from, local, 'ping-pong');
        await until(() => harness.count('droppedSource') === i + 1, 'the count');
      }
      assert.deepEqual([upstream.received.length, harness.count('udpFlows')], [0, 0]);
      await serves();
      await other.close();
      await sendRawDatagram(other.local, local, 'not ours any more');
      await upstream.datagrams(2);
    },
  },
  {
    title: 'datagrams from a stranger to a flow’s upstream-facing port are dropped',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local]);
      const client = await harness.udp('127.0.0.1', local);
      client.send('question');
      await upstream.datagrams(1);
      const facing = at('127.0.0.1', upstream.from[0]?.port ?? 0);
      const strangers = [
        await harness.udp('127.0.0.1'),
        await harness.udp('127.0.0.2', undefined, upstream.local.port),
      ];
      for (const stranger of strangers) stranger.send('believe me', facing);
      await sleep(100);
      upstream.answer('the answer');
      await client.datagrams(1);
      assert.deepEqual(client.texts, ['the answer']);
      assert.equal(harness.count('datagramsFromUpstream'), 1);
    },
  },
  {
    title: 'what policy refuses over UDP is dropped, counted and recorded, and no upstream hears of it',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      for (const refuse of ['denied', 'not-allowed', 'client-not-unicast', 'no-upstream'] as const) {
        const decide = () => ({ refuse });
        const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local], { decide });
        (await harness.udp('127.0.0.1', local)).send('please');
        await until(() => harness.records.at(-1)?.reason === refuse, refuse);
      }
      assert.deepEqual([upstream.received.length, harness.count('udpFlows')], [0, 0]);
      assert.deepEqual([harness.count('refusedByAccess'), harness.count('droppedNoUpstream')], [3, 1]);
    },
  },
  {
    title: 'nobody else can bind a part of a UDP listener’s address',
    async run(harness) {
      const upstream = await harness.udpEcho('127.0.0.1');
      for (const [wildcard, part] of [
        ['0.0.0.0', '127.0.0.1'],
        ['::', '::1'],
      ] as const) {
        const { local } = await harness.listen('udp', wildcard, [upstream.local]);
        for (const reuseAddr of [false, true])
          await assert.rejects(bindUdp(at(part, local.port), reuseAddr), { code: 'EADDRINUSE' });
      }
    },
  },
];

async function bindUdp(to: Endpoint, reuseAddr: boolean): Promise<void> {
  const host = formatHost(to);
  const socket = dgram.createSocket({ type: host.includes(':') ? 'udp6' : 'udp4', reuseAddr });
  try {
    socket.bind(to.port, host);
    await once(socket, 'listening');
  } finally {
    socket.close();
  }
}

/** Where datagrams arrive and nobody keeps them. */
async function unread(harness: Harness): Promise<Endpoint> {
  const peer = await harness.udp('127.0.0.1');
  peer.socket.removeAllListeners('message');
  return peer.local;
}

/** Many datagrams, in bursts that the kernel's default buffers can take. */
async function flood(client: UdpPeer, datagrams: number): Promise<void> {
  for (let sent = 0; sent < datagrams; sent++) {
    client.send('x');
    if (sent % 50 === 49) await sleep(0);
  }
}

const dead: readonly Case[] = [
  ...[1, 2].map(
    (candidates): Case => ({
      title: `10,000 datagrams to ${candidates} dead upstream${candidates > 1 ? 's' : ''} cost one flow and no descriptors`,
      async run(harness) {
        const closed: Endpoint[] = [];
        for (let i = 0; i < candidates; i++) closed.push(await harness.closedUdpPort('127.0.0.1'));
        const { local } = await harness.listen('udp', '127.0.0.1', closed);
        const client = await harness.udp('127.0.0.1', local);
        const descriptors = openDescriptors();
        await flood(client, 10_000);
        await until(() => harness.count('icmpRefusals') >= 1000, 'refusals');
        assert.ok(
          openDescriptors() <= descriptors + 1,
          `${openDescriptors() - descriptors} more descriptors`,
        );
        assert.deepEqual([harness.count('udpFlows'), harness.records.length], [1, 0]);
        const upstream = await harness.udpEcho('127.0.0.1', closed[0]?.port);
        await until(() => {
          client.send('y');
          return upstream.received.length > 0;
        }, 'the upstream that came up');
        await client.datagrams(1);
      },
    }),
  ),
  {
    title: 'unanswered flows keep at most 16 MiB of datagrams for a fallback, all together',
    maxFlows: 800,
    async run(harness) {
      const silent = await Promise.all([unread(harness), unread(harness)]);
      const { local } = await harness.listen('udp', '127.0.0.1', silent);
      const datagram = Buffer.alloc(64_000);
      const clients = await Promise.all(Array.from({ length: 400 }, () => harness.udp('127.0.0.1', local)));
      collectGarbage();
      const before = process.memoryUsage().arrayBuffers;
      for (const [i, client] of clients.entries()) {
        client.send(datagram);
        await until(() => harness.count('datagramsFromClient') === i + 1, 'the datagram');
      }
      assert.equal(harness.count('udpFlowsActive'), 400);
      const kept = (await heldBytes(before + 17 * MiB)) - before;
      assert.ok(kept <= 17 * MiB, `${kept} bytes are kept`);
    },
  },
  {
    title:
      'a datagram that is kept takes the room of the one before it: later clients fall back as the first did',
    async run(harness) {
      const silent = await Promise.all([unread(harness), unread(harness)]);
      const { local } = await harness.listen('udp', '127.0.0.1', silent);
      const patient = await harness.udp('127.0.0.1', local);
      const datagram = Buffer.alloc(64_000);
      for (let sent = 1; sent <= 300; sent++) {
        patient.send(datagram);
        await until(() => harness.count('datagramsFromClient') === sent, 'the datagram');
      }
      const echo = await harness.udpEcho('127.0.0.1');
      const dead = await harness.closedPort('127.0.0.1');
      const fallback = await harness.listen('udp', '127.0.0.1', [dead, echo.local]);
      const late = await harness.udp('127.0.0.1', fallback.local);
      late.send(datagram);
      await late.datagrams(1);
      assert.equal(late.received[0]?.length, datagram.length);
    },
  },
];

export const udpAbuseCases: readonly Case[] = [...forged, ...dead];
