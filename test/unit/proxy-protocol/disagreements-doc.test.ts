import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { disagreements } from '../../e2e/peers-disagreements.ts';

const page = readFileSync(new URL('../../../../docs/proxy-protocol.md', import.meta.url), 'utf8');

test('docs/proxy-protocol.md has every disagreement with other readers, and no other', () => {
  const rows = page.split('\n').filter((line) => /^\| (nginx|HAProxy) /.test(line));
  const expected = disagreements.map(
    ({ peer, header, ours, specification }) =>
      `| ${peer} | ${header} | ${/^\/v\d/.test(String(ours)) ? 'refuses' : 'takes'} | ${/^\/v\d/.test(String(ours)) ? 'takes' : 'refuses'} | ${specification} |`,
  );
  assert.deepEqual(rows, expected);
});
