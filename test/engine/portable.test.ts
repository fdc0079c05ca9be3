/** The portable engine under the suite, and what node:net and node:dgram cannot do. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Listener } from '../../src/engine/engine.ts';
import { makePortableEngine } from '../../src/engine/portable/portable.ts';
import { type Client, type Harness, until } from './harness.ts';
import { headerCases } from './header-cases.ts';
import { lateCases } from './late-cases.ts';
import { sourceCases } from './source-cases.ts';
import { type Case, engineSuite } from './suite.ts';
import { tcpConnectCases } from './tcp-connect-cases.ts';
import { tcpRelayCases } from './tcp-relay-cases.ts';
import { udpAbuseCases } from './udp-abuse-cases.ts';
import { udpBudgetCases } from './udp-budget-cases.ts';
import { udpHeaderCases } from './udp-header-cases.ts';
import { udpLimitCases } from './udp-limit-cases.ts';
import { udpRelayCases } from './udp-relay-cases.ts';
import { udpUpstreamCases } from './udp-upstream-cases.ts';

const waitsInstead =
  'at the limit of the engine connections wait while there is room; see portable: the waiting room';
const noPacketInfo =
  'node:dgram has no IP_PKTINFO: the kernel chooses where answers of a wildcard leave from';

/** Two clients that are served, and two that wait. */
async function full(harness: Harness): Promise<{ listener: Listener; clients: Client[] }> {
  const upstream = await harness.server('127.0.0.1', (socket) => socket.write('hi'));
  const listener = await harness.listen('tcp', '127.0.0.1', [upstream]);
  const clients: Client[] = [];
  for (let i = 0; i < 4; i++) clients.push(await harness.connect(listener.local));
  await Promise.all(clients.slice(0, 2).map((client) => client.text(2)));
  await sleep(50);
  assert.deepEqual(
    clients.map(({ received }) => received.length),
    [2, 2, 0, 0],
  );
  assert.ok(clients.every(({ socket }) => !socket.destroyed));
  return { listener, clients };
}

const waitingCases: readonly Case[] = [
  {
    title: 'who finds no room to wait is reset and recorded, and those who wait are served in order',
    async run(harness) {
      const { listener, clients } = await full(harness);
      assert.equal(await (await harness.connect(listener.local)).ending, 'ECONNRESET');
      assert.deepEqual(
        harness.records.map(({ reason }) => reason),
        ['limit-flows'],
      );
      clients[0]?.socket.resetAndDestroy();
      assert.equal(await clients[2]?.text(2), 'hi');
      assert.equal(clients[3]?.received.length, 0);
      clients[1]?.socket.resetAndDestroy();
      assert.equal(await clients[3]?.text(2), 'hi');
    },
  },
  {
    title: 'who waits is reset when the listener stops, and when the engine closes',
    async run(harness) {
      const first = await full(harness);
      await first.listener.stop();
      assert.equal(await first.clients[2]?.ending, 'ECONNRESET');
      assert.equal(await first.clients[3]?.ending, 'ECONNRESET');
      for (const { socket } of first.clients) socket.resetAndDestroy();
      await until(() => harness.count('tcpFlowsActive') === 0, 'two free places');
      const second = await full(harness);
      await harness.engine.close();
      assert.equal(await second.clients[2]?.ending, 'ECONNRESET');
    },
  },
  {
    title: 'who left while he waited costs no place for long',
    async run(harness) {
      const { listener, clients } = await full(harness);
      clients[2]?.socket.resetAndDestroy();
      clients[3]?.socket.resetAndDestroy();
      clients[0]?.socket.resetAndDestroy();
      clients[1]?.socket.resetAndDestroy();
      await until(() => harness.count('tcpFlowsActive') === 0, 'the places');
      assert.equal(await (await harness.connect(listener.local)).text(2), 'hi');
    },
  },
];

engineSuite('portable: TCP relay', makePortableEngine, tcpRelayCases);
engineSuite('portable: TCP connect', (maxFlows) => makePortableEngine(maxFlows, 3), tcpConnectCases, [
  {
    title: 'the flow limit of the engine holds, and a place that becomes free is given again',
    reason: waitsInstead,
  },
]);
engineSuite('portable: late upstreams', makePortableEngine, lateCases);
engineSuite('portable: the waiting room', () => makePortableEngine(2, 2), waitingCases);
engineSuite('portable: PROXY protocol', makePortableEngine, headerCases);
engineSuite('portable: UDP relay', makePortableEngine, udpRelayCases, [
  { title: '0.0.0.0: answers leave from the address the client dialled', reason: noPacketInfo },
  { title: '[::]: answers leave from the address the client dialled', reason: noPacketInfo },
]);
engineSuite('portable: UDP upstreams', makePortableEngine, udpUpstreamCases);
engineSuite('portable: UDP limits', makePortableEngine, udpLimitCases);
engineSuite('portable: UDP abuse', makePortableEngine, udpAbuseCases);
engineSuite('portable: sources', makePortableEngine, sourceCases);
engineSuite('portable: UDP budget', makePortableEngine, udpBudgetCases);
engineSuite('portable: PROXY protocol over UDP', makePortableEngine, udpHeaderCases);
