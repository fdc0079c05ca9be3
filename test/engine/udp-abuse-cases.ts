/** UDP: limits, forged sources, strangers, and upstreams that are not there. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { RuleGroup } from '../../src/engine/admission.ts';
import { readCounter } from '../../src/flow/counters.ts';
import type { Endpoint } from '../../src/net/address.ts';
import { formatHost } from '../../src/net/address.ts';
import { openDescriptors } from '../support/fds.ts';
import { collectGarbage, heldBytes } from '../support/garbage.ts';
import { sendRawDatagram } from '../support/raw-datagram.ts';
import { at, type Harness, type PlanOptions, type UdpPeer, until } from './harness.ts';
import type { Case } from './suite.ts';

const MiB = 1024 * 1024;

/** Clients that sent one datagram each, one after the other, to an upstream that does not answer by itself. */
async function clientsOf(
  harness: Harness,
  local: Endpoint,
  upstream: UdpPeer,
  hosts: readonly string[],
): Promise<readonly UdpPeer[]> {
  const clients: UdpPeer[] = [];
  for (const host of hosts) {
    const client = await harness.udp(host, local);
    client.send(`from ${host}`);
    await upstream.datagrams(upstream.received.length + 1);
    clients.push(client);
  }
  return clients;
}

const times = (count: number, host: string): readonly string[] => Array.from({ length: count }, () => host);

/** The ports of the clients whose flows have ended for this reason. */
function ended(harness: Harness, reason: string): readonly number[] {
  return harness.records.filter((record) => record.reason === reason).map(({ flow }) => flow.peer.port);
}

function limitCases(): readonly Case[] {
  const rows: readonly { what: string; limits: NonNullable<PlanOptions['limits']>; fits: number }[] = [
    { what: 'the rule', limits: { perRule: 3 }, fits: 3 },
    { what: 'one source', limits: { perSource: 2 }, fits: 2 },
    { what: 'the engine, which is half of its places,', limits: {}, fits: 10 },
  ];
  return rows.flatMap(({ what, limits, fits }): Case[] => [
    {
      title: `at the UDP flow limit of ${what} the oldest unanswered flow makes room`,
      async run(harness) {
        const upstream = await harness.udp('127.0.0.1');
        const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local], { limits });
        const clients = await clientsOf(harness, local, upstream, times(fits, '127.0.0.1'));
        upstream.answer('you stay', 0);
        await clients[0]?.datagrams(1);
        assert.equal(harness.records.length, 0, 'up to the limit nobody has to go');
        await clientsOf(harness, local, upstream, times(2, '127.0.0.1'));
        const port = (index: number) => clients[index]?.local.port;
        // With room for two, the second to go is the first of the newcomers.
        assert.deepEqual(ended(harness, 'evicted')[0], port(1));
        assert.equal(ended(harness, 'evicted').length, 2);
        assert.deepEqual([harness.count('evictions'), harness.count('udpFlowsActive')], [2, fits]);
        assert.equal(harness.count('refusedByLimit'), 0);
        upstream.answer('still here', 0);
        assert.equal(String((await clients[0]?.datagrams(2))?.[1]), 'still here');
      },
    },
    {
      title: `at the UDP flow limit of ${what} answered flows stay, and what is new is dropped and counted`,
      async run(harness) {
        const upstream = await harness.udp('127.0.0.1');
        const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local], { limits });
        const clients = await clientsOf(harness, local, upstream, times(fits, '127.0.0.1'));
        for (const [index, client] of clients.entries()) {
          upstream.answer('yes', index);
          await client.datagrams(1);
        }
        const late = await harness.udp('127.0.0.1', local);
        for (let i = 1; i <= 3; i++) {
          late.send('no place');
          await until(() => harness.count('refusedByLimit') === i, 'the count');
        }
        assert.equal(harness.count('evictions'), 0);
        assert.equal(harness.records.length, 3, 'each of the dropped ones has a record, and no flow');
        assert.ok(harness.records.every(({ reason }) => reason.startsWith('limit-')));
        assert.equal(upstream.received.length, fits, 'the upstream heard nothing of it');
        assert.equal(harness.count('udpFlowsActive'), fits);
      },
    },
  ]);
}

const circles: readonly Case[] = [
  {
    title: 'a source over its own limit costs no other source a flow, even when the engine is full as well',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local], {
        limits: { perSource: 2, perRule: 10 },
      });
      const others = Array.from({ length: 8 }, (_, i) => `127.0.0.${i + 2}`);
      const hosts = [...others, ...times(2, '127.0.0.1')];
      const clients = await clientsOf(harness, local, upstream, hosts);
      await clientsOf(harness, local, upstream, times(1, '127.0.0.1'));
      assert.deepEqual(ended(harness, 'evicted'), [clients[8]?.local.port]);
    },
  },
  {
    title: 'a limit is kept even when room is made for another one',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const group = new RuleGroup();
      const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local], {
        limits: { perRule: 2 },
        group,
      });
      const clients = await clientsOf(harness, local, upstream, times(2, '127.0.0.1'));
      for (const [index, client] of clients.entries()) {
        upstream.answer('yes', index);
        await client.datagrams(1);
      }
      // Eight flows of another rule fill the engine; they could be evicted, but that is no help to this rule.
      const other = await harness.listen('udp', '127.0.0.1', [upstream.local]);
      await clientsOf(harness, other.local, upstream, times(8, '127.0.0.1'));
      (await harness.udp('127.0.0.1', local)).send('no place');
      await until(() => readCounter(group.counters, 'refusedByLimit') === 1, 'the count');
      assert.equal(readCounter(group.counters, 'udpFlowsActive'), 2);
      assert.deepEqual(
        harness.records.map(({ reason }) => reason),
        ['limit-rule'],
      );
    },
  },
  {
    title: 'an eviction is counted to the rule that lost the flow',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const group = new RuleGroup();
      const losing = await harness.listen('udp', '127.0.0.1', [upstream.local], { group });
      await clientsOf(harness, losing.local, upstream, times(10, '127.0.0.1'));
      const winning = await harness.listen('udp', '127.0.0.1', [upstream.local]);
      await clientsOf(harness, winning.local, upstream, times(1, '127.0.0.1'));
      assert.equal(readCounter(group.counters, 'evictions'), 1);
      assert.equal(harness.count('evictions'), 0);
    },
  },
  {
    title: 'an answered flow whose upstream has gone away may make room again',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const limits = { perRule: 1 };
      const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local], { limits });
      const [client] = await clientsOf(harness, local, upstream, ['127.0.0.1']);
      upstream.answer('yes');
      await client?.datagrams(1);
      upstream.close();
      client?.send('in vain');
      await until(() => harness.count('icmpRefusals') === 1, 'the refusal');
      (await harness.udp('127.0.0.1', local)).send('room for me?');
      await until(() => harness.count('evictions') === 1, 'the eviction');
      assert.deepEqual(ended(harness, 'evicted'), [client?.local.port]);
      assert.equal(harness.count('udpFlowsActive'), 1);
    },
  },
  {
    title: 'UDP leaves half of the engine’s places to TCP',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local]);
      await clientsOf(harness, local, upstream, times(15, '127.0.0.1'));
      const greeting = await harness.server('127.0.0.1', (socket) => socket.write('hi'));
      const tcp = await harness.listen('tcp', '127.0.0.1', [greeting]);
      for (let i = 0; i < 10; i++) await (await harness.connect(tcp.local)).text(2);
      assert.deepEqual([harness.count('tcpFlowsActive'), harness.count('udpFlowsActive')], [10, 10]);
    },
  },
];

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
    title: 'a datagram from source port 0 is dropped and counted before anything else',
    needs: ['root', 'perl'],
    async run(harness) {
      const { local, upstream, serves } = await serving(harness);
      for (let i = 1; i <= 3; i++) {
        await sendRawDatagram(at('127.0.0.1', 0), local, 'answer me');
        await until(() => harness.count('droppedSource') === i, 'the count');
      }
      assert.deepEqual([upstream.received.length, harness.count('udpFlows')], [0, 0]);
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
      const [client] = await clientsOf(harness, local, upstream, ['127.0.0.1']);
      const facing = at('127.0.0.1', upstream.from[0]?.port ?? 0);
      const strangers = [
        await harness.udp('127.0.0.1'),
        await harness.udp('127.0.0.2', undefined, upstream.local.port),
      ];
      for (const stranger of strangers) stranger.send('believe me', facing);
      await sleep(100);
      upstream.answer('the answer');
      await client?.datagrams(1);
      assert.deepEqual(client?.texts, ['the answer']);
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
      const clients = await Promise.all(times(400, '127.0.0.1').map((host) => harness.udp(host, local)));
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
];

export const udpAbuseCases: readonly Case[] = [...limitCases(), ...circles, ...forged, ...dead];
