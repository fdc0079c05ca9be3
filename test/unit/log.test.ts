import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import {
  droppedLines,
  type Log,
  LogBudget,
  makeHandOver,
  makeThreadLog,
  readable,
  SharedCounts,
  writeLines,
} from '../../src/log.ts';

test('a line on a terminal has time, level, message and values', () => {
  const line = JSON.stringify({
    level: 'info',
    time: '2026-11-21T12:30:59.123Z',
    rule: '80:80/tcp',
    listen: ['[::]:80'],
    msg: 'listening',
  });
  assert.equal(readable(line, false), '12:30:59 info  listening rule=80:80/tcp listen=["[::]:80"]');
});

test('colour is on the level only, and off when there is none to be had', () => {
  const line = JSON.stringify({ level: 'error', time: '2026-11-21T12:30:59.123Z', msg: 'm' });
  assert.equal(readable(line, true), '12:30:59 \u001b[31merror\u001b[39m m');
  assert.equal(readable(line, false), '12:30:59 error m');
});

test('no value writes to the terminal: control and direction characters are escaped', () => {
  const nasty = 'a\r\nb\u001b[2Jc\u0000d\u009be\u202ef\u2028g\u007f';
  const line = JSON.stringify({
    level: 'warn',
    time: '2026-11-21T12:30:59.123Z',
    name: nasty,
    list: [nasty],
    msg: nasty,
  });
  const shown = readable(line, false);
  assert.doesNotMatch(shown, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
  assert.ok(shown.includes('a\\u{d}\\u{a}b\\u{1b}[2Jc'));
});

test('JSON lines carry level names and ISO times, and escape control characters', () => {
  const module = fileURLToPath(new URL('../../src/log.js', import.meta.url));
  const program = `import { makeLog } from ${JSON.stringify(module)};
    const log = makeLog({ level: 'info', format: 'auto' });
    log.info({ name: 'a\\nb\\u001b' }, 'hello'); log.debug('not shown'); log.flush();`;
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
  });
  const { level, time, name, msg, ...rest } = JSON.parse(stdout);
  assert.deepEqual([level, name, msg, rest], ['info', 'a\nb\u001b', 'hello', {}]);
  assert.match(time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  assert.equal(stdout.trimEnd().split('\n').length, 1);
});

test('a kind of message passes ten times per period, and the rest is counted', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const warned: unknown[] = [];
  const budget = new LogBudget({ warn: (values: unknown) => warned.push(values) } as unknown as Log, 1000);
  const passed = Array.from({ length: 25 }, () => budget.allows('denied')).filter(Boolean);
  assert.equal(passed.length, 10);
  assert.equal(budget.allows('limit-flows'), true, 'another kind has its own budget');
  t.mock.timers.tick(1000);
  assert.deepEqual(warned, [{ kind: 'denied', suppressed: 15 }]);
  assert.equal(budget.allows('denied'), true, 'a new period');
  budget.close();
  assert.equal(warned.length, 1);
});

test('threads that share a budget share its lines, and one of them says what was suppressed', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const warned: unknown[] = [];
  const here = new SharedCounts(['denied', 'limit-flows']);
  const there = new SharedCounts(['denied', 'limit-flows'], here.memory);
  const log = { warn: (values: unknown) => warned.push(values) } as unknown as Log;
  const budget = new LogBudget(log, 1000, here);
  const passed = Array.from({ length: 25 }, (_, i) => (i % 2 === 0 ? budget : there).allows('denied'));
  assert.deepEqual([passed.filter(Boolean).length, passed.indexOf(false)], [10, 10]);
  assert.equal(there.allows('limit-flows'), true);
  t.mock.timers.tick(1000);
  assert.deepEqual(warned, [{ kind: 'denied', suppressed: 15 }]);
  assert.equal(there.allows('denied'), true, 'a new period');
  budget.close();
});

test('lines of another thread are handed over once a turn, and written as they are', async () => {
  const written: string[] = [];
  const main = pino({ level: 'info' }, { write: (line: string) => written.push(line) });
  const over = makeHandOver();
  const given: (readonly string[])[] = [];
  const log = makeThreadLog('info', over, (lines) => given.push(lines));
  log.info({ n: 1 }, 'one');
  log.debug('not shown');
  log.warn('two');
  assert.equal(given.length, 0);
  await setImmediate();
  log.info('three');
  await setImmediate();
  assert.deepEqual(
    given.map(({ length }) => length),
    [2, 1],
  );
  for (const lines of given) writeLines(main, over, lines);
  assert.deepEqual(
    written.map((line) => JSON.parse(line).msg),
    ['one', 'two', 'three'],
  );
  assert.ok(written.every((line) => line.endsWith('}\n')));
  assert.deepEqual([...over], [0, 0]);
});

test('while the main thread takes nothing a mebibyte waits for it, and the rest is counted', async () => {
  const written: string[] = [];
  const main = pino({ level: 'info' }, { write: (line: string) => written.push(line) });
  const over = makeHandOver();
  const given: (readonly string[])[] = [];
  const log = makeThreadLog('info', over, (lines) => given.push(lines));
  const text = 'x'.repeat(10_000);
  for (let i = 0; i < 300; i++) {
    log.info({ text }, `line ${i}`);
    await setImmediate();
  }
  const waiting = given.flat();
  const bytes = waiting.reduce((sum, { length }) => sum + length, 0);
  assert.ok(bytes > 2 ** 20 && bytes < 2 ** 20 + 11_000, `${bytes} bytes`);
  const before = droppedLines.count;
  writeLines(main, over, waiting);
  assert.equal(droppedLines.count - before, 300 - waiting.length);
  assert.equal(written.length, waiting.length);
  log.info('and again');
  await setImmediate();
  assert.equal(given.flat().length, waiting.length + 1);
});
