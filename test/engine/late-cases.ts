/** Upstreams that become known while a flow is under way, because all that were known have refused it. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Protocol } from '../../src/flow/flow.ts';
import type { Endpoint } from '../../src/net/address.ts';
import { type Harness, type PlanOptions, until } from './harness.ts';
import type { Case } from './suite.ts';

/** One candidate that is known, and others that become known `afterMs` after they were asked for. */
class Finder {
  asked = 0;
  readonly #found: readonly Endpoint[];
  readonly #afterMs: number;

  constructor(found: readonly Endpoint[], afterMs = 0) {
    this.#found = found;
    this.#afterMs = afterMs;
  }

  plan(known: Endpoint): PlanOptions {
    const late = async () => {
      this.asked++;
      await sleep(this.#afterMs);
      return this.#found;
    };
    return { decide: () => ({ upstreams: [known], announce: undefined, late }) };
  }
}

async function listenLate(
  harness: Harness,
  protocol: Protocol,
  known: Endpoint,
  finder: Finder,
): Promise<Endpoint> {
  return (await harness.listen(protocol, '127.0.0.1', [], finder.plan(known))).local;
}

export const lateCases: readonly Case[] = [
  {
    title: 'a connection that is refused waits for an upstream that is found out meanwhile',
    async run(harness) {
      const upstream = await harness.server('::1', (socket) => socket.end('hi'));
      const finder = new Finder([upstream], 150);
      const local = await listenLate(harness, 'tcp', await harness.closedPort('127.0.0.1'), finder);
      const start = performance.now();
      const client = await harness.connect(local);
      assert.equal(await client.text(2), 'hi');
      const ms = performance.now() - start;
      assert.ok(ms >= 140 && ms < 1000, `took ${ms} ms`);
      assert.deepEqual([finder.asked, harness.count('fallbacks')], [1, 1]);
    },
  },
  {
    title: 'a connection that is taken waits for nothing',
    async run(harness) {
      const upstream = await harness.server('127.0.0.1', (socket) => socket.end('hi'));
      const finder = new Finder([upstream], 5000);
      const client = await harness.connect(await listenLate(harness, 'tcp', upstream, finder));
      assert.equal(await client.text(2), 'hi');
      assert.equal(finder.asked, 0);
    },
  },
  {
    title: 'a connection for which nobody is found is reset as it would have been',
    async run(harness) {
      const finder = new Finder([], 100);
      const local = await listenLate(harness, 'tcp', await harness.closedPort('127.0.0.1'), finder);
      const client = await harness.connect(local);
      assert.equal(await client.ending, 'ECONNRESET');
      await until(() => harness.records[0]?.reason === 'connect-refused', 'the reason');
      assert.equal(harness.count('connectRefused'), 1);
    },
  },
  {
    title: 'a client that leaves meanwhile is not connected',
    async run(harness) {
      let contacted = 0;
      const upstream = await harness.server('::1', () => contacted++);
      const finder = new Finder([upstream], 200);
      const local = await listenLate(harness, 'tcp', await harness.closedPort('127.0.0.1'), finder);
      const client = await harness.connect(local);
      await until(() => finder.asked === 1, 'the question');
      client.socket.resetAndDestroy();
      await until(() => harness.records[0]?.reason === 'client-gone', 'the reason');
      await sleep(250);
      assert.equal(contacted, 0);
    },
  },
  {
    title: 'a datagram that is refused is sent again to an upstream that is found out meanwhile',
    async run(harness) {
      const upstream = await harness.udpEcho('::1');
      const finder = new Finder([upstream.local], 100);
      const local = await listenLate(harness, 'udp', await harness.closedUdpPort('127.0.0.1'), finder);
      const client = await harness.udp('127.0.0.1', local);
      client.send('only once');
      await client.datagrams(1);
      assert.deepEqual([upstream.texts, client.texts], [['only once'], ['only once']]);
      assert.deepEqual([finder.asked, harness.count('fallbacks')], [1, 1]);
      client.send('again');
      await client.datagrams(2);
      assert.deepEqual([finder.asked, harness.count('udpFlows')], [1, 1], 'it stays there');
    },
  },
  {
    title: 'a datagram for which nobody is found is a refusal, and another a second later asks again',
    async run(harness) {
      const finder = new Finder([], 20);
      const closed = await harness.closedUdpPort('127.0.0.1');
      const client = await harness.udp('127.0.0.1', await listenLate(harness, 'udp', closed, finder));
      for (let i = 0; i < 5; i++) {
        client.send('in vain');
        await sleep(50);
      }
      assert.deepEqual([finder.asked, harness.count('connectRefused')], [1, 1]);
      const upstream = await harness.udpEcho('127.0.0.1', closed.port);
      await sleep(1100);
      client.send('now');
      await client.datagrams(1);
      assert.deepEqual(upstream.texts, ['now']);
    },
  },
  {
    title: 'a program that starts while another upstream is asked for is kept',
    async run(harness) {
      const other = await harness.udpEcho('::1');
      const finder = new Finder([other.local], 300);
      const closed = await harness.closedUdpPort('127.0.0.1');
      const client = await harness.udp('127.0.0.1', await listenLate(harness, 'udp', closed, finder));
      client.send('too early');
      await until(() => finder.asked === 1, 'the question');
      const upstream = await harness.udpEcho('127.0.0.1', closed.port);
      client.send('now');
      await client.datagrams(1);
      await sleep(350);
      client.send('still');
      await client.datagrams(2);
      assert.deepEqual([upstream.texts, other.texts], [['now', 'still'], []]);
    },
  },
];
