import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { falseVerdicts, fewestRounds, intervalOfRatios, median, quantile } from '../../bench/statistics.ts';

const ratio = fc.double({ min: 1e-3, max: 1e3, noNaN: true });
const ratios = (minLength: number) => fc.array(ratio, { minLength, maxLength: 12 });

const close = (a: number, b: number) => Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b));

for (const [values, expected] of [
  [[3], 3],
  [[3, 1, 2], 2],
  [[4, 1, 3, 2], 2.5],
  [[1, 1, 100], 1],
] as const) {
  test(`the median of ${values.join(', ')} is ${expected}`, () => {
    assert.equal(median(values), expected);
  });
}

test('of no values there is no median, and no error', () => {
  assert.ok(Number.isNaN(median([])));
});

test('a quantile lies between its neighbours as its rank does', () => {
  const values = [10, 20, 30, 40, 50];
  assert.deepEqual(
    [0, 0.25, 0.5, 0.9, 1].map((probability) => quantile(values, probability)),
    [10, 20, 30, 46, 50],
  );
});

test('the values are left in their order', () => {
  const values = Object.freeze([3, 1, 2]);
  median(values);
  intervalOfRatios(values);
});

test('the interval holds the median, and nothing outside the rounds', () => {
  fc.assert(
    fc.property(ratios(fewestRounds), (values) => {
      const { low, high } = intervalOfRatios(values);
      assert.ok(low <= median(values) && median(values) <= high);
      assert.ok(low >= Math.min(...values) && high <= Math.max(...values));
    }),
  );
});

test('the interval is the same in any order of the rounds, and each time', () => {
  fc.assert(
    fc.property(ratios(1), (values) => {
      assert.deepEqual(intervalOfRatios(values.toReversed()), intervalOfRatios(values));
      assert.deepEqual(intervalOfRatios(values), intervalOfRatios(values));
    }),
  );
});

test('in another unit the interval is the same in that unit', () => {
  fc.assert(
    fc.property(ratios(fewestRounds), fc.double({ min: 0.01, max: 100, noNaN: true }), (values, unit) => {
      const [one, other] = [intervalOfRatios(values), intervalOfRatios(values.map((value) => value * unit))];
      assert.ok(close(one.low * unit, other.low) && close(one.high * unit, other.high));
    }),
  );
});

test('of up to 8 rounds the interval is all of them', () => {
  fc.assert(
    fc.property(fc.array(ratio, { minLength: fewestRounds, maxLength: 8 }), (values) => {
      assert.deepEqual(intervalOfRatios(values), { low: Math.min(...values), high: Math.max(...values) });
    }),
  );
});

test('of 9 rounds the interval leaves out the lowest and the highest', () => {
  const values = [1, 2, 3, 4, 5, 6, 7, 8, 9];
  assert.deepEqual(intervalOfRatios(values), { low: 2, high: 8 });
});

test('of too few rounds the interval holds 1', () => {
  fc.assert(
    fc.property(fc.array(ratio, { minLength: 1, maxLength: fewestRounds - 1 }), (values) => {
      const { low, high } = intervalOfRatios(values);
      assert.ok(low <= 1 && high >= 1);
      assert.ok(low <= Math.min(...values) && high >= Math.max(...values));
    }),
  );
});

test('one round that went wrong does not decide', () => {
  const { low, high } = intervalOfRatios([1.2, 1.21, 1.22, 1.23, 1.24, 1.25, 1.26, 1.27, 0.1]);
  assert.ok(low > 1 && high < 1.3);
});

/** Uniform numbers from a seed (Park and Miller), and from these the noise of a round. */
function noises(seed: number): () => number {
  let state = seed;
  const uniform = () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
  return () => Math.exp(0.05 * (uniform() + uniform() + uniform() - 1.5));
}

/** Of many runs the share whose interval holds the true ratio. */
function coverage(rounds: number, truth: number): number {
  const noise = noises(42);
  const runs = 400;
  const held = Array.from({ length: runs }, () => {
    // Each round has a weather of its own, which both subjects share.
    const values = Array.from({ length: rounds }, () => {
      const weather = noise() ** 6;
      return (truth * weather * noise()) / (weather * noise());
    });
    const { low, high } = intervalOfRatios(values);
    return low <= truth && truth <= high;
  });
  return held.filter(Boolean).length / runs;
}

for (const rounds of [5, 6, 7, 8, 9, 11, 13]) {
  test(`of simulated runs of ${rounds} rounds at least 90 in 100 hold the true ratio`, () => {
    for (const truth of [0.7, 1, 1.4]) assert.ok(coverage(rounds, truth) >= 0.9, `${truth}`);
  });
}

for (const [rounds, chance] of [
  [1, 0],
  [2, 0],
  [3, 0.25],
  [5, 0.0625],
  [6, 0.03125],
  [7, 0.015625],
  [9, 0.0390625],
] as const) {
  test(`${rounds} rounds give a false verdict in ${100 * chance} of 100 comparisons of equals`, () => {
    assert.ok(close(falseVerdicts(rounds), chance));
  });
}

test('what is said of false verdicts is what simulated runs of equals have', () => {
  for (const rounds of [3, 5, 7]) {
    assert.ok(Math.abs(1 - coverage(rounds, 1) - falseVerdicts(rounds)) < 0.05, `${rounds}`);
  }
});
