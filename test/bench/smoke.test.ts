import assert from 'node:assert/strict';
import test from 'node:test';
import type { GateRecord, Results, Sample, SubjectRecord } from '../../bench/results.ts';
import { shortfallsOf } from '../../bench/smoke.ts';
import { summaryOf } from '../../bench/summary.ts';

const where = { topology: 'T2', families: '4to4' } as const;
const subject = (name: string, kind: SubjectRecord['kind']): SubjectRecord => ({
  ...{ name, title: name.toUpperCase(), kind, version: '1', settings: 'defaults' },
});
const sample: Sample = {
  ...{ ...where, workload: 'bulk', subject: 'ours', round: 1, values: { gbps: 2 }, steal: 0, at: 1 },
};
const passed: GateRecord = { ...where, subject: 'ours', protocol: 'tcp', outcome: 'passed' };
const metric = { name: 'gbps', title: 'Throughput', unit: 'Gbit/s', better: 'higher' } as const;

const good = {
  subjects: [subject('ours', 'dualport'), subject('theirs', 'peer')],
  workloads: [{ name: 'bulk', title: 'Bulk', method: '', group: 'bulk', metrics: [metric] }],
  gates: [passed],
  samples: [sample],
  cells: [],
} as unknown as Results;

test('a run in which all works has no shortfall', () => {
  assert.deepEqual(shortfallsOf(good), []);
});

const faults: readonly (readonly [what: string, change: Partial<Results>, said: string])[] = [
  [
    'a peer that is not installed',
    { subjects: [...good.subjects, { ...subject('nginx', 'peer'), missing: 'not here' }] },
    'NGINX is missing: not here',
  ],
  [
    'a gate that fails',
    { gates: [{ ...passed, outcome: 'failed', reason: 'lost' }] },
    'ours fails tcp T2 4to4: lost',
  ],
  ['a sample that failed', { samples: [sample, { ...sample, error: 'no' }] }, 'ours failed at bulk: no'],
  [
    'a figure that is none',
    { samples: [{ ...sample, values: { gbps: Number.NaN } }] },
    'ours failed at bulk: a figure is not a number',
  ],
  ['a workload without a figure', { samples: [] }, 'ours has no figure for bulk'],
];
for (const [what, change, said] of faults) {
  test(`${what} is a shortfall`, () => {
    assert.deepEqual(shortfallsOf({ ...good, ...change }), [said]);
  });
}

test('what is not applicable, and an engine that is not built, are no shortfalls', () => {
  const linux = { ...subject('dualport-linux', 'dualport'), missing: 'not built' };
  const gates: readonly GateRecord[] = [passed, { ...passed, outcome: 'not applicable', reason: 'no UDP' }];
  assert.deepEqual(shortfallsOf({ ...good, gates, subjects: [...good.subjects, linux] }), []);
});

test('the summary is a table of medians, with a dash where there is none', () => {
  const cell = {
    ...where,
    workload: 'bulk',
    metric: 'gbps',
    subject: 'ours',
    rounds: 1,
    min: 1,
    max: 3,
    median: 2,
  };
  const other = { ...cell, topology: 'T1', subject: 'theirs', median: 123_456 } as const;
  assert.equal(
    summaryOf({ ...good, cells: [cell, other] }),
    'T2 4to4      ours\nbulk, Gbit/s  2.00\n\nT1 4to4      theirs\nbulk, Gbit/s    123k'.replaceAll(
      '4to4      ',
      '4to4       ',
    ),
  );
});
