import assert from 'node:assert/strict';
import test from 'node:test';
import { loadConfig } from '../../../src/config/load.ts';
import { reconcile } from '../../../src/service/reconcile.ts';

function rules(...publish: string[]) {
  return loadConfig({ flags: { publish, to: ['10.0.0.1'] }, env: {} }).rules;
}

test('rules are opened, kept and closed by their name', () => {
  const running = new Set(['80:80/tcp', '81:81/tcp']);
  const { open, keep, close } = reconcile(running, rules('81:81', '82:82'));
  assert.deepEqual(
    open.map(({ name }) => name),
    ['82:82/tcp'],
  );
  assert.deepEqual(
    keep.map(({ name }) => name),
    ['81:81/tcp'],
  );
  assert.deepEqual(close, ['80:80/tcp']);
});

test('fixed ports are opened before ranges, and ranges before ports the kernel chooses', () => {
  const { open } = reconcile(new Set(), rules('90', '8000-8010:91', '8005:92'));
  assert.deepEqual(
    open.map(({ name }) => name),
    ['8005:92/tcp', '8000-8010:91/tcp', '90/tcp'],
  );
});

test('nothing changes when nothing changed', () => {
  const wanted = rules('80:80', '[::1]:81:81/udp');
  const { open, close } = reconcile(new Set(wanted.map(({ name }) => name)), wanted);
  assert.deepEqual([open, close], [[], []]);
});
