import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import test, { type TestContext } from 'node:test';
import { Progress } from '../../bench/progress.ts';

function progressOn(context: TestContext, terminal: boolean) {
  let now = 0;
  context.mock.method(performance, 'now', () => now);
  let written = '';
  const write = (chunk: Buffer, _: unknown, done: () => void) => {
    written += chunk;
    done();
  };
  const out = Object.assign(new Writable({ write }), terminal ? { isTTY: true, columns: 60 } : {});
  return {
    progress: new Progress(out),
    pass: (seconds: number) => (now += seconds * 1000),
    written: () => written,
  };
}

test('on a terminal one line is rewritten, and never wraps', (context) => {
  const { progress, pass, written } = progressOn(context, true);
  progress.expect(100);
  progress.doing('a'.repeat(100));
  pass(1);
  progress.doing('b');
  const lines = written().split('\r\x1b[K').slice(1);
  assert.equal(lines.length, 2);
  assert.equal(lines[0]?.length, 59);
  assert.equal(written().includes('\n'), false);
});

test('elsewhere a line comes every ten seconds', (context) => {
  const { progress, pass, written } = progressOn(context, false);
  progress.expect(100);
  for (let i = 0; i < 25; i++) {
    progress.doing(`step ${i}`);
    pass(1);
  }
  assert.deepEqual(written().match(/step \d+/g), ['step 0', 'step 10', 'step 20']);
});

test('the time left follows the pace so far', (context) => {
  const { progress, pass, written } = progressOn(context, false);
  progress.expect(200);
  progress.doing('start');
  pass(100);
  progress.done(50);
  progress.doing('a quarter, at half the pace');
  assert.match(written(), /^ 0 %, 3 min 20 s left {2}start\n25 %, 5 min 00 s left {2}a quarter/);
});

test('what is said stays', (context) => {
  const { progress, written } = progressOn(context, true);
  progress.say('nginx died');
  assert.equal(written(), '\r\x1b[Knginx died\n');
});
