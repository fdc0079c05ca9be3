/** UDP: what a client gets before it has shown that it hears. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ReplyBudget } from '../../src/engine/reply-budget.ts';
import { isLoopback } from '../../src/net/address.ts';
import { encodeLocal } from '../../src/proxy-protocol/codec.ts';
import { type Harness, type PlanOptions, type UdpPeer, until } from './harness.ts';
import type { Case } from './suite.ts';

const budget: ReplyBudget = { datagrams: 5, bytes: 1000, factor: 0, bytesPerSecond: 1_000_000 };

interface Pair {
  readonly upstream: UdpPeer;
  readonly client: UdpPeer;
}

/** A client that has sent one datagram, and an upstream that has it. */
async function asked(harness: Harness, options: PlanOptions, question = 'hi'): Promise<Pair> {
  const upstream = await harness.udp('127.0.0.1');
  const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local], options);
  const client = await harness.udp('127.0.0.1', local);
  client.send(question);
  await upstream.datagrams(1);
  return { upstream, client };
}

/** What the client has once everything has come or was dropped. */
async function gets({ upstream, client }: Pair, sizes: readonly number[]): Promise<readonly number[]> {
  const before = client.received.length;
  for (const size of sizes) upstream.answer(Buffer.alloc(size));
  await sleep(100);
  return client.received.slice(before).map(({ length }) => length);
}

/** Another datagram of the client, once the upstream has it. */
async function asksAgain({ upstream, client }: Pair): Promise<void> {
  const before = upstream.received.length;
  client.send('hi');
  await upstream.datagrams(before + 1);
}

const times = (count: number, size: number) => Array.from({ length: count }, () => size);

export const udpBudgetCases: readonly Case[] = [
  {
    title: 'for its first datagram a client gets so many answers and no more; the rest is counted',
    async run(harness) {
      const pair = await asked(harness, { replies: budget });
      assert.deepEqual(await gets(pair, times(8, 10)), times(5, 10));
      assert.equal(harness.count('droppedBudget'), 3);
      assert.equal(harness.count('datagramsFromUpstream'), 8, 'they came all the same');
    },
  },
  {
    title: 'for its first datagram a client gets so many bytes and no more',
    async run(harness) {
      const pair = await asked(harness, { replies: budget });
      assert.deepEqual(await gets(pair, [600]), [600]);
      assert.deepEqual(await gets(pair, [500]), []);
      assert.deepEqual(await gets(pair, [400, 1]), [400]);
      assert.equal(harness.count('droppedBudget'), 2);
    },
  },
  {
    title: 'each datagram of a client allows as much again, before an answer, too',
    async run(harness) {
      const pair = await asked(harness, { replies: budget });
      await asksAgain(pair);
      assert.deepEqual(await gets(pair, times(12, 10)), times(10, 10));
      await asksAgain(pair);
      assert.deepEqual(await gets(pair, times(12, 10)), times(5, 10));
    },
  },
  {
    title: 'with its second datagram behind an answer a client has shown that it hears, and gets everything',
    async run(harness) {
      const pair = await asked(harness, { replies: budget });
      assert.deepEqual(await gets(pair, [10]), [10]);
      await asksAgain(pair);
      assert.deepEqual(await gets(pair, times(20, 10)), times(9, 10), 'one is not enough');
      await asksAgain(pair);
      assert.deepEqual(await gets(pair, times(30, 1400)), times(30, 1400));
    },
  },
  {
    title: 'datagrams before the first answer show nothing',
    async run(harness) {
      const pair = await asked(harness, { replies: budget });
      for (let i = 0; i < 3; i++) await asksAgain(pair);
      assert.deepEqual(await gets(pair, times(30, 10)), times(20, 10));
    },
  },
  {
    title: 'with a factor a client gets so many times what it has sent, also in its last byte',
    async run(harness) {
      const pair = await asked(harness, { replies: { ...budget, factor: 3 } }, 'x'.repeat(40));
      assert.deepEqual(await gets(pair, [100]), [100]);
      assert.deepEqual(await gets(pair, [21]), []);
      assert.deepEqual(await gets(pair, [20]), [20]);
      assert.deepEqual(await gets(pair, [1]), []);
    },
  },
  {
    title:
      'a network’s clients share a rate until they have shown that they hear, and another network has its own',
    async run(harness) {
      const replies = { datagrams: 1000, bytes: 1_000_000, factor: 0, bytesPerSecond: 20_000 };
      const upstream = await harness.udp('127.0.0.1');
      const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local], { replies });
      const clientOf = async (host: string) => {
        const client = await harness.udp(host, local);
        client.send('hi');
        await upstream.datagrams(upstream.received.length + 1);
        return { upstream, client };
      };
      let bytes = 0;
      for (let i = 0; i < 5; i++)
        for (const size of await gets(await clientOf('127.0.0.1'), times(10, 1000))) bytes += size;
      assert.ok(bytes >= 20_000 && bytes <= 40_000, `${bytes} bytes, of 50,000`);
      assert.deepEqual(await gets(await clientOf('127.0.0.2'), times(10, 1000)), times(10, 1000));
      await sleep(1100);
      assert.deepEqual(await gets(await clientOf('127.0.0.1'), times(5, 1000)), times(5, 1000));
    },
  },
  {
    title: 'a datagram that was refused and goes to the next candidate allows its answers once',
    async run(harness) {
      const refusing = await harness.closedUdpPort('127.0.0.2');
      const upstream = await harness.udp('127.0.0.1');
      const { local } = await harness.listen('udp', '127.0.0.1', [refusing, upstream.local], {
        replies: budget,
      });
      const client = await harness.udp('127.0.0.1', local);
      client.send('hi');
      await upstream.datagrams(1);
      assert.deepEqual(await gets({ upstream, client }, times(8, 10)), times(5, 10));
    },
  },
  {
    title: 'a replaced budget is for new flows, and without one everything passes',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const listener = await harness.listen('udp', '127.0.0.1', [upstream.local], { replies: budget });
      const old = await harness.udp('127.0.0.1', listener.local);
      old.send('hi');
      await upstream.datagrams(1);
      listener.replace(harness.plan([upstream.local]));
      const fresh = await harness.udp('127.0.0.1', listener.local);
      fresh.send('hi');
      await upstream.datagrams(2);
      assert.deepEqual(await gets({ upstream, client: fresh }, times(40, 1000)), times(40, 1000));
      for (let i = 0; i < 8; i++) upstream.answer('late', 0);
      await until(() => harness.count('droppedBudget') === 3, 'the budget of the old flow');
      // They are on their way when they are counted.
      await old.datagrams(5);
      assert.deepEqual(await gets({ upstream, client: old }, []), []);
      assert.equal(old.received.length, 5);
    },
  },
  {
    title: 'where PROXY headers are expected answers are the business of the proxy in front',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local], {
        replies: budget,
        trusts: isLoopback,
      });
      const client = await harness.udp('127.0.0.1', local);
      client.send(Buffer.concat([encodeLocal(2, 'udp'), Buffer.from('hi')]));
      await upstream.datagrams(1);
      assert.deepEqual(await gets({ upstream, client }, times(20, 1000)), times(20, 1000));
    },
  },
];
