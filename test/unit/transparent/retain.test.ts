/** What flows of rules that are gone still need is kept while dualport runs. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { emptyPlan, type Plan } from '../../../src/transparent/plan.ts';
import { retaining } from '../../../src/transparent/retain.ts';

const rule = (words: string, priority = 60, family: 4 | 6 = 4) => ({ family, priority, words, why: 'x' });
const route = (words: string) => ({ family: 4 as const, words, why: 'x' });

const before: Plan = {
  routes: [
    route('local 0.0.0.0/0 dev lo table 24000'),
    route('local 0.0.0.0/0 dev lo table 24001 src 127.0.0.1'),
    route('local 240.0.0.0/4 dev lo table local metric 60 src 127.0.0.1'),
  ],
  rules: [
    rule('iif docker0 fwmark 0x1000/0x1000 lookup 24000'),
    rule('from 127.0.0.0/8 iif lo lookup 24000', 61),
    rule('from 192.0.2.1/32 iif lo ipproto tcp sport 80 lookup 24000', 61),
    rule('from 192.0.2.1/32 iif lo ipproto udp sport 53 lookup 24000', 61),
    rule('iif lo nop', 64, 6),
    rule('from ::/1 iif lo ipproto udp goto 64', 62, 6),
    rule('from 0.0.0.0/32 iif lo ipproto udp sport 53 lookup 24001', 63),
  ],
  marking: { interfaces: ['docker0'], why: 'x' },
  remarks: ['old'],
};

test('what TCP needs stays, and what only UDP needs goes', () => {
  const plan = retaining(emptyPlan, before, () => true);
  assert.deepEqual(
    plan.rules.map(({ words }) => words),
    [
      'iif docker0 fwmark 0x1000/0x1000 lookup 24000',
      'from 127.0.0.0/8 iif lo lookup 24000',
      'from 192.0.2.1/32 iif lo ipproto tcp sport 80 lookup 24000',
    ],
  );
  assert.deepEqual(
    plan.routes.map(({ words }) => words),
    ['local 0.0.0.0/0 dev lo table 24000', 'local 240.0.0.0/4 dev lo table local metric 60 src 127.0.0.1'],
  );
  assert.deepEqual(plan.marking?.interfaces, ['docker0']);
  assert.deepEqual(plan.remarks, []);
});

test('an interface that is gone has no flows', () => {
  const plan = retaining(emptyPlan, before, (name) => name !== 'docker0');
  assert.ok(plan.rules.every(({ words }) => !words.includes('docker0')));
  assert.equal(plan.marking, undefined);
});

test('new interfaces come beside old ones', () => {
  const next = { ...emptyPlan, marking: { interfaces: ['br-1'], why: 'new' } };
  assert.deepEqual(retaining(next, before, () => true).marking, {
    interfaces: ['br-1', 'docker0'],
    why: 'new',
  });
  assert.deepEqual(retaining(next, before, () => false).marking?.interfaces, ['br-1']);
});

test('what both have is there once, as the new plan has it', () => {
  const next = { ...before, routes: [route('local 240.0.0.0/4 dev lo table local metric 60')] };
  const plan = retaining(next, before, () => true);
  assert.equal(plan.rules.length, before.rules.length);
  assert.deepEqual(
    plan.routes.filter(({ words }) => words.includes('240.0.0.0/4')),
    next.routes,
  );
});

test('the first plan retains nothing', () => {
  assert.deepEqual(
    retaining(before, emptyPlan, () => true),
    before,
  );
});
