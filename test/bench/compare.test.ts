import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { cellsOf, ratiosOf } from '../../bench/compare.ts';
import type { Ratio, Sample, SubjectKind, SubjectRecord, WorkloadRecord } from '../../bench/results.ts';

const where = { topology: 'T2', families: '4to4' } as const;

const workloads: readonly WorkloadRecord[] = [
  {
    name: 'bulk',
    title: 'Bulk',
    method: '',
    group: 'bulk',
    metrics: [
      { name: 'gbps', title: 'Throughput', unit: 'Gbit/s', better: 'higher' },
      { name: 'cpu', title: 'CPU', unit: 's/GB', better: 'lower' },
    ],
  },
];

const subject = (name: string, kind: SubjectKind): SubjectRecord => ({
  name,
  title: name,
  kind,
  version: '1',
  settings: '',
});
const subjects = [
  subject('direct', 'bound'),
  subject('nat', 'bound'),
  subject('nginx', 'peer'),
  subject('haproxy', 'peer'),
  subject('portable', 'dualport'),
  subject('linux', 'dualport'),
];

const sampleOf = (name: string, round: number, values: Readonly<Record<string, number>>): Sample => ({
  ...where,
  workload: 'bulk',
  subject: name,
  round,
  values,
  steal: 0,
  at: 0,
});

/** The throughput of a subject in rounds 1, 2, …; undefined where it has no sample. */
const gbps = (name: string, ...values: readonly (number | undefined)[]): readonly Sample[] =>
  values.flatMap((value, index) => (value === undefined ? [] : [sampleOf(name, index + 1, { gbps: value })]));

function ratioOf(
  samples: readonly Sample[],
  of: string,
  against: string,
  metric = 'gbps',
): Ratio | undefined {
  return ratiosOf(samples, workloads, subjects).find(
    (ratio) => ratio.subject === of && ratio.against === against && ratio.metric === metric,
  );
}

test('a cell is the median, the lowest and the highest of the rounds', () => {
  assert.deepEqual(cellsOf(gbps('nginx', 9, 12, 10), workloads), [
    { ...where, workload: 'bulk', metric: 'gbps', subject: 'nginx', rounds: 3, median: 10, min: 9, max: 12 },
  ]);
});

test('a failed sample is not a value, even if it came with one', () => {
  const failed: Sample = { ...sampleOf('nginx', 4, { gbps: 99 }), error: 'it ended' };
  const empty: Sample = { ...sampleOf('nginx', 5, {}), error: 'it ended' };
  const [cell, ...more] = cellsOf([...gbps('nginx', 9, 12, 10), failed, empty], workloads);
  assert.deepEqual([cell?.rounds, cell?.max, more], [3, 12, []]);
});

test('a metric that is missing in some rounds has the others', () => {
  const samples = [sampleOf('nginx', 1, { gbps: 9, cpu: 1 }), sampleOf('nginx', 2, { gbps: 10 })];
  assert.deepEqual(
    cellsOf(samples, workloads).map(({ metric, rounds }) => [metric, rounds]),
    [
      ['gbps', 2],
      ['cpu', 1],
    ],
  );
});

test('what no workload names is left out', () => {
  const unknown: Sample = { ...sampleOf('nginx', 1, { gbps: 9 }), workload: 'other' };
  assert.deepEqual(cellsOf([unknown, sampleOf('nginx', 1, { surprise: 1 })], workloads), []);
});

test('each topology and pair of families has figures of its own', () => {
  const samples = gbps('nginx', 9, 10);
  const others = samples.map((sample): Sample => ({ ...sample, families: '6to4' }));
  assert.deepEqual(
    cellsOf([...samples, ...others], workloads).map(({ families, rounds }) => [families, rounds]),
    [
      ['4to4', 2],
      ['6to4', 2],
    ],
  );
});

test('of no samples there are no figures', () => {
  assert.deepEqual(cellsOf([], workloads), []);
  assert.deepEqual(ratiosOf([], workloads, subjects), []);
});

test('every subject is held against the bounds, and every dualport one against all', () => {
  const samples = subjects.flatMap(({ name }) => gbps(name, 1, 1, 1));
  const pairs = ratiosOf(samples, workloads, subjects).map((ratio) => `${ratio.subject} ÷ ${ratio.against}`);
  assert.deepEqual(pairs, [
    'nginx ÷ direct',
    'nginx ÷ nat',
    'haproxy ÷ direct',
    'haproxy ÷ nat',
    'portable ÷ direct',
    'portable ÷ nat',
    'portable ÷ nginx',
    'portable ÷ haproxy',
    'portable ÷ linux',
    'linux ÷ direct',
    'linux ÷ nat',
    'linux ÷ nginx',
    'linux ÷ haproxy',
    'linux ÷ portable',
  ]);
});

test('a ratio is formed within the round, so that a slow round cancels out', () => {
  const samples = [...gbps('linux', 12, 6, 1.2), ...gbps('nginx', 10, 5, 1)];
  const ratio = ratioOf(samples, 'linux', 'nginx');
  assert.deepEqual([ratio?.median, ratio?.low, ratio?.high, ratio?.verdict], [1.2, 1.2, 1.2, 'better']);
});

test('only rounds in which both have a value count', () => {
  const samples = [...gbps('linux', 2, 2, 2, undefined, 2), ...gbps('nginx', undefined, 1, 1, 1, 1)];
  assert.equal(ratioOf(samples, 'linux', 'nginx')?.rounds, 3);
});

test('a peer that died halfway is compared in the rounds before', () => {
  const dead = [4, 5].map((round): Sample => ({ ...sampleOf('nginx', round, {}), error: 'it ended' }));
  const samples = [...gbps('linux', 2, 2, 2, 2, 2), ...gbps('nginx', 1, 1, 1), ...dead];
  const ratio = ratioOf(samples, 'linux', 'nginx');
  assert.deepEqual([ratio?.rounds, ratio?.verdict], [3, 'better']);
});

test('without a round in common there is no ratio', () => {
  assert.equal(ratioOf([...gbps('linux', 2), ...gbps('nginx', undefined, 1)], 'linux', 'nginx'), undefined);
});

test('nothing is divided by zero, and zero by something is zero', () => {
  const samples = [...gbps('linux', 0, 0, 0, 5), ...gbps('nginx', 1, 1, 1, 0)];
  const ratio = ratioOf(samples, 'linux', 'nginx');
  assert.deepEqual([ratio?.rounds, ratio?.median, ratio?.verdict], [3, 0, 'worse']);
  assert.equal(ratioOf([...gbps('linux', 0), ...gbps('nginx', 0)], 'linux', 'nginx'), undefined);
});

test('what is no number is no value', () => {
  const samples = [...gbps('linux', Number.NaN, Number.POSITIVE_INFINITY, 2), ...gbps('nginx', 1, 1, 1)];
  assert.equal(ratioOf(samples, 'linux', 'nginx')?.rounds, 1);
});

test('identical samples show no difference', () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 1e-3, max: 1e6, noNaN: true }), { minLength: 1 }), (values) => {
      const samples = [...gbps('linux', ...values), ...gbps('nginx', ...values)];
      const ratio = ratioOf(samples, 'linux', 'nginx');
      assert.deepEqual([ratio?.low, ratio?.high, ratio?.verdict], [1, 1, 'no difference']);
    }),
  );
});

test('one or two rounds are no win', () => {
  assert.equal(
    ratioOf([...gbps('linux', 9), ...gbps('nginx', 1)], 'linux', 'nginx')?.verdict,
    'no difference',
  );
  const two = [...gbps('linux', 9, 9), ...gbps('nginx', 1, 1)];
  assert.equal(ratioOf(two, 'linux', 'nginx')?.verdict, 'no difference');
});

test('rounds that do not agree are no win', () => {
  const samples = [...gbps('linux', 2, 2, 2, 2, 0.9), ...gbps('nginx', 1, 1, 1, 1, 1)];
  assert.equal(ratioOf(samples, 'linux', 'nginx')?.verdict, 'no difference');
});

for (const [metric, ours, verdict] of [
  ['gbps', 2, 'better'],
  ['gbps', 0.5, 'worse'],
  ['cpu', 2, 'worse'],
  ['cpu', 0.5, 'better'],
] as const) {
  test(`${ours} times the ${metric} is ${verdict}`, () => {
    const rounds = [1, 2, 3];
    const samples = rounds.flatMap((round) => [
      sampleOf('linux', round, { [metric]: ours }),
      sampleOf('nginx', round, { [metric]: 1 }),
    ]);
    assert.equal(ratioOf(samples, 'linux', 'nginx', metric)?.verdict, verdict);
  });
}

test('who is better than another is what the other is worse than', () => {
  const values = fc.array(fc.double({ min: 0.1, max: 10, noNaN: true }), { minLength: 1, maxLength: 7 });
  const opposite = { better: 'worse', worse: 'better', 'no difference': 'no difference' } as const;
  fc.assert(
    fc.property(values, values, (one, other) => {
      const samples = [...gbps('linux', ...one), ...gbps('portable', ...other)];
      const there = ratioOf(samples, 'linux', 'portable');
      const back = ratioOf(samples, 'portable', 'linux');
      assert.equal(there && opposite[there.verdict], back?.verdict);
    }),
  );
});
