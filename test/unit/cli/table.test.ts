import assert from 'node:assert/strict';
import { test } from 'node:test';
import { table } from '../../../src/cli/table.ts';

test('columns are as wide as their widest cell, and lines end with their last one', () => {
  const rows = [
    ['a', 'bcd', 'e'],
    ['fgh', '', ''],
  ];
  assert.equal(table(['X', 'Y', 'Z'], rows), 'X    Y    Z\na    bcd  e\nfgh');
});

test('there may be a row for each port there is', () => {
  const rows = Array.from({ length: 2 * 65535 }, (_, i) => [String(i)]);
  assert.equal(table(['N'], rows).length, ['N', ...rows].join('\n').length);
});
