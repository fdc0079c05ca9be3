/** The page of a run as text: nothing leaves it, nothing breaks into it, and nothing is left unsaid. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { cellsOf, ratiosOf } from '../../bench/compare.ts';
import { readResults } from '../../bench/report/read-results.ts';
import { renderReport } from '../../bench/report/report.ts';
import { figure, intervalName, intervalText, ratioFigure } from '../../bench/report/wording.ts';
import type { Ratio, Results } from '../../bench/results.ts';
import { hostile, sampleResults } from './sample-results.ts';

const directory = mkdtempSync(join(tmpdir(), 'dualport-report-'));
after(() => rmSync(directory, { recursive: true }));

const bad = sampleResults({ cutShort: true });
const page = renderReport(bad);
const well = renderReport(sampleResults({ allWell: true, missing: [] }));

/** What a reader sees and the browser parses as HTML: without scripts and styles. */
function markupOf(html: string): string {
  return html.replace(/<(script|style)\b[^>]*>[\s\S]*?<\/\1>/g, '');
}

const escaped = (text: string) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

const count = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].length;

test('a policy forbids the page to fetch anything, and it does not ask', () => {
  assert.match(
    page,
    /<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">/,
  );
  assert.doesNotMatch(markupOf(page), /<(?:link|img|iframe|object|embed|base|form)\b/);
  assert.doesNotMatch(page, /<script[^>]*\bsrc=/);
  assert.doesNotMatch(markupOf(page), /(?:href|src)="(?!#)/);
  const [, style = ''] = page.match(/<style>([\s\S]*?)<\/style>/) ?? [];
  assert.ok(style.includes('prefers-color-scheme: dark'));
  assert.doesNotMatch(style, /url\(|@import/);
  assert.doesNotMatch(page, /sourceMappingURL/);
});

test('no text from outside becomes markup', () => {
  assert.equal(count(page, /<script\b/g), 4);
  assert.equal(count(page, /<\/script/g), 4);
  assert.doesNotMatch(markupOf(page), /<img|<!--/);
  assert.ok(
    count(markupOf(page), new RegExp(escaped(hostile).replace(/[$()*+.?[\]^{|}\\]/g, '\\$&'), 'g')) > 5,
  );
  const [, charts = ''] =
    page.match(/<script type="application\/json" id="charts">([\s\S]*?)<\/script>/) ?? [];
  assert.doesNotMatch(charts, /</);
  assert.ok(JSON.stringify(JSON.parse(charts)).includes(JSON.stringify(hostile).slice(1, -1)));
});

test('headings go down one level at a time', () => {
  for (const html of [page, well]) {
    const levels = [...markupOf(html).matchAll(/<h([1-6])\b/g)].map(([, level]) => Number(level));
    assert.deepEqual([levels[0], levels.filter((level) => level === 1).length], [1, 1]);
    for (const [nth, level] of levels.entries()) assert.ok(level <= (levels[nth - 1] ?? 0) + 1);
  }
});

test('every head of a table says what it is the head of, every drawing what it shows', () => {
  assert.equal(count(markupOf(page), /<th\b(?![^>]*\bscope=)/g), 0);
  const charts = [...markupOf(page).matchAll(/<div data-chart="[^"]*"([^>]*)>/g)].map(
    ([, rest = '']) => rest,
  );
  assert.ok(charts.length > 50);
  for (const rest of charts) assert.match(rest, /role="img" aria-label="[^"]{10,}"/);
  assert.equal(count(markupOf(page), /<figure>/g), count(markupOf(page), /<figure><figcaption>/g));
});

test('every link of the contents has its target, and no two places have one name', () => {
  const ids = [...markupOf(page).matchAll(/\bid="([^"]+)"/g)].map(([, id]) => id);
  assert.equal(new Set(ids).size, ids.length);
  for (const [, target] of markupOf(page).matchAll(/href="#([^"]+)"/g))
    assert.ok(ids.includes(target), target);
  for (const world of ['t2-4to4', 't2-6to4']) {
    assert.ok(ids.includes(world) && ids.includes(`${world}-ratios`));
  }
});

test('what is missing or failed is said, with the reason', () => {
  const text = markupOf(page);
  assert.ok(text.includes(`<strong>dualport-linux</strong>: ${escaped(`not built: ${hostile}`)}`));
  assert.ok(text.includes('socat failed the UDP gate in T2 4to4'));
  assert.ok(text.includes('it ended with signal 11 under bulk-8-up'));
  for (const remark of bad.remarks) assert.ok(text.includes(`<li>${escaped(remark)}</li>`));
  assert.ok(text.includes('The run was cut short in round 5'));
  assert.match(text, /1 subject did not run, 2 gates failed and [\d,]+ of [\d,]+ samples failed/);
});

test('a run in which all went well says so, and nothing alarming', () => {
  const text = markupOf(well);
  assert.ok(text.includes('Nothing: every subject ran'));
  assert.ok(text.includes('The run is complete.'));
  const quiet = { ...sampleResults({ allWell: true, missing: [] }), samples: [] };
  assert.doesNotMatch(markupOf(renderReport(quiet)), /class="alarm"/);
});

test('methods, settings, versions and the machine are all there', () => {
  const text = markupOf(page);
  for (const { method, title } of bad.workloads) {
    assert.ok(text.includes(escaped(method)) && text.includes(escaped(title)));
  }
  for (const { title, version, settings, missing } of bad.subjects) {
    for (const word of [title, missing ?? version, settings]) assert.ok(text.includes(escaped(word)), word);
  }
  const { kernel, cpu, node, hypervisor, tools } = bad.machine;
  for (const word of [kernel, cpu, node, hypervisor, ...Object.values(tools)]) {
    assert.ok(text.includes(escaped(word)), word);
  }
  for (const setting of Object.keys(bad.topologies[0]?.settings ?? {})) assert.ok(text.includes(setting));
});

/** The same run with other samples. */
function withSamples(results: Results, samples: Results['samples']): Results {
  const { workloads, subjects } = results;
  return {
    ...results,
    samples,
    cells: cellsOf(samples, workloads),
    ratios: ratiosOf(samples, workloads, subjects),
  };
}

for (const [what, samples] of [
  ['none', []],
  ['one', bad.samples.slice(0, 1)],
  ['those of one round', bad.samples.filter(({ round }) => round === 1)],
  ['only failed ones', bad.samples.filter(({ error }) => error !== undefined)],
  ['those of bounds', bad.samples.filter(({ subject }) => subject === 'direct')],
  ['those of one start-up', bad.samples.filter(({ workload }) => workload === 'start-up-10')],
] as const) {
  test(`a run may have few samples: ${what}`, () => {
    const text = renderReport(withSamples(bad, samples));
    assert.doesNotMatch(markupOf(text), /NaN|Infinity|undefined/);
    assert.match(text, /<\/html>\n$/);
  });
}

test('no figure of the page is a word of the language', () => {
  for (const html of [page, well]) assert.doesNotMatch(markupOf(html), /NaN|Infinity|undefined|\[object/);
});

test('figures have three digits, ratios two after the point where these say something', () => {
  assert.deepEqual([0, 0.042_13, 0.3, 9.996, 15.94, 16, 142.4, 93_512.3].map(figure), [
    '0',
    '0.0421',
    '0.300',
    '10.0',
    '15.9',
    '16.0',
    '142',
    '93,512',
  ]);
  assert.deepEqual([0, 0.0421, 0.1, 1, 1.325, 12.3, 610.2].map(ratioFigure), [
    ...['0.00', '0.042', '0.10', '1.00', '1.32', '12.30', '610'],
  ]);
});

test('an interval is called what its rounds can give', () => {
  assert.deepEqual(
    [3, 4, 5, 6, 9].map((rounds) => intervalName(rounds)),
    ['75 % interval', '88 % interval', '94 % interval', '95 % interval', '95 % interval'],
  );
  const text = markupOf(renderReport({ ...bad, rounds: 3 }));
  assert.ok(text.includes('75 % interval') && !text.includes('95 % interval in brackets'));
});

test('too few rounds have no interval', () => {
  const ratio = { rounds: 5, median: 1.3, low: 1.2, high: 1.4 } as Ratio;
  assert.equal(intervalText(ratio), '[1.20–1.40]');
  assert.equal(intervalText({ ...ratio, rounds: 2 }), '(2 rounds)');
  assert.equal(intervalText({ ...ratio, rounds: 1 }), '(1 round)');
});

const again = fileURLToPath(new URL('../../bench/report/again.js', import.meta.url));

/** Writes a file and gives its path. */
function written(name: string, text: string): string {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
}

test('a file that was written is read as it was, and its page made again beside it', () => {
  const path = written('run.json', JSON.stringify(bad));
  assert.deepEqual(readResults(path), JSON.parse(JSON.stringify(bad)));
  const out = execFileSync(process.execPath, [again, path], { encoding: 'utf8' });
  assert.equal(out, `${join(directory, 'run.html')}\n`);
  assert.equal(readFileSync(join(directory, 'run.html'), 'utf8'), page);
});

test('the page may be written elsewhere', () => {
  const path = written('elsewhere.json', JSON.stringify(bad));
  execFileSync(process.execPath, [again, path, join(directory, 'out.html')]);
  assert.equal(readFileSync(join(directory, 'out.html'), 'utf8'), page);
});

const changed = (change: object) => JSON.stringify({ ...bad, ...change });
for (const [name, text, said] of [
  ['cut.json', JSON.stringify(bad).slice(0, 1000), /^cannot read .*cut\.json: /],
  ['later.json', changed({ schema: 2 }), /later\.json has schema 2; this version reads schema 1$/],
  ['other.json', '{}', /other\.json is not a run of the bench: schema: /],
  ['list.json', '[]', /list\.json is not a run of the bench: /],
  [
    'samples.json',
    changed({ samples: [{ ...bad.samples[0], round: 'one' }] }),
    /samples\.0\.round: .*number/,
  ],
  ['date.json', changed({ startedAt: 'yesterday' }), /startedAt: /],
] as const) {
  test(`${name} is refused with what is wrong`, () => {
    const { status, stderr } = spawnSync(process.execPath, [again, written(name, text)], {
      encoding: 'utf8',
    });
    assert.equal(status, 1);
    assert.match(stderr.trim().replace(/^bench:report: /, ''), said);
  });
}

test('a file that is not there, and no file at all, are refused', () => {
  const run = (...words: string[]) => spawnSync(process.execPath, [again, ...words], { encoding: 'utf8' });
  assert.match(run(join(directory, 'absent.json')).stderr, /^bench:report: cannot read .*ENOENT/);
  assert.match(run().stderr, /^bench:report: usage: /);
  assert.equal(run().status, 1);
});
