import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RuleGroup } from '../../../src/engine/admission.ts';
import { isCircle, ListenerPorts, TcpPassages } from '../../../src/engine/passage.ts';
import { at } from '../../engine/harness.ts';

test('a flow has come in a circle when it was in the same rule before, however far back', () => {
  const [a, b, c] = [new RuleGroup(), new RuleGroup(), new RuleGroup()];
  const throughBoth = { group: b, before: { group: a, before: undefined } };
  assert.deepEqual(
    [a, b, c].map((group) => isCircle(throughBoth, group)),
    [true, true, false],
  );
  assert.equal(isCircle(undefined, a), false);
});

test('a connection of ours is known by both of its ends, until it is over', () => {
  const passages = new TcpPassages();
  const passage = { group: new RuleGroup(), before: undefined };
  const upstream = at('198.18.0.1', 80);
  const forget = passages.leave(40000, { ...upstream, zone: 'eth0' }, passage);
  assert.equal(passages.of(at('198.18.0.1', 40000), upstream), passage);
  assert.equal(passages.of(at('198.18.0.1', 40001), upstream), undefined, 'another port');
  assert.equal(passages.of(at('198.18.0.1', 40000), at('198.18.0.2', 80)), undefined, 'another upstream');
  forget();
  assert.equal(passages.of(at('198.18.0.1', 40000), upstream), undefined);
});

test('a port is ours as long as one of its listeners is open', () => {
  const ports = new ListenerPorts();
  ports.open(80);
  ports.open(80);
  ports.close(80);
  assert.equal(ports.has(80), true);
  ports.close(80);
  assert.equal(ports.has(80), false);
});
