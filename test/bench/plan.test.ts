import assert from 'node:assert/strict';
import test from 'node:test';
import { parseOptions } from '../../bench/options.ts';
import { expectedSeconds, makePlan } from '../../bench/plan.ts';

function plan(words: string, root = true) {
  return makePlan(parseOptions(words.split(' ').filter(Boolean)), root);
}

function blocks(words: string, root = true): readonly string[] {
  return plan(words, root).blocks.map(({ topology, families }) => `${topology} ${families}`);
}

test('a full run has every topology and pair of families, at least five rounds, and every workload', () => {
  assert.deepEqual(blocks(''), ['T2 4to4', 'T2 6to4', 'T2 6to6', 'T1 4to4']);
  assert.ok(plan('').rounds >= 5);
  assert.equal(plan('').blocks[0]?.workloads.length, 20);
});

test('a quick run is expected to take less than three minutes, a smoke run less than two', () => {
  assert.equal(plan('--quick').rounds, 3);
  assert.ok(expectedSeconds(plan('--quick')) < 180, `${expectedSeconds(plan('--quick'))}`);
  assert.ok(expectedSeconds(plan('--smoke')) < 120, `${expectedSeconds(plan('--smoke'))}`);
});

test('a smoke run gates every subject on every pair of families, and does every workload', () => {
  const smoke = plan('--smoke');
  assert.deepEqual(blocks('--smoke'), ['T2 4to4', 'T2 6to4', 'T2 6to6']);
  assert.equal(smoke.subjects.length, 14);
  assert.equal(smoke.blocks.flatMap(({ workloads }) => workloads).length, 20);
});

test('topologies and families that are named are crossed', () => {
  assert.deepEqual(blocks('--topology T1,T2 --families 6to4,4to4'), [
    'T1 4to4',
    'T1 6to4',
    'T2 4to4',
    'T2 6to4',
  ]);
  assert.deepEqual(blocks('--families 6to6'), ['T2 6to6']);
  assert.deepEqual(blocks('--topology T1'), ['T1 4to4']);
});

test('workloads that are named are done once, and on every pair that is named too', () => {
  assert.deepEqual(blocks('--only udp'), ['T2 4to4']);
  const crossed = plan('--only idle --families 4to4,6to4').blocks;
  assert.deepEqual(
    crossed.map(({ workloads }) => workloads.map(({ name }) => name)),
    [['idle'], ['idle']],
  );
});

test('without root everything is on T1', () => {
  assert.deepEqual(blocks('', false), ['T1 4to4']);
  assert.deepEqual(blocks('--topology T2 --families 6to4', false), ['T1 6to4']);
});

test('rounds and subjects are those that were asked for', () => {
  const asked = plan('--quick --rounds 7 --subjects socat,nginx');
  assert.equal(asked.rounds, 7);
  assert.deepEqual(
    asked.measured.map(({ name }) => name),
    ['nginx', 'socat'],
  );
});
