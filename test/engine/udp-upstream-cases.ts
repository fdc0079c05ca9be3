/** UDP: which upstream a flow talks to, what ICMP refusals do, and how long a flow lasts. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Endpoint, formatEndpoint } from '../../src/net/address.ts';
import { at, type Harness, paths, type UdpPeer, until } from './harness.ts';
import type { Case } from './suite.ts';

async function clientOf(harness: Harness, upstreams: readonly Endpoint[]): Promise<UdpPeer> {
  const { local } = await harness.listen('udp', '127.0.0.1', upstreams);
  return harness.udp('127.0.0.1', local);
}

function served(harness: Harness): readonly string[] {
  return harness.records.map(({ upstream, fallback, reason }) =>
    [upstream && formatEndpoint(upstream), fallback ? 'fallback' : 'first', reason].join(' '),
  );
}

/** Sends until the peer has been answered from somewhere, as a program that repeats its question does. */
async function ask(client: UdpPeer, text: string): Promise<void> {
  const before = client.received.length;
  for (let i = 0; i < 100 && client.received.length === before; i++) {
    client.send(text);
    await sleep(20);
  }
  await client.datagrams(before + 1);
}

const refusals: readonly Case[] = [
  ...paths.map(
    (path): Case => ({
      title: `${path.name}: a refused datagram is sent again to the next candidate, which is recorded as a fallback`,
      async run(harness) {
        const other = path.upstream === '::1' ? '127.0.0.1' : '::1';
        const upstream = await harness.udpEcho(path.upstream);
        const order = [await harness.closedUdpPort(other), upstream.local];
        const { local } = await harness.listen('udp', path.listen, order);
        const client = await harness.udp(path.listen, local);
        client.send('only once');
        await client.datagrams(1);
        await sleep(50);
        assert.deepEqual([upstream.texts, client.texts], [['only once'], ['only once']]);
        assert.deepEqual([harness.count('fallbacks'), harness.count('icmpRefusals')], [1, 1]);
        assert.equal(harness.count('connectRefused'), 0, 'an upstream was reached');
        await harness.engine.close();
        assert.deepEqual(served(harness), [`${formatEndpoint(upstream.local)} fallback shutdown`]);
      },
    }),
  ),
  {
    title: 'a refused UDP candidate is tried last by the flows that follow',
    async run(harness) {
      const upstream = await harness.udpEcho('127.0.0.1');
      const { local } = await harness.listen('udp', '127.0.0.1', [
        await harness.closedUdpPort('127.0.0.2'),
        upstream.local,
      ]);
      for (let i = 0; i < 5; i++) {
        const client = await harness.udp('127.0.0.1', local);
        client.send('hello');
        await client.datagrams(1);
      }
      assert.deepEqual([harness.count('fallbacks'), harness.count('icmpRefusals')], [5, 1]);
    },
  },
  {
    title: 'an upstream that refused over TCP is not avoided over UDP',
    async run(harness) {
      const both = await harness.udpEcho('127.0.0.2');
      const greeting = await harness.server('127.0.0.1', (socket) => socket.end('hi'));
      const tcp = await harness.listen('tcp', '127.0.0.1', [both.local, greeting]);
      await (await harness.connect(tcp.local)).text(2);
      assert.equal(harness.count('fallbacks'), 1);
      const client = await clientOf(harness, [both.local, (await harness.udpEcho('127.0.0.1')).local]);
      client.send('hello');
      await client.datagrams(1);
      assert.deepEqual(both.texts, ['hello']);
    },
  },
  {
    title: 'an address UDP cannot be sent to is passed over like an ICMP refusal',
    async run(harness) {
      // Without SO_BROADCAST the kernel refuses to connect to 255.255.255.255.
      const upstream = await harness.udpEcho('127.0.0.1');
      const client = await clientOf(harness, [at('255.255.255.255', 9), upstream.local]);
      client.send('only once');
      await client.datagrams(1);
      await sleep(50);
      assert.deepEqual(upstream.texts, ['only once']);
      assert.equal(harness.count('fallbacks'), 1);
    },
  },
  {
    title: 'when every candidate refuses, the flow stays and the whole order is tried again after a second',
    async run(harness) {
      const closed = [
        await harness.closedUdpPort('127.0.0.1'),
        await harness.closedUdpPort('127.0.0.2'),
        await harness.closedUdpPort('::1'),
      ] as const;
      const client = await clientOf(harness, closed);
      client.send('in vain');
      await until(() => harness.count('icmpRefusals') === 3, 'each refusal');
      assert.equal(harness.count('connectRefused'), 1, 'no upstream was reached');
      const upstream = await harness.udpEcho('127.0.0.1', closed[0].port);
      await sleep(1100);
      client.send('again');
      await client.datagrams(1);
      assert.deepEqual(upstream.texts, ['again']);
      assert.equal(harness.count('udpFlows'), 1);
    },
  },
  {
    title: 'refusals by a single candidate do not end a flow: when the upstream comes up, it answers',
    async run(harness) {
      const closed = await harness.closedUdpPort('127.0.0.1');
      const client = await clientOf(harness, [closed]);
      for (let i = 1; i <= 3; i++) {
        client.send('in vain');
        await until(() => harness.count('icmpRefusals') === i, 'the refusal');
      }
      const upstream = await harness.udpEcho('127.0.0.1', closed.port);
      client.send('hello');
      await client.datagrams(1);
      assert.deepEqual(upstream.texts, ['hello']);
      assert.deepEqual([harness.count('udpFlows'), harness.records.length], [1, 0]);
    },
  },
  {
    title: 'when an upstream that has answered goes away, the next candidate takes over',
    async run(harness) {
      const first = await harness.udpEcho('127.0.0.1');
      const second = await harness.udpEcho('::1');
      const client = await clientOf(harness, [first.local, second.local]);
      await ask(client, 'one');
      first.close();
      await ask(client, 'two');
      await ask(client, 'three');
      assert.deepEqual([first.texts.includes('two'), second.texts.at(-1)], [false, 'three']);
      assert.deepEqual([harness.count('fallbacks'), harness.count('udpFlows')], [1, 1]);
      await harness.engine.close();
      assert.deepEqual(served(harness), [`${formatEndpoint(second.local)} fallback shutdown`]);
    },
  },
  {
    title:
      'the record keeps who has answered when that upstream goes away, and a fallback counts once per flow',
    async run(harness) {
      const refusing = await harness.closedUdpPort('127.0.0.2');
      let upstream = await harness.udpEcho('127.0.0.1');
      const client = await clientOf(harness, [refusing, upstream.local]);
      for (let i = 0; i < 3; i++) {
        await ask(client, 'hello');
        upstream.close();
        const before = harness.count('icmpRefusals');
        client.send('in vain');
        await until(() => harness.count('icmpRefusals') > before, 'the refusal');
        if (i < 2) upstream = await harness.udpEcho('127.0.0.1', upstream.local.port);
      }
      assert.equal(harness.count('fallbacks'), 1);
      await harness.engine.close();
      assert.deepEqual(served(harness), [`${formatEndpoint(upstream.local)} fallback shutdown`]);
    },
  },
];

const limits: readonly Case[] = [
  {
    title:
      'an unanswered UDP flow ends after its own limit, an answered one after the longer one, neither early',
    async run(harness) {
      const timeouts = { udpMs: 1000, udpStreamMs: 3000 };
      const silent = await harness.udp('127.0.0.1');
      const echo = await harness.udpEcho('127.0.0.1');
      const ended = async (upstream: UdpPeer): Promise<number> => {
        const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local], { timeouts });
        const client = await harness.udp('127.0.0.1', local);
        for (let i = 0; i < 4; i++) {
          client.send('.');
          await sleep(400);
        }
        // The fourth datagram was more than 1000 ms after the first.
        const start = performance.now();
        client.send('.');
        await upstream.datagrams(5);
        const port = client.local.port;
        await until(() => harness.records.some(({ flow }) => flow.peer.port === port), 'the end');
        return performance.now() - start;
      };
      const [unanswered, answered] = await Promise.all([ended(silent), ended(echo)]);
      assert.ok(unanswered >= 1000 && unanswered < 2200, `unanswered: after ${unanswered} ms`);
      assert.ok(answered >= 3000 && answered < 4200, `answered: after ${answered} ms`);
      assert.ok(harness.records.every(({ reason }) => reason === 'idle'));
      assert.deepEqual([harness.count('udpFlows'), harness.count('udpFlowsActive')], [2, 0]);
    },
  },
  {
    title: 'answers alone keep a UDP flow, and a UDP limit of 0 is none',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const talk = async (timeouts: { udpMs: number; udpStreamMs: number }) => {
        const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local], { timeouts });
        const client = await harness.udp('127.0.0.1', local);
        client.send('subscribe');
        return client;
      };
      const subscriber = await talk({ udpMs: 1000, udpStreamMs: 1000 });
      await upstream.datagrams(1);
      await talk({ udpMs: 0, udpStreamMs: 0 });
      for (let i = 1; i <= 8; i++) {
        upstream.answer('news', 0);
        await subscriber.datagrams(i);
        await sleep(300);
      }
      assert.equal(harness.records.length, 0);
    },
  },
];

const plans: readonly Case[] = [
  {
    title: 'a UDP flow whose upstream is still in a replaced plan goes on with the same socket',
    async run(harness) {
      const upstream = await harness.udpEcho('127.0.0.1');
      const other = await harness.udpEcho('::1');
      const listener = await harness.listen('udp', '127.0.0.1', [upstream.local]);
      const client = await harness.udp('127.0.0.1', listener.local);
      client.send('before');
      await client.datagrams(1);
      listener.replace(harness.plan([other.local, upstream.local]));
      client.send('after');
      await client.datagrams(2);
      assert.deepEqual([upstream.texts, other.texts], [['before', 'after'], []]);
      assert.equal(upstream.from[0]?.port, upstream.from[1]?.port);
      const fresh = await harness.udp('127.0.0.1', listener.local);
      fresh.send('new flow');
      await fresh.datagrams(1);
      assert.deepEqual(other.texts, ['new flow']);
      assert.equal(harness.records.length, 0);
    },
  },
  {
    title:
      'a UDP flow whose upstream is gone from a replaced plan ends, and its datagram goes to the new one',
    async run(harness) {
      const first = await harness.udpEcho('127.0.0.1');
      const second = await harness.udpEcho('::1');
      const listener = await harness.listen('udp', '127.0.0.1', [first.local]);
      const client = await harness.udp('127.0.0.1', listener.local);
      client.send('before');
      await client.datagrams(1);
      listener.replace(harness.plan([second.local]));
      assert.equal(harness.records.length, 0, 'it ends with its next datagram');
      client.send('after');
      await client.datagrams(2);
      assert.deepEqual([first.texts, second.texts], [['before'], ['after']]);
      assert.deepEqual(served(harness), [`${formatEndpoint(first.local)} first rule-changed`]);
      listener.replace(harness.plan([], { decide: () => ({ refuse: 'denied' }) }));
      client.send('not any more');
      await until(() => harness.records.length === 3, 'the end and the refusal');
      assert.deepEqual(served(harness).slice(1), [
        `${formatEndpoint(second.local)} first rule-changed`,
        ' first denied',
      ]);
      assert.deepEqual([harness.count('refusedByAccess'), harness.count('udpFlowsActive')], [1, 0]);
    },
  },
];

export const udpUpstreamCases: readonly Case[] = [...refusals, ...limits, ...plans];
