import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { formatDuration, parseDuration } from '../../../src/config/duration.ts';

const lengths: Record<string, number> = {
  '0': 0,
  '5': 5000,
  '0.5': 500,
  '250ms': 250,
  '5s': 5000,
  '1.5s': 1500,
  '2m': 120_000,
  '1h': 3_600_000,
  '1.0004s': 1000,
  '1.0006s': 1001,
};

for (const [text, ms] of Object.entries(lengths)) {
  test(`${text} is ${ms} milliseconds`, () => assert.equal(parseDuration(text), ms));
}

for (const text of [
  '',
  's',
  '5 s',
  '-5s',
  '+5',
  '5S',
  '5d',
  '1m30s',
  '1e3',
  '.5s',
  '5.',
  '0x5',
  'Infinity',
]) {
  test(`${JSON.stringify(text)} is no length of time`, () => assert.equal(parseDuration(text), undefined));
}

test('a length of time is written in its largest whole unit', () => {
  assert.deepEqual([0, 1, 1000, 90_000, 120_000, 3_600_000].map(formatDuration), [
    '0',
    '1ms',
    '1s',
    '90s',
    '2m',
    '1h',
  ]);
});

test('every length of time is read back from its text', () => {
  fc.assert(fc.property(fc.nat(), (ms) => assert.equal(parseDuration(formatDuration(ms)), ms)));
});
