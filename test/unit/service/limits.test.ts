import assert from 'node:assert/strict';
import test from 'node:test';
import { loadConfig } from '../../../src/config/load.ts';
import {
  exceedsOpenFiles,
  flowLimits,
  maxFlows,
  mostAddedRules,
  mostWaiting,
} from '../../../src/service/limits.ts';

function config(flags: Record<string, string> = {}, publish = ['80:80']) {
  return loadConfig({ flags: { publish, to: ['10.0.0.1'], ...flags }, env: {} });
}

test('flows are a third of the open files that are left, because a flow may hold three', () => {
  assert.equal(maxFlows(config(), 1024), Math.floor((1024 - 192 - 2) / 3));
  assert.equal(maxFlows(config({}, ['80-89:80-89']), 1024), Math.floor((1024 - 192 - 20) / 3));
});

test('where containers bring rules, room is kept for the listeners of as many as may come', () => {
  assert.deepEqual(
    [64, 1024, 8192, 1_048_576, Number.POSITIVE_INFINITY].map((files) => mostAddedRules(files, 1)),
    [8, 104, 1000, 1024, 1024],
  );
  assert.equal(maxFlows(config({ docker: 'true' }), 1024), Math.floor((1024 - 192 - 2 - 208) / 3));
  assert.equal(mostAddedRules(8192, 2), 500, 'each has a listener on every thread');
});

test('each further thread needs descriptors for its pipes, itself and its listeners', () => {
  assert.equal(maxFlows(config({ threads: '3' }), 4096), Math.floor((4096 - 192 - 2 * 136 - 2 * 3) / 3));
  assert.equal(maxFlows(config({ threads: '64' }), 1024), 64, 'a flow for each at least');
  assert.equal(exceedsOpenFiles(config({ threads: '64' }), 1024), true);
});

test('an unlimited number of open files gives no unlimited number of flows', () => {
  assert.equal(maxFlows(config(), Number.POSITIVE_INFINITY), 65_536);
  assert.equal(maxFlows(config(), 1_048_576), 65_536);
});

test('a limit that was set holds, and is known to be too high when it is', () => {
  assert.equal(maxFlows(config({ maxFlows: '500' }), 1024), 500);
  assert.equal(exceedsOpenFiles(config({ maxFlows: '500' }), 1024), true);
  assert.equal(exceedsOpenFiles(config({ maxFlows: '270' }), 1024), false);
  assert.equal(exceedsOpenFiles(config(), 1024), false);
  assert.equal(exceedsOpenFiles(config(), 64), true, 'less than the service needs');
});

test('clients may wait with the descriptors that no flow can need, up to a backlog', () => {
  const spare = 1024 - 64 - 2 - 3 * maxFlows(config(), 1024);
  assert.ok(spare >= 128, 'those of pipes, which the portable engine has none of');
  assert.equal(mostWaiting(config(), 1024), spare);
  assert.equal(mostWaiting(config({ maxFlows: '20' }), 1024), 1024 - 64 - 2 - 60);
  assert.equal(mostWaiting(config({ maxFlows: '20' }), 1_048_576), 4096);
  assert.equal(mostWaiting(config({ maxFlows: '500' }), 1024), 0, 'more flows than files');
  assert.equal(mostWaiting(config(), 64), 0);
});

test('one rule of several may have half of the flows, one source a quarter', () => {
  const [rule] = config().rules;
  assert.ok(rule);
  assert.deepEqual(flowLimits(rule, 1, 1000), { perRule: 1000, perSource: 250 });
  assert.deepEqual(flowLimits(rule, 2, 1000), { perRule: 500, perSource: 250 });
  const [udp] = config({}, ['53:53/udp']).rules;
  assert.ok(udp);
  assert.deepEqual(flowLimits(udp, 1, 1000), { perRule: 500, perSource: 125 }, 'of what UDP may have');
  assert.deepEqual(flowLimits(udp, 2, 1000), { perRule: 250, perSource: 125 });
  assert.deepEqual(flowLimits(udp, 2, 1), { perRule: 1, perSource: 1 });
  const [limited] = config({ maxFlowsPerRule: '7', maxFlowsPerSource: '3' }).rules;
  assert.ok(limited);
  assert.deepEqual(flowLimits(limited, 2, 1000), { perRule: 7, perSource: 3 });
});
