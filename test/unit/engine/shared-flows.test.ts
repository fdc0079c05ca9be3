import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { makeSourceTable, SharedFlows, sharedNumbers } from '../../../src/engine/shared-flows.ts';
import { parseAddress, sourceKey } from '../../../src/net/address.ts';

const source = (text: string) => sourceKey(parseAddress(text));

/** Every host of 10.0.0.0/16, and as many /64 of 2001:db8::/32. */
const ipv4 = (i: number) => source(`10.0.${(i >> 8) & 0xff}.${i & 0xff}`);
const ipv6 = (i: number) => source(`2001:db8:0:${i.toString(16)}::1`);

test('a rule and its sources are counted, each for itself', () => {
  const table = makeSourceTable(100);
  const [rule, other] = [1, 2].map((number) => new SharedFlows(number, sharedNumbers(1), table));
  assert.ok(rule && other);
  const [a, b, c] = [source('192.0.2.1'), source('192.0.2.2'), source('2001:db8::1')];
  for (const key of [a, a, b, c]) rule.add(key, 1);
  other.add(a, 1);
  assert.deepEqual([rule.count, rule.countOf(a), rule.countOf(b), rule.countOf(c)], [4, 2, 1, 1]);
  assert.deepEqual([other.count, other.countOf(a), other.countOf(b)], [1, 1, 0]);
  rule.add(a, -1);
  assert.deepEqual([rule.count, rule.countOf(a)], [3, 1]);
});

test('a source is never counted as too few, whatever comes and goes, and nothing is left behind', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat({ max: 300 }), fc.boolean()), { maxLength: 500 }), (steps) => {
      const table = makeSourceTable(1);
      const flows = new SharedFlows(7, sharedNumbers(1), table);
      const true_ = new Map<string, number>();
      for (const [i, more] of steps) {
        const key = i % 2 === 0 ? ipv4(i) : ipv6(i);
        const now = true_.get(key) ?? 0;
        if (!more && now === 0) continue;
        flows.add(key, more ? 1 : -1);
        true_.set(key, more ? now + 1 : now - 1);
        for (const [known, count] of true_) assert.ok(flows.countOf(known) >= count);
      }
      for (const [key, count] of true_) for (let i = 0; i < count; i++) flows.add(key, -1);
      assert.equal(flows.count, 0);
      assert.ok(table.counts.every((count) => count === 0));
    }),
    { numRuns: 50 },
  );
});

test('with as many flows as there may be, hardly a source is counted as too many', () => {
  for (const bytes of [16, 8]) {
    const most = 20_000;
    const keys = new Set(Array.from({ length: most }, () => randomBytes(bytes).toString('latin1')));
    const flows = new SharedFlows(3, sharedNumbers(1), makeSourceTable(most));
    for (const key of keys) flows.add(key, 1);
    const wrong = [...keys].filter((key) => flows.countOf(key) !== 1);
    // In each of four rows 26 of 100 numbers are used by others: 0.5 %.
    assert.ok(wrong.length < 0.02 * most, `${wrong.length} of ${most}`);
  }
});

test('who shares with whom is another matter in each process', () => {
  const places = Array.from({ length: 8 }, () => {
    const table = makeSourceTable(1000);
    new SharedFlows(1, sharedNumbers(1), table).add(source('192.0.2.1'), 1);
    return table.counts.indexOf(1);
  });
  assert.ok(new Set(places).size > 4, String(places));
});

test('threads that count at once lose nothing', async () => {
  const module = fileURLToPath(new URL('../../../src/engine/shared-flows.js', import.meta.url));
  const table = makeSourceTable(100);
  const numbers = sharedNumbers(1);
  const key = source('2001:db8::1');
  const times = 200_000;
  const waiting = sharedNumbers(1);
  const program = `import(${JSON.stringify(module)}).then(({ SharedFlows }) => {
    const { table, numbers, key, waiting } = require('node:worker_threads').workerData;
    const flows = new SharedFlows(9, numbers, table);
    Atomics.add(waiting, 0, 1);
    while (Atomics.load(waiting, 0) < 3);
    for (let i = 0; i < ${times}; i++) flows.add(key, 1);
  });`;
  const workerData = { table, numbers, key, waiting };
  const workers = [1, 2, 3].map(() => new Worker(program, { eval: true, workerData }));
  await Promise.all(workers.map((worker) => once(worker, 'exit')));
  const flows = new SharedFlows(9, numbers, table);
  assert.deepEqual([flows.count, flows.countOf(key)], [3 * times, 3 * times]);
});
