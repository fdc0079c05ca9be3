/** UDP: how many flows there may be, who makes room for whom, and who does not. */
import assert from 'node:assert/strict';
import { RuleGroup } from '../../src/engine/admission.ts';
import { readCounter } from '../../src/flow/counters.ts';
import type { Endpoint } from '../../src/net/address.ts';
import { type Harness, type PlanOptions, type UdpPeer, until } from './harness.ts';
import type { Case } from './suite.ts';

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

export const udpLimitCases: readonly Case[] = [...limitCases(), ...circles];
