import assert from 'node:assert/strict';
import { once } from 'node:events';
import test from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  count,
  counterIndex,
  counterNames,
  makeCounters,
  readCounter,
  sumCounter,
} from '../../../src/flow/counters.ts';

test('the block is a double for every name, in their order', () => {
  const counters = makeCounters();
  assert.equal(counters.length, counterNames.length);
  assert.equal(counters.byteLength, 8 * counterNames.length);
  assert.equal(counters.byteOffset, 0);
  for (const [i, name] of counterNames.entries()) {
    assert.equal(counterIndex[name], i);
    counters[i] = i + 0.5;
    assert.equal(readCounter(counters, name), i + 0.5);
  }
  assert.equal(new Set(counterNames).size, counterNames.length);
  assert.deepEqual(Object.keys(counterIndex), [...counterNames]);
});

test('gauges come before what only grows', () => {
  const gauges = counterNames.filter((name) => name.endsWith('Active'));
  assert.deepEqual(gauges, ['tcpFlowsActive', 'udpFlowsActive']);
  assert.deepEqual(counterNames.slice(0, gauges.length), gauges);
});

test('a new block is zero everywhere, and no block shares with another', () => {
  const [a, b] = [makeCounters(), makeCounters()];
  assert.ok(a.every((value) => value === 0));
  count(a, 'tcpFlows');
  assert.equal(readCounter(b, 'tcpFlows'), 0);
});

test('counting adds to one counter and leaves its neighbours alone', () => {
  for (const name of counterNames) {
    const counters = makeCounters();
    count(counters, name);
    count(counters, name, 41);
    assert.equal(readCounter(counters, name), 42);
    assert.equal(
      counters.reduce((sum, value) => sum + value),
      42,
    );
  }
});

test('what several threads have counted is the sum of their blocks', () => {
  const blocks = [makeCounters(), makeCounters(), makeCounters()];
  for (const [i, block] of blocks.entries()) count(block, 'tcpFlows', 10 ** i);
  assert.equal(sumCounter(blocks, 'tcpFlows'), 111);
  assert.equal(sumCounter(blocks, 'udpFlows'), 0);
  assert.equal(sumCounter([], 'tcpFlows'), 0);
});

test('a gauge goes down again', () => {
  const counters = makeCounters();
  count(counters, 'udpFlowsActive');
  count(counters, 'udpFlowsActive');
  count(counters, 'udpFlowsActive', -1);
  assert.equal(readCounter(counters, 'udpFlowsActive'), 1);
});

test('bytes are counted exactly up to 2^53', () => {
  const counters = makeCounters();
  count(counters, 'bytesFromClient', 2 ** 53 - 2);
  count(counters, 'bytesFromClient');
  assert.equal(readCounter(counters, 'bytesFromClient'), Number.MAX_SAFE_INTEGER);
});

test('what another thread adds is read here, without a message', async () => {
  const counters = makeCounters();
  assert.ok(counters.buffer instanceof SharedArrayBuffer);
  count(counters, 'datagramsFromClient', 2);
  const add =
    "const { workerData: [counters, index] } = require('node:worker_threads'); counters[index] += 40;";
  const workerData = [counters, counterIndex.datagramsFromClient];
  await once(new Worker(add, { eval: true, workerData }), 'exit');
  assert.equal(readCounter(counters, 'datagramsFromClient'), 42);
});
