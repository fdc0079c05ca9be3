import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Log, LogBudget, readable } from '../../src/log.ts';

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
