/**
 * Every question is answered, and what is measured does what its name says: the program's own answer to that
 * (`holds`) must notice a wrong result, and the inputs are held to headers made by hand and to plain text.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { isIPv4, isIPv6 } from 'node:net';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { clients, clientTexts } from '../../bench/micro/clients.ts';
import { prefixes } from '../../bench/micro/decide.ts';
import { extras, headers } from '../../bench/micro/header-decode.ts';
import { answer, type Effort } from '../../bench/micro/measure.ts';
import { build, nodeHeaders } from '../../bench/micro/native-call.ts';
import { inputs, operation, type Question } from '../../bench/micro/question.ts';
import { allQuestions } from '../../bench/micro/questions.ts';
import { tableOf } from '../../bench/micro/table.ts';
import { formatAddress } from '../../src/net/address.ts';
import { compileCidrs, parseCidr } from '../../src/net/cidr.ts';
import { skipUnless } from '../support/requirements.ts';
import { handmadeV2 } from '../unit/proxy-protocol/handmade.ts';

const run = fileURLToPath(new URL('../../bench/micro/run.js', import.meta.url));
const skipNative =
  skipUnless('linux', 'gcc') || (existsSync(nodeHeaders()) ? false : 'needs the headers of Node');

function bench(...words: readonly string[]) {
  return spawnSync(process.execPath, [run, ...words], { encoding: 'utf8', timeout: 60_000 });
}

/** The tables of an output, by question: rows of name, ns/op, spread and ops/s. */
function tablesIn(text: string): ReadonlyMap<string, readonly (readonly string[])[]> {
  const blocks = text.trimEnd().split('\n\n');
  return new Map(
    blocks.map((block) => {
      const [title = '', ...rows] = block.split('\n');
      return [title.replace(/:.*/, ''), rows.map((row) => row.trim().split(/ {2,}/))];
    }),
  );
}

test('the quick run answers every question with figures', () => {
  const startedMs = performance.now();
  const { status, stdout, stderr } = bench('--quick');
  assert.deepEqual([status, stderr], [0, '']);
  const tables = tablesIn(stdout);
  assert.deepEqual(
    [...tables.keys()],
    allQuestions.map(({ name }) => name),
  );
  for (const [name, [head, ...rows]] of tables) {
    if (name === 'native-call' && skipNative) continue;
    assert.deepEqual(head, ['operation', 'ns/op', '±', 'ops/s'], name);
    assert.ok(rows.length > 4, name);
    for (const row of rows) {
      const [nanoseconds, spread, perSecond] = row.slice(1).map((cell) => Number(cell.replaceAll(' ', '')));
      assert.ok(nanoseconds && nanoseconds > 0 && perSecond && perSecond > 0, row.join(' | '));
      assert.ok(spread !== undefined && spread >= 0, row.join(' | '));
    }
  }
  // It takes 4 s on two idle cores; what a busy machine adds is not a mistake.
  assert.ok(performance.now() - startedMs < 30_000);
});

test('only what is named is answered', () => {
  const { status, stdout } = bench('--quick', 'decide');
  assert.equal(status, 0);
  assert.deepEqual([...tablesIn(stdout).keys()], ['decide']);
});

const refusals: readonly (readonly [words: readonly string[], said: RegExp])[] = [
  [['decides'], /^bench:micro: "decides" is no question: there is address, header-decode, decide, /],
  [['decide', 'all'], /"all" is no question/],
  [['--fast'], /--fast/],
];
for (const [words, said] of refusals) {
  test(`${words.join(' ')} is refused`, () => {
    const { status, stdout, stderr } = bench(...words);
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(stderr, said);
  });
}

test('the help names every question', () => {
  const { status, stdout } = bench('--help');
  assert.equal(status, 0);
  for (const { name, sentence } of allQuestions)
    assert.match(stdout, new RegExp(`^  ${name} +`, 'm'), sentence);
});

for (const question of allQuestions) {
  test(`${question.name}: every operation does what its name says`, (context) => {
    assert.match(question.sentence, /^What .*\?$/);
    const operations = question.operations();
    if ('because' in operations) return context.skip(operations.because);
    const names = operations.map(({ name }) => name);
    assert.equal(new Set(names).size, names.length);
    for (const { name, holds } of operations) {
      for (let call = 0; call < 2 * inputs; call++) assert.ok(holds(call), `${name}, call ${call}`);
    }
  });
}

const instant: Effort = { rounds: 2, warmUpMs: 1, timeMs: 5 };

function asking(...operations: ReturnType<Question['operations']> & readonly unknown[]): Question {
  return { name: 'asked', sentence: 'What?', operations: () => operations };
}

test('an operation with a wrong result is not measured', () => {
  const wrong = operation(
    'adds',
    (call) => (call === 40 ? 0 : call + 1),
    (sum, call) => sum === call + 1,
  );
  assert.throws(
    () => answer(asking(wrong), instant),
    /^Error: asked: "adds" gives a wrong result at call 40$/,
  );
});

test('a figure is the time of one operation, also where a call is many', () => {
  const spin = (nanoseconds: number) => {
    const until = process.hrtime.bigint() + BigInt(nanoseconds);
    while (process.hrtime.bigint() < until);
  };
  const one = operation(
    'one',
    () => spin(50_000),
    () => true,
  );
  const ten = operation(
    'ten',
    () => spin(50_000),
    () => true,
    10,
  );
  const least = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let run = 0; run < 5; run++) {
    const figures = answer(asking(one, ten), instant);
    assert.ok(!('because' in figures));
    for (const [i, { median }] of figures.entries()) least[i] = Math.min(least[i] ?? 0, median);
  }
  // Never less than was spent; a busy machine may take several times as much, in the best of some runs too.
  assert.ok(least[0] && least[0] >= 50_000 && least[0] < 250_000, `${least}`);
  assert.ok(least[1] && least[1] >= 5_000 && least[1] < 25_000, `${least}`);
});

test('a table has a row an operation, digits as far as they mean something', () => {
  const figures = [
    { operation: 'cheap', median: 7.123, spread: 0.0456 },
    { operation: 'dear', median: 12_345.6, spread: 678.9 },
  ];
  const rows = [
    '  operation   ns/op     ±        ops/s',
    '  cheap        7.12  0.05  140 000 000',
    '  dear       12 300   679       81 000',
  ];
  assert.equal(tableOf(figures), `${rows.join('\n')}\n`);
  assert.equal(tableOf({ because: 'it rains' }), '  not measured: it rains\n');
});

test('every client is its own, of its family, and outside the prefixes it is held against', () => {
  const isDenied = compileCidrs(prefixes(1000).map(parseCidr));
  for (const [family, isText] of [
    [4, isIPv4],
    [6, isIPv6],
  ] as const) {
    const texts = clientTexts[family];
    assert.equal(new Set(texts).size, inputs);
    assert.ok(texts.every(isText));
    assert.deepEqual(
      clients[family].map(({ address }) => formatAddress(address)),
      texts,
    );
    assert.ok(!clients[family].some(({ address }) => isDenied(address)));
  }
  assert.equal(prefixes(1000).length, 2000);
  for (const denied of ['10.0.0.1', '10.7.206.255', '2001:db8:7:ce::1']) {
    assert.ok(isDenied(parseCidr(denied).address), denied);
  }
});

test('the headers that are read are those a sender makes by hand', () => {
  const tlvs = [
    { type: 2, value: Buffer.from('www.example.org') },
    { type: 5, value: extras.uniqueId ?? Buffer.alloc(0) },
  ];
  const server = { ip: '192.0.2.80', port: 8080 };
  const senders = clientTexts[4].map((ip, turn) => ({ ip, port: 40_000 + turn }));
  assert.deepEqual(
    headers(2, 4, extras),
    senders.map((client) => handmadeV2('tcp', client, server, tlvs, true)),
  );
  assert.deepEqual(
    headers(1, 4).map(String),
    senders.map(({ ip, port }) => `PROXY TCP4 ${ip} ${server.ip} ${port} ${server.port}\r\n`),
  );
  assert.deepEqual(
    headers(1, 6).map(String),
    clientTexts[6].map((ip, turn) => `PROXY TCP6 ${ip} 2001:db8:ffff::80 ${40_000 + turn} 8080\r\n`),
  );
});

test('without the headers of Node the native question stays open, and says where they should be', () => {
  assert.deepEqual(build('/nowhere/include/node'), {
    because: 'the headers of Node are not in /nowhere/include/node',
  });
});

test('the addon is built where there is a compiler', { skip: skipNative }, () => {
  const built = build(nodeHeaders());
  assert.ok(typeof built === 'string' && existsSync(built), `${built}`);
});
