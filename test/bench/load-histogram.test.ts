/**
 * The histogram that every latency goes through, held against exact percentiles of the same samples.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { before, test } from 'node:test';
import { buildLoad, loadProgram } from '../../bench/load/programs.ts';
import { skipUnless } from '../support/requirements.ts';

const options = { skip: skipUnless('linux', 'gcc') };
const percentiles = [50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 100];

before(() => {
  if (options.skip === false) buildLoad('histogram-reader');
});

/** What is printed of samples in ns. */
function shown(samples: readonly number[]) {
  const input = samples.join(' ');
  return JSON.parse(spawnSync(loadProgram('histogram-reader'), { input, encoding: 'utf8' }).stdout);
}

/** The value that this share of all are at or below, in µs. */
function exact(sorted: readonly number[], percentile: number): number {
  // In integers, since 99.99 / 100 is not what it looks like.
  const rank = Math.ceil((Math.round(percentile * 100) * sorted.length) / 10_000);
  return (sorted[rank - 1] ?? Number.NaN) / 1000;
}

/** Within 1 %, and what is lost by printing one decimal. */
function agrees(samples: readonly number[]): void {
  const sorted = samples.toSorted((a, b) => a - b);
  const seen = shown(samples);
  assert.deepEqual(
    seen.percentiles.map(([percentile]: [number]) => percentile),
    percentiles,
  );
  for (const [percentile, value] of seen.percentiles) {
    const right = exact(sorted, percentile);
    assert.ok(Math.abs(value - right) <= right / 100 + 0.05, `${percentile} %: ${value}, is ${right}`);
  }
  // Exact but for the decimal, which C and JavaScript round differently where it lies in the middle.
  assert.ok(Math.abs(seen.max - exact(sorted, 100)) < 0.051, `${seen.max}, is ${exact(sorted, 100)}`);
  const named = [seen.p50, seen.p99, seen['p99.9'], seen.max];
  assert.deepEqual(
    named,
    [0, 4, 6, 9].map((i) => seen.percentiles[i][1]),
  );
}

test('percentiles are within 1 % for values from nanoseconds to minutes', options, () => {
  for (let round = 0; round < 5; round++) {
    agrees(Array.from({ length: 20_000 }, () => Math.floor(10 ** (Math.random() * 11.3))));
  }
});

test('percentiles are within 1 % for a narrow distribution with a tail', options, () => {
  agrees(
    Array.from({ length: 20_000 }, (_, i) =>
      Math.floor((i % 500 === 0 ? 3e7 : 40_000) * (1 + Math.random())),
    ),
  );
});

test('a single value is all of its percentiles, exactly', options, () => {
  for (const value of [1200, 123_400, 987_654_300]) {
    const { percentiles: seen } = shown([value]);
    assert.deepEqual(
      seen,
      percentiles.map((percentile) => [percentile, value / 1000]),
    );
  }
});

test('each value below and around a power of two is found again', options, () => {
  for (const base of [2 ** 7, 2 ** 8, 2 ** 9, 2 ** 20, 2 ** 32]) {
    for (const value of [base - 1, base, base + 1]) agrees([value, 2 ** 38]);
  }
});

test('of 1000 values the 99.9 % one is the last but one', options, () => {
  // Although 99.9 / 100 * 1000 is a little more than 999 in floating point.
  const samples = Array.from({ length: 1000 }, (_, i) => (i === 999 ? 5e9 : 1e6));
  const seen = shown(samples);
  assert.deepEqual([seen['p99.9'], seen.max], [seen.p50, 5e6]);
});

test('without a value there is no percentile', options, () => {
  assert.deepEqual(shown([]), { p50: null, p99: null, 'p99.9': null, max: null, percentiles: [] });
});
