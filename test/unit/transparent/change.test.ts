/** The steps between what there is and what is wanted, their order, and the way back. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { stepsTo } from '../../../src/transparent/change.ts';
import { isSameMarking, markingScript, type NftObjects } from '../../../src/transparent/marking.ts';
import { emptyPlan, type Plan } from '../../../src/transparent/plan.ts';
import type { PlaceNames, Present } from '../../../src/transparent/present.ts';
import { setupScript, undoScript } from '../../../src/transparent/script.ts';
import { type Command, commandText } from '../../../src/transparent/system.ts';

const names: PlaceNames = {
  table: 'dualport',
  mark: { value: 0x1000, mask: 0x1000 },
  interfaces: [],
  priority: 60,
  routeTable: 24_000,
};

const route = { family: 4, words: 'local 0.0.0.0/0 dev lo table 24000', why: 'a table' } as const;
const rule = {
  family: 4,
  priority: 60,
  words: 'iif docker0 fwmark 0x1000/0x1000 lookup 24000',
  why: 'a rule',
} as const;
const plan: Plan = {
  routes: [route],
  rules: [rule],
  marking: { interfaces: ['docker0'], why: 'a mark' },
  remarks: ['look out'],
};
const nothing: Present = { rules: [], routes: [], marking: undefined, foreign: [] };

/** As nft 1.0.6 lists the table of the plan. */
const objects: NftObjects = [
  { metainfo: { version: '1.0.6' } },
  { table: { family: 'inet', name: 'dualport', handle: 1 } },
  { set: { name: 'answering_interfaces', table: 'dualport', type: 'ifname', elem: ['docker0'] } },
  { chain: { name: 'mark_answers', type: 'filter', hook: 'prerouting', prio: -150, policy: 'accept' } },
  {
    rule: {
      chain: 'mark_answers',
      comment: 'dualport transparent, not for wildcard sockets',
      expr: [
        { match: { op: '==', left: { meta: { key: 'iifname' } }, right: '@answering_interfaces' } },
        { match: { op: '==', left: { socket: { key: 'wildcard' } }, right: 1 } },
        { return: null },
      ],
    },
  },
  {
    rule: {
      chain: 'mark_answers',
      comment: 'dualport transparent 0x1000/0x1000',
      expr: [
        { match: { op: '==', left: { meta: { key: 'iifname' } }, right: '@answering_interfaces' } },
        {
          match: {
            op: '==',
            left: { meta: { key: 'l4proto' } },
            right: { set: ['icmp', 'tcp', 'udp', 'ipv6-icmp'] },
          },
        },
        { match: { op: '==', left: { socket: { key: 'transparent' } }, right: 1 } },
        { mangle: { key: { meta: { key: 'mark' } }, value: { '|': [{ meta: { key: 'mark' } }, 4096] } } },
        { counter: { packets: 7, bytes: 700 } },
        { accept: null },
      ],
    },
  },
];
const whole: Present = {
  rules: [rule],
  routes: [route],
  marking: { objects, text: 'table inet dualport {\n}\n' },
  foreign: [],
};

const short = ({ input, ...command }: Command) =>
  input === undefined
    ? commandText(command)
    : `${commandText(command)} ${input.split('\n').at(input.startsWith('delete') ? 0 : -2)}`;

test('from nothing: the table, what leads to it, and the mark at last', () => {
  const steps = stepsTo(plan, nothing, names);
  assert.deepEqual(
    steps.map(({ command }) => commandText(command)),
    [
      'ip -4 route add local 0.0.0.0/0 dev lo table 24000 proto 240',
      'ip -4 rule add pref 60 iif docker0 fwmark 0x1000/0x1000 lookup 24000 protocol 240',
      'nft -f -',
    ],
  );
  assert.deepEqual(
    steps.map(({ undo }) => short(undo)),
    [
      'ip -4 route del local 0.0.0.0/0 dev lo table 24000 proto 240',
      'ip -4 rule del pref 60 iif docker0 fwmark 0x1000/0x1000 lookup 24000 protocol 240',
      'nft -f - delete table inet dualport',
    ],
  );
  assert.deepEqual(
    steps.map(({ why, removes }) => [why, removes]),
    [
      ['a table', false],
      ['a rule', false],
      ['a mark', false],
    ],
  );
});

test('where all of it is there, nothing is done', () => {
  assert.deepEqual(stepsTo(plan, whole, names), []);
});

test('to nothing: the mark first, the table at last, each with what makes it again', () => {
  const steps = stepsTo(emptyPlan, whole, names);
  assert.deepEqual(
    steps.map(({ command }) => short(command)),
    [
      'nft -f - delete table inet dualport',
      'ip -4 rule del pref 60 iif docker0 fwmark 0x1000/0x1000 lookup 24000 protocol 240',
      'ip -4 route del local 0.0.0.0/0 dev lo table 24000 proto 240',
    ],
  );
  assert.equal(
    steps[0]?.undo.input,
    'add table inet dualport\ndelete table inet dualport\ntable inet dualport {\n}\n',
  );
  assert.ok(steps.every(({ removes }) => removes));
});

test('what is new is made before what is old goes', () => {
  const next = { ...plan, rules: [{ ...rule, words: 'iif br-1 fwmark 0x1000/0x1000 lookup 24000' }] };
  assert.deepEqual(
    stepsTo(next, whole, names).map(({ command }) => commandText(command)),
    [
      'ip -4 rule add pref 60 iif br-1 fwmark 0x1000/0x1000 lookup 24000 protocol 240',
      'ip -4 rule del pref 60 iif docker0 fwmark 0x1000/0x1000 lookup 24000 protocol 240',
    ],
  );
});

test('a route with another source is replaced, for there is room for one', () => {
  const words = 'local 240.0.0.0/4 dev lo table local metric 60';
  const next = { ...emptyPlan, routes: [{ family: 4, words: `${words} src 127.0.0.1`, why: '' } as const] };
  const [step, ...more] = stepsTo(next, { ...nothing, routes: [{ family: 4, words }] }, names);
  assert.deepEqual(more, []);
  assert.equal(step && commandText(step.command), `ip -4 route replace ${words} src 127.0.0.1 proto 240`);
  assert.equal(step && commandText(step.undo), `ip -4 route replace ${words} proto 240`);
});

test('a table of another interface, mark, hook or rule is not the same', () => {
  const marking = { interfaces: ['docker0'], why: '' };
  const same = (list: NftObjects, wanted = marking, given = names) => isSameMarking(list, wanted, given);
  assert.ok(same(objects));
  assert.ok(!same(objects, { interfaces: ['docker0', 'br-1'], why: '' }));
  assert.ok(!same(objects, marking, { ...names, mark: { value: 1, mask: 1 } }));
  assert.ok(!same([]));
  const change = (from: string, to: string) =>
    JSON.parse(JSON.stringify(objects).replace(from, to)) as NftObjects;
  for (const [from, to] of [
    ['"prerouting"', '"input"'],
    ['-150', '0'],
    ['"accept"', '"drop"'],
    ['"transparent"}},"right":1', '"transparent"}},"right":0'],
    ['"wildcard"}},"right":1', '"wildcard"}},"right":0'],
    ['"return"', '"accept"'],
    ['4096', '8192'],
    ['"udp",', ''],
    ['"tcp"', '"sctp"'],
  ] as const) {
    assert.notDeepEqual(change(from, to), objects, from);
    assert.ok(!same(change(from, to)), `${from} to ${to}`);
  }
  assert.ok(!same([...objects, { chain: { name: 'mark_answers' } }]));
});

test('other bits of the mark are kept, and those of the mask are cleared', () => {
  const marking = { interfaces: ['docker0', 'br-1'], why: '' };
  const script = (value: number, mask: number) => markingScript(marking, { ...names, mark: { value, mask } });
  assert.match(script(0x1000, 0x1000), /meta mark set meta mark \| 0x1000 counter/);
  assert.match(script(0x5, 0xf), /meta mark set meta mark & 0xfffffff5 \| 0x5 counter/);
  assert.match(script(0x80000000, 0xc0000000), /meta mark & 0xbfffffff \| 0x80000000 counter/);
  assert.match(script(1, 1), /elements = \{ "docker0", "br-1" \}/);
});

test('a script has each reason once, and its notes at the top', () => {
  const script = setupScript(
    { ...plan, routes: [route, { ...route, family: 6, words: 'local ::/0 dev lo table 24000' }] },
    names,
  );
  assert.match(
    script,
    /^#!\/bin\/sh\n# dualport: .*\n# Note: look out\nset -e\n\n# a table\nip -4 .*\nip -6 .*\n\n# a rule\n/,
  );
  assert.match(script, /\n# a mark\nnft -f - <<'END'\nadd table inet dualport\n[\s\S]*\n\}\nEND\n$/);
  assert.equal(script.match(/# a table/g)?.length, 1);
});

test('the way back is in the reverse order', () => {
  const commands = undoScript(plan, names).match(/^(?:nft|ip -\d \w+ \w+)/gm);
  assert.deepEqual(commands, ['nft', 'ip -4 rule del', 'ip -4 route del']);
});

test('a script for nothing says so, and does nothing', () => {
  assert.equal(
    setupScript({ ...emptyPlan, remarks: ['why'] }, names).replace(/# dualport.*\n/, ''),
    '#!/bin/sh\n# Note: why\n# Nothing has to be set up.\n',
  );
});
