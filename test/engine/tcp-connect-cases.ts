/** TCP: which upstream is reached, how long that takes, and what a client hears when none is. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CloseReason } from '../../src/flow/flow.ts';
import { type Endpoint, formatEndpoint } from '../../src/net/address.ts';
import { silentServer } from '../support/silent-server.ts';
import { at, type Client, type Harness, type PlanOptions, paths, until } from './harness.ts';
import type { Case } from './suite.ts';

async function silent(harness: Harness, host: string): Promise<Endpoint> {
  const server = await silentServer(host);
  harness.defer(server.close);
  return at(host, server.port);
}

/** Connects through a fresh listener and measures until the first byte of a greeting. */
async function greeted(harness: Harness, local: Endpoint): Promise<{ ms: number; client: Client }> {
  const start = performance.now();
  const client = await harness.connect(local);
  await client.text(2);
  return { ms: performance.now() - start, client };
}

const greeting = (harness: Harness, host: string) => harness.server(host, (socket) => socket.end('hi'));

async function refusedWith(harness: Harness, local: Endpoint, reason: CloseReason): Promise<void> {
  const client = await harness.connect(local);
  assert.equal(await client.ending, 'ECONNRESET', 'the client gets RST, not an empty answer');
  await until(() => harness.records.some((record) => record.reason === reason), reason);
}

export const tcpConnectCases: readonly Case[] = [
  ...paths.map(
    (path): Case => ({
      title: `${path.name}: a refusal moves on to the next candidate at once and is recorded as a fallback`,
      async run(harness) {
        const refusing = await harness.closedPort(path.listen);
        const upstream = await greeting(harness, path.upstream);
        const { local } = await harness.listen('tcp', path.listen, [refusing, upstream]);
        const { ms } = await greeted(harness, local);
        assert.ok(ms < 200, `took ${ms} ms`);
        assert.equal(harness.count('fallbacks'), 1);
      },
    }),
  ),
  {
    title: 'silence moves on after 250 ms, and the silent candidate is tried last for a while',
    async run(harness) {
      const upstream = await greeting(harness, '127.0.0.1');
      const { local } = await harness.listen('tcp', '::1', [await silent(harness, '::1'), upstream]);
      const first = await greeted(harness, local);
      assert.ok(first.ms >= 240 && first.ms < 1500, `the first took ${first.ms} ms`);
      const second = await greeted(harness, local);
      assert.ok(second.ms < 200, `the second took ${second.ms} ms`);
      second.client.socket.end();
      first.client.socket.end();
      await until(() => harness.records.length === 2, 'the records');
      assert.ok(
        harness.records.every(
          ({ fallback, upstream: u }) => fallback && u && formatEndpoint(u) === formatEndpoint(upstream),
        ),
      );
    },
  },
  {
    title: 'a refused candidate is tried last until it answers again',
    async run(harness) {
      const refusing = await harness.closedPort('127.0.0.2');
      const upstream = await greeting(harness, '127.0.0.1');
      const { local } = await harness.listen('tcp', '127.0.0.1', [refusing, upstream]);
      for (let i = 0; i < 5; i++) await greeted(harness, local);
      assert.equal(harness.count('fallbacks'), 5, 'each of them was served by the second');
    },
  },
  {
    title: 'when every candidate refuses, the client gets RST',
    async run(harness) {
      const refusing = [await harness.closedPort('::1'), await harness.closedPort('127.0.0.1')];
      const { local } = await harness.listen('tcp', '::1', refusing);
      for (let i = 0; i < 3; i++) await refusedWith(harness, local, 'connect-refused');
      assert.equal(harness.count('connectRefused'), 3);
      assert.equal(harness.count('tcpFlowsActive'), 0);
    },
  },
  {
    title: 'when nobody answers, the client gets RST after the connect timeout',
    async run(harness) {
      const candidates = [await silent(harness, '::1'), await silent(harness, '127.0.0.1')];
      const { local } = await harness.listen('tcp', '::1', candidates, { timeouts: { connectMs: 700 } });
      const start = performance.now();
      await refusedWith(harness, local, 'connect-timeout');
      const ms = performance.now() - start;
      assert.ok(ms > 650 && ms < 1500, `after ${ms} ms`);
    },
  },
  {
    title: 'an address without a route is passed over like a refusal',
    async run(harness) {
      // 255.255.255.255 can never be connected to; the kernel says so at once.
      const upstream = await greeting(harness, '127.0.0.1');
      const { local } = await harness.listen('tcp', '127.0.0.1', [at('255.255.255.255', 9), upstream]);
      assert.ok((await greeted(harness, local)).ms < 200);
    },
  },
  {
    title:
      'whoever is still being connected when the listener is closed is reset: nobody is connected for it later',
    async run(harness) {
      const listener = await harness.listen('tcp', '127.0.0.1', [await silent(harness, '127.0.0.1')]);
      const client = await harness.connect(listener.local);
      await until(() => harness.count('tcpFlowsActive') === 1, 'the flow');
      await listener.close();
      assert.equal(await client.ending, 'ECONNRESET');
      await until(() => harness.records[0]?.reason === 'rule-changed', 'the reason', 1000);
    },
  },
  {
    title: 'a client that resets while the upstream is still silent ends the attempt',
    async run(harness) {
      const { local } = await harness.listen('tcp', '127.0.0.1', [await silent(harness, '127.0.0.1')]);
      const client = await harness.connect(local);
      await sleep(50);
      client.socket.resetAndDestroy();
      await until(() => harness.records[0]?.reason === 'client-gone', 'the reason', 1000);
    },
  },
  {
    title: 'what policy refuses is reset, counted and recorded with its reason',
    async run(harness) {
      let contacted = 0;
      const upstream = await harness.server('127.0.0.1', () => contacted++);
      for (const refuse of ['denied', 'not-allowed', 'no-upstream'] as const) {
        const { local } = await harness.listen('tcp', '127.0.0.1', [upstream], {
          decide: () => ({ refuse }),
        });
        await refusedWith(harness, local, refuse);
      }
      assert.equal(contacted, 0);
      assert.equal(harness.count('refusedByAccess'), 2);
    },
  },
  ...limitCases(),
  {
    title: 'at the flow limit new connections wait and are served when a place is free',
    async run(harness) {
      const upstream = await harness.server('127.0.0.1', (socket) => socket.write('hi'));
      const { local } = await harness.listen('tcp', '127.0.0.1', [upstream]);
      const clients: Client[] = [];
      for (let i = 0; i < 20; i++) clients.push((await greeted(harness, local)).client);
      const waiting = await Promise.all([1, 2, 3].map(() => harness.connect(local)));
      await sleep(300);
      assert.ok(
        waiting.every(({ socket, received }) => !socket.destroyed && received.length === 0),
        'nobody is served, and nobody is turned away',
      );
      assert.deepEqual([harness.count('refusedByLimit'), harness.count('tcpFlowsActive')], [0, 20]);
      for (const [i, client] of waiting.entries()) {
        clients[i]?.socket.resetAndDestroy();
        assert.equal(await client.text(2), 'hi');
      }
      assert.equal(harness.count('tcpFlows'), 23);
    },
  },
];

function limitCases(): readonly Case[] {
  const rows: readonly { what: string; limits: PlanOptions['limits']; reason: CloseReason; fits: number }[] =
    [
      { what: 'the rule', limits: { perRule: 3 }, reason: 'limit-rule', fits: 3 },
      { what: 'one source', limits: { perSource: 2 }, reason: 'limit-source', fits: 2 },
      { what: 'the engine', limits: {}, reason: 'limit-flows', fits: 20 },
    ];
  return rows.map(({ what, limits, reason, fits }) => ({
    title: `the flow limit of ${what} holds, and a place that becomes free is given again`,
    async run(harness) {
      const upstream = await harness.server('127.0.0.1', (socket) => socket.write('hi'));
      const { local } = await harness.listen(
        'tcp',
        '127.0.0.1',
        [upstream],
        limits === undefined ? {} : { limits },
      );
      const clients: Client[] = [];
      for (let i = 0; i < fits; i++) clients.push((await greeted(harness, local)).client);
      await refusedWith(harness, local, reason);
      assert.equal(harness.count('refusedByLimit'), 1);
      clients[0]?.socket.resetAndDestroy();
      await until(() => harness.count('tcpFlowsActive') < fits, 'the free place');
      await greeted(harness, local);
    },
  }));
}
