/** What the documents say of the bench is what the files are. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { newestResults } from '../../bench/report/read-results.ts';
import { benchPart, readmePart } from '../../bench/report/readme-table.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const read = (path: string) => readFileSync(`${root}${path}`, 'utf8');

test("the README's table is that of the newest run in docs/bench, and there is none without a run", () => {
  const newest = newestResults(`${root}docs/bench`);
  const part = benchPart(read('README.md'));
  if (newest === undefined) return assert.equal(part?.trim() ?? '', '');
  assert.equal(part, readmePart(newest.results, newest.path.slice(root.length)), 'npm run bench:readme');
});

test('docs/bench/README.md explains every field and every word of the schema, and no other', () => {
  const contract = read('bench/results.ts').replace(/\/\*\*[\s\S]*?\*\//g, '');
  const fields = [...contract.matchAll(/readonly (\w+)\??:/g)].map(([, name = '']) => name);
  const words = [...contract.matchAll(/'([^']+)'/g)].map(([, word = '']) => word);
  const explained = read('docs/bench/README.md');
  const quoted = new Set([...explained.matchAll(/`([^`\n]+)`/g)].map(([, code = '']) => code));
  assert.ok(fields.length > 50 && words.length > 15);
  for (const name of [...fields, ...words]) assert.ok(quoted.has(name), `\`${name}\` is not explained`);
  const heads = [...explained.matchAll(/^\| `(\w+)` \|/gm)].map(([, name = '']) => name);
  for (const name of heads) assert.ok([...fields, ...words].includes(name), `there is no \`${name}\``);
});
