/** The Linux engine under the suite: every promise but the one that its own way of keeping limits replaces. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Engine, Listener } from '../../src/engine/engine.ts';
import { layoutFor } from '../../src/engine/linux/layout.ts';
import { makeLinuxEngine } from '../../src/engine/linux/linux.ts';
import { loadNative } from '../../src/engine/linux/load.ts';
import { openDescriptors } from '../support/fds.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import { at, type Client, type Harness, until } from './harness.ts';
import { headerCases } from './header-cases.ts';
import { lateCases } from './late-cases.ts';
import { sourceCases } from './source-cases.ts';
import { type Case, engineSuite } from './suite.ts';
import { tcpConnectCases } from './tcp-connect-cases.ts';
import { stalledWriters, tcpRelayCases } from './tcp-relay-cases.ts';
import { udpAbuseCases } from './udp-abuse-cases.ts';
import { udpBudgetCases } from './udp-budget-cases.ts';
import { udpHeaderCases } from './udp-header-cases.ts';
import { udpLimitCases } from './udp-limit-cases.ts';
import { udpRelayCases } from './udp-relay-cases.ts';
import { udpUpstreamCases } from './udp-upstream-cases.ts';

const loaded = loadNative();

const waitsInstead =
  'at the limit of the engine connections wait; those of the rule and of a source still reset';
const oneRefusalATrain =
  'what waits for an upstream goes there as one train, and the kernel refuses a train once; see linux: trains';

const kernelHolds =
  'nothing is held in JavaScript; in C see native/test, and the kernel grows its buffers for a fast reader';

function suites(makeEngine: (maxFlows: number) => Engine): void {
  engineSuite('linux: TCP relay', makeEngine, tcpRelayCases, [
    {
      title: 'a reader that stops holds up its writer within the stated bound of 160 KiB per direction',
      reason: kernelHolds,
    },
  ]);
  engineSuite('linux: back-pressure', makeEngine, backPressureCases);
  engineSuite('linux: TCP connect', makeEngine, tcpConnectCases, [
    {
      title: 'the flow limit of the engine holds, and a place that becomes free is given again',
      reason: waitsInstead,
    },
  ]);
  engineSuite('linux: late upstreams', makeEngine, lateCases);
  engineSuite('linux: PROXY protocol', makeEngine, headerCases);
  engineSuite('linux: UDP relay', makeEngine, udpRelayCases);
  engineSuite('linux: UDP upstreams', makeEngine, udpUpstreamCases);
  engineSuite('linux: UDP limits', makeEngine, udpLimitCases);
  engineSuite('linux: UDP abuse', makeEngine, udpAbuseCases, [
    {
      title: '10,000 datagrams to 1 dead upstream cost one flow and no descriptors',
      reason: oneRefusalATrain,
    },
  ]);
  engineSuite('linux: sources', makeEngine, sourceCases);
  engineSuite('linux: UDP budget', makeEngine, udpBudgetCases);
  engineSuite('linux: PROXY protocol over UDP', makeEngine, udpHeaderCases);
  engineSuite('linux: the limit', makeEngine, limitCases);
  engineSuite('linux: trains', makeEngine, trainCases);
}

/** Three times as many clients as there are places, all in one turn of the event loop, and who was served. */
async function crowd(
  harness: Harness,
): Promise<{ listener: Listener; clients: Client[]; served(): Client[] }> {
  const upstream = await harness.server('127.0.0.1', (socket) => socket.write('hi'));
  const listener = await harness.listen('tcp', '127.0.0.1', [upstream]);
  const clients = await Promise.all(Array.from({ length: 60 }, () => harness.connect(listener.local)));
  const served = () => clients.filter(({ received }) => received.length > 0);
  await until(() => served().length === 20, 'twenty to be served');
  return { listener, clients, served };
}

const limitCases: readonly Case[] = [
  {
    title: 'a crowd is served as places become free, and nobody is turned away',
    async run(harness) {
      const { clients, served } = await crowd(harness);
      const left = new Set<Client>();
      await until(() => {
        for (const client of served()) {
          left.add(client);
          client.socket.resetAndDestroy();
        }
        return left.size === clients.length;
      }, 'everybody to be served');
      await until(() => harness.records.length === 60, 'the records');
      assert.deepEqual([harness.count('tcpFlows'), harness.count('refusedByLimit')], [60, 0]);
    },
  },
  {
    title: 'clients that leave while they wait take nobody’s place',
    async run(harness) {
      const { listener, clients, served } = await crowd(harness);
      const inside = served();
      for (const client of clients) if (!inside.includes(client)) client.socket.resetAndDestroy();
      const last = await harness.connect(listener.local);
      await sleep(100);
      assert.equal(last.received.length, 0);
      inside[0]?.socket.resetAndDestroy();
      assert.equal(await last.text(2), 'hi');
    },
  },
  {
    title: 'clients of a listener that is opened at the limit wait in the kernel, without a descriptor here',
    async run(harness) {
      const { clients } = await crowd(harness);
      const upstream = await harness.server('127.0.0.1', (socket) => socket.write('hi'));
      const listener = await harness.listen('tcp', '127.0.0.1', [upstream]);
      const before = openDescriptors();
      const late = await Promise.all(Array.from({ length: 30 }, () => harness.connect(listener.local)));
      await sleep(200);
      assert.equal(openDescriptors() - before, late.length, 'their own');
      for (const client of clients) client.socket.resetAndDestroy();
      assert.equal(await late[0]?.text(2), 'hi');
    },
  },
  {
    title: 'a listener that is closed resets who waits, and those who were served go on',
    async run(harness) {
      const { listener, clients, served } = await crowd(harness);
      const inside = served();
      await listener.close();
      for (const client of clients)
        if (!inside.includes(client)) assert.equal(await client.ending, 'ECONNRESET');
      assert.deepEqual([inside.length, harness.count('tcpFlowsActive')], [20, 20]);
      assert.ok(inside.every(({ socket }) => !socket.destroyed));
    },
  },
];

const backPressureCases: readonly Case[] = [
  {
    title: 'a reader that stops holds up its writer within what the kernel buffers',
    async run(harness) {
      const { mostSent } = await stalledWriters(harness);
      // Those of four sockets, of which tcp_rmem allows two up to 32 MiB, and a pipe.
      assert.ok(mostSent < 80 * 2 ** 20, `writers stopped, at ${mostSent} bytes`);
    },
  },
];

const trainCases: readonly Case[] = [
  {
    title: '10,000 datagrams to a dead upstream cost one flow and no descriptors, and it may come up',
    async run(harness) {
      const closed = await harness.closedUdpPort('127.0.0.1');
      const { local } = await harness.listen('udp', '127.0.0.1', [closed]);
      const client = await harness.udp('127.0.0.1', local);
      const descriptors = openDescriptors();
      for (let sent = 1; sent <= 10_000; sent++) {
        client.send('x');
        if (sent % 50 === 0) await sleep(0);
      }
      await until(() => harness.count('datagramsFromClient') === 10_000, 'all of them');
      assert.ok(harness.count('icmpRefusals') >= 50, `${harness.count('icmpRefusals')} refusals`);
      assert.ok(openDescriptors() <= descriptors + 1);
      assert.deepEqual([harness.count('udpFlows'), harness.records.length], [1, 0]);
      const upstream = await harness.udpEcho('127.0.0.1', closed.port);
      client.send('y');
      await client.datagrams(1);
      assert.deepEqual(upstream.texts, ['y']);
    },
  },
  {
    title:
      'a flow whose upstreams cannot even be connected to lives on without a socket, and ends with its reason',
    async run(harness) {
      const { local } = await harness.listen(
        'udp',
        '127.0.0.1',
        [at('255.255.255.255', 9), at('255.255.255.255', 10)],
        {
          timeouts: { udpMs: 500 },
        },
      );
      const client = await harness.udp('127.0.0.1', local);
      for (let i = 1; i <= 3; i++) {
        client.send('in vain');
        await until(() => harness.count('datagramsFromClient') === i, 'the datagram');
      }
      assert.deepEqual([harness.count('udpFlows'), harness.count('connectFailed')], [1, 1]);
      await until(() => harness.records.length === 1, 'the end');
      assert.equal(harness.records[0]?.reason, 'connect-failed');
      assert.deepEqual(harness.records[0]?.bytes, [21, 0]);
    },
  },
];

// In CI the core must be there.
const skip = skipWithoutCore();
test('the native core can be had', { skip }, () => {
  assert.ok('native' in loaded, 'reason' in loaded ? loaded.reason : '');
});
test('both sides lay out the shared memory alike', { skip }, () => {
  assert.ok('native' in loaded);
  for (const slots of [1, 7, 64, 1000, 65_537]) {
    const { events, endpoints, bytes, answerBytes, activeMs, ended, arena, total } = layoutFor(slots);
    const here = [events, endpoints, bytes, answerBytes, activeMs, ended, arena, total];
    assert.deepEqual(loaded.native.layout(slots), here);
  }
});

if ('native' in loaded) suites((maxFlows) => makeLinuxEngine(loaded.native, maxFlows));
