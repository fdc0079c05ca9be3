import assert from 'node:assert/strict';
import test from 'node:test';
import { Alarm } from '../../../src/docker/alarm.ts';

async function waited(alarm: Alarm): Promise<{ requested: boolean; ms: number }> {
  const started = performance.now();
  const requested = await alarm.wait();
  return { requested, ms: performance.now() - started };
}

test('of several times the earliest counts, in whatever order they were asked for', async () => {
  for (const times of [
    [30, 5000],
    [5000, 30],
    [5000, 30, 4000],
  ]) {
    const alarm = new Alarm();
    for (const ms of times) alarm.within(ms, false);
    const { requested, ms } = await waited(alarm);
    assert.equal(requested, false);
    assert.ok(ms >= 28 && ms < 1000, `${ms} ms`);
  }
});

test('a request is remembered, and forgotten once it was met', async () => {
  const alarm = new Alarm();
  alarm.within(1, false);
  alarm.within(5000, true);
  assert.equal((await waited(alarm)).requested, true);
  alarm.within(1, false);
  assert.equal((await waited(alarm)).requested, false);
});

test('what was asked for while nobody waited counts', async () => {
  const alarm = new Alarm();
  alarm.within(0, true);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal((await waited(alarm)).requested, true);
});

test('stopped, it does not ring', async () => {
  const alarm = new Alarm();
  alarm.within(1, true);
  alarm.stop();
  alarm.within(40, false);
  const { requested, ms } = await waited(alarm);
  assert.equal(requested, false);
  assert.ok(ms > 30, `${ms} ms`);
});
