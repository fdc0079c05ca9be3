import assert from 'node:assert/strict';
import test, { beforeEach } from 'node:test';
import { FailedUpstreams, failedForMs } from '../../../src/engine/failed-upstreams.ts';
import { type Endpoint, parseAddress } from '../../../src/net/address.ts';

const upstream = (port: number, zone = ''): Endpoint => ({ address: parseAddress('fe80::1'), zone, port });
const [a, b, c, d] = [upstream(1), upstream(2), upstream(3), upstream(4)] as const;

let nowMs = 0;
let failed = new FailedUpstreams(() => nowMs);

beforeEach(() => {
  nowMs = 5000;
  failed = new FailedUpstreams(() => nowMs);
});

test('as long as nothing failed, the order is the very same', () => {
  const order = [a, b, c];
  assert.equal(failed.order(order), order);
  failed.failed(d);
  assert.equal(failed.order(order), order, 'failures elsewhere do not count');
});

test('what failed comes last, and both parts keep their order', () => {
  failed.failed(c);
  failed.failed(a);
  assert.deepEqual(failed.order([a, b, c, d]), [b, d, a, c]);
});

test('nothing is ever left out', () => {
  for (const each of [a, b]) failed.failed(each);
  assert.deepEqual(failed.order([a, b]), [a, b]);
  assert.deepEqual(failed.order([a]), [a]);
  assert.deepEqual(failed.order([]), []);
});

test('a failure counts for ten seconds, and a later one for ten more', () => {
  assert.equal(failedForMs, 10_000);
  failed.failed(a);
  nowMs += 6000;
  failed.failed(a);
  nowMs += 9999;
  assert.deepEqual(failed.order([a, b]), [b, a]);
  nowMs += 1;
  assert.deepEqual(failed.order([a, b]), [a, b]);
});

test('an upstream that answers is forgiven at once', () => {
  failed.failed(a);
  failed.answered(b);
  assert.deepEqual(failed.order([a, b]), [b, a]);
  failed.answered(a);
  assert.deepEqual(failed.order([a, b]), [a, b]);
});

test('port and zone are part of who failed', () => {
  failed.failed(upstream(1, 'eth0'));
  const others = [upstream(1, 'eth1'), upstream(2, 'eth0'), b];
  assert.equal(failed.order(others), others);
  assert.deepEqual(failed.order([upstream(1, 'eth0'), b]), [b, upstream(1, 'eth0')]);
});

test('memory is bounded: 4096 failures are kept, those that are over make room, and known ones stay fresh', () => {
  for (let port = 1; port <= 4096; port++) failed.failed(upstream(port));
  nowMs += 9000;
  failed.failed(upstream(5000));
  assert.deepEqual(failed.order([upstream(5000), upstream(6000)]), [upstream(5000), upstream(6000)]);
  failed.failed(a);
  nowMs += 5000;
  assert.deepEqual(failed.order([a, b]), [b, a], 'refreshed although all places were taken');
  failed.failed(upstream(5000));
  assert.deepEqual(failed.order([upstream(5000), b]), [b, upstream(5000)]);
});
