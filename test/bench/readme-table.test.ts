import assert from 'node:assert/strict';
import test from 'node:test';
import { benchPart, readmePart, withBenchPart } from '../../bench/report/readme-table.ts';
import { sampleResults } from './sample-results.ts';

const results = sampleResults();
const part = readmePart(results, 'docs/bench/run.json');
const rows = part.split('\n').filter((line) => line.startsWith('|'));
const cellsOf = (row = '') =>
  row
    .split(/(?<!\\)\|/)
    .slice(1, -1)
    .map((cell) => cell.trim());
const [head, , ...body] = rows.map(cellsOf);

test('a column for each bound and each peer, its variants included', () => {
  assert.deepEqual(head, [
    ...['dualport-portable ÷', 'direct', 'nft-dnat', 'docker-proxy', 'haproxy', 'nginx', 'socat'],
  ]);
  for (const row of body) assert.equal(row.length, head?.length);
});

test('the first and the last workload of each group, from IPv4 to IPv4', () => {
  const names = body.map(([name = '']) => name.replace(/: .*/, ''));
  assert.deepEqual(names.slice(0, 5), [
    'One stream to the client',
    'Eight streams from the client',
    'One connection, request by request',
    '256 connections, request by request',
    'Requests at a fixed rate',
  ]);
  assert.ok(body.length <= 14);
});

test('a cell is the ratio of the file, marked as its verdict', () => {
  const ratio = results.ratios.find(
    ({ families, workload, metric, subject, against }) =>
      families === '4to4' &&
      [workload, metric, subject, against].join() === 'bulk-1-down,gbps,dualport-portable,docker-proxy',
  );
  const text = `${ratio?.median.toFixed(2)} [${ratio?.low.toFixed(2)}–${ratio?.high.toFixed(2)}]`;
  assert.equal(ratio?.verdict, 'worse');
  assert.equal(body[0]?.[3], `*${text}*`);
});

test('of a peer the configuration that does best against dualport is shown, if it had enough rounds', () => {
  const bulk = results.ratios.filter(
    ({ families, workload, metric, subject }) =>
      families === '4to4' && [workload, metric, subject].join() === 'bulk-1-down,gbps,dualport-portable',
  );
  const shown = (column: string) => body[0]?.[head?.indexOf(column) ?? 0]?.replace(/[*]| .*/g, '');
  const against = (name: string) => bulk.find((ratio) => ratio.against === name)?.median.toFixed(2);
  assert.equal(shown('haproxy'), against('haproxy-splice'));
  // nginx-64k is faster, but it died after two rounds.
  assert.equal(shown('nginx'), against('nginx'));
  assert.equal(shown('socat'), against('socat-256k'));
});

test('where lower is better the least of the peer is the best', () => {
  const latency = results.ratios.filter(
    ({ families, workload, metric, subject, against }) =>
      families === '4to4' &&
      [workload, metric, subject].join() === 'open-loop,p50,dualport-portable' &&
      against.startsWith('haproxy'),
  );
  const row = body.find(([name]) => name?.startsWith('Requests at a fixed rate'));
  const worst = Math.max(...latency.map((ratio) => ratio.median)).toFixed(2);
  assert.ok(row?.[4]?.includes(worst));
});

test('what was not measured is a dash', () => {
  const idle = body.find(([name]) => name?.startsWith('10,000 idle connections'));
  assert.equal(idle?.[6], '–');
});

test('a row in which nothing was seen of dualport is left out', () => {
  const cells = results.cells.map((cell) =>
    cell.workload === 'idle' && cell.subject.startsWith('dualport') ? { ...cell, median: 0 } : cell,
  );
  assert.match(readmePart(results, 'x.json'), /idle connections/);
  assert.doesNotMatch(readmePart({ ...results, cells }, 'x.json'), /idle connections/);
});

test('the best dualport is the last that has samples', () => {
  const both = readmePart(sampleResults({ missing: [] }), 'x.json');
  assert.match(both, /^\n\| dualport-linux ÷ \|/);
  const none = sampleResults({ missing: ['dualport-linux', 'dualport-portable'] });
  assert.throws(() => readmePart(none, 'x.json'), /^Error: x\.json has no samples of a dualport subject$/);
});

test('the line below names the conditions and the file, and says when the run was cut short', () => {
  for (const word of ['AMD EPYC', '2 CPUs', 'Linux 6.12.9', 'Node v20', '5 rounds', '21 November 2026']) {
    assert.ok(part.includes(word), word);
  }
  assert.ok(
    part.includes('docker-proxy 1.2.3') && part.includes('[docs/bench/run.json](docs/bench/run.json)'),
  );
  assert.ok(!part.includes('cut short'));
  assert.match(readmePart(sampleResults({ cutShort: true }), 'x.json'), /full plan, cut short, /);
});

test('text from outside is no markup there either', () => {
  assert.doesNotMatch(part, /(?<!\\)<\/?(?:script|img)/);
});

const marked = 'before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n';

test('only what is between the marks changes', () => {
  assert.equal(benchPart(marked), '\nold\n');
  const changed = withBenchPart(marked, '\n$& new\n');
  assert.equal(changed, 'before\n<!-- bench:begin -->\n$& new\n<!-- bench:end -->\nafter\n');
  assert.equal(benchPart(changed), '\n$& new\n');
});

test('without marks, or with the end before the beginning, nothing is written', () => {
  for (const readme of ['', '<!-- bench:begin -->', '<!-- bench:end --> <!-- bench:begin -->']) {
    assert.equal(benchPart(readme), undefined);
    assert.throws(() => withBenchPart(readme, ''), /the README has no <!-- bench:begin -->/);
  }
});
