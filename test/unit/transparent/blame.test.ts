/** What is to blame, by what was seen; that it is seen in a real kernel is test/e2e/transparent-check. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { parseAddress } from '../../../src/net/address.ts';
import { blame, type Seen } from '../../../src/transparent/check/blame.ts';
import { decisionOf } from '../../../src/transparent/check/surroundings.ts';
import { readTrace, type Trace, traceScript } from '../../../src/transparent/check/trace.ts';

const answered = { kind: 'answered' } as const;
const refused = { kind: 'refused' } as const;
const silent = { kind: 'silent' } as const;

const noPackets: Trace = {
  ...{ sent: 0, left: 0, rewritten: 0, answered: 0, back: 0, strayed: 0 },
  ...{ kept: 0, marked: 0, passed: 0, reached: 0, delivered: 0, interfaces: [] },
};
const wentOut: Trace = { ...noPackets, sent: 2, left: 2 };
const cameBack: Trace = { ...wentOut, back: 2, kept: 2, marked: 2, interfaces: ['docker0'] };

/** A spoofed call to a container that nobody has answered. */
const lost: Seen = {
  protocol: 'tcp',
  plain: answered,
  spoofed: silent,
  way: { kind: 'interface', name: 'docker0', gateway: undefined },
  clientWay: { kind: 'none', reason: '' },
  pseudo: false,
  trace: cameBack,
  decision: 'nowhere',
  missing: [],
  sysctl: { rpFilter: 0, srcValidMark: false },
};

function causeOf(seen: Partial<Seen>): string {
  const verdict = blame({ ...lost, ...seen });
  return verdict.result === 'fails' ? verdict.cause : verdict.result;
}

const cases: readonly (readonly [what: string, seen: Partial<Seen>, cause: string])[] = [
  ['an answer', { spoofed: answered, trace: { ...cameBack, delivered: 2 } }, 'works'],
  [
    'an answer where nothing could be counted',
    { spoofed: answered, trace: undefined, missing: undefined },
    'works',
  ],
  ['an answer by rules of another', { spoofed: answered, missing: ['ip rule'] }, 'works'],
  ['a refusal where nobody listens', { plain: refused, spoofed: refused }, 'works'],
  ['a refusal of the client only', { spoofed: refused }, 'upstream'],
  [
    'an answer, and nothing left from the client',
    { spoofed: answered, trace: { ...wentOut, left: 0 } },
    'masquerade',
  ],
  [
    'no answer, and it left from another address',
    { trace: { ...wentOut, left: 0, rewritten: 1 } },
    'masquerade',
  ],
  ['nothing left', { trace: { ...wentOut, left: 0 } }, 'output'],
  ['no native part', { spoofed: { kind: 'impossible', reason: 'not built' } }, 'engine'],
  ['no right to the address', { spoofed: { kind: 'failed', errno: 'EPERM' } }, 'privilege'],
  [
    'no pseudo address',
    { pseudo: true, spoofed: { kind: 'failed', errno: 'EADDRNOTAVAIL' } },
    'missing-route',
  ],
  [
    'an address nobody has',
    { spoofed: { kind: 'failed', errno: 'EADDRNOTAVAIL' }, trace: noPackets },
    'output',
  ],
  ['a client on the same bridge', { clientWay: lost.way }, 'on-link'],
  [
    'a client behind a gateway there',
    { clientWay: { kind: 'interface', name: 'docker0', gateway: '1' }, missing: ['ip rule'] },
    'missing-rule',
  ],
  [
    'a pseudo client is nowhere',
    { pseudo: true, clientWay: lost.way, decision: 'elsewhere', missing: ['ip route'] },
    'missing-route',
  ],
  ['nothing came back', { trace: wentOut }, 'no-answer'],
  ['it came back from elsewhere', { trace: { ...wentOut, strayed: 1 } }, 'no-answer'],
  ['a chain dropped it', { trace: { ...cameBack, kept: 0, marked: 0 } }, 'firewall'],
  ['by another interface', { trace: { ...cameBack, interfaces: ['eth0'] } }, 'interface'],
  [
    'by another interface that checks',
    { trace: { ...cameBack, interfaces: ['eth0'] }, sysctl: { rpFilter: 1, srcValidMark: false } },
    'rp_filter',
  ],
  ['not marked', { trace: { ...cameBack, marked: 0 }, missing: ['the nft table'] }, 'missing-rule'],
  [
    'passed on',
    { trace: { ...cameBack, passed: 2 }, decision: 'elsewhere', missing: ['ip rule'] },
    'missing-rule',
  ],
  ['led nowhere', { missing: ['ip rule'] }, 'missing-rule'],
  ['led nowhere, though all is in force', {}, 'overruled'],
  [
    'a source that is not valid',
    { decision: 'bad-source', sysctl: { rpFilter: 1, srcValidMark: false } },
    'rp_filter',
  ],
  [
    'a source that is not valid with the mark',
    { decision: 'bad-source', sysctl: { rpFilter: 1, srcValidMark: true } },
    'src_valid_mark',
  ],
  ['marked, and led elsewhere by another rule', { decision: 'elsewhere' }, 'overruled'],
  ['not marked, though all is in force', { trace: { ...cameBack, marked: 0 } }, 'overruled'],
  ['dropped behind the decision', { trace: { ...cameBack, reached: 2 } }, 'input'],
  ['delivered, and yet no answer', { trace: { ...cameBack, reached: 2, delivered: 2 } }, 'unknown'],
  ['led here, and yet no answer', { decision: 'here' }, 'unknown'],
  ['nothing counted, and nothing missing', { trace: undefined }, 'unknown'],
  ['nothing counted, and rules are missing', { trace: undefined, missing: ['ip rule'] }, 'missing-rule'],
  ['nobody is there', { plain: silent, trace: wentOut }, 'upstream'],
  ['unreachable', { plain: { kind: 'failed', errno: 'EHOSTUNREACH' }, trace: wentOut }, 'upstream'],
  ['answers to everybody are dropped', { plain: silent, trace: { ...cameBack, reached: 1 } }, 'input'],
  ['a quiet UDP program', { protocol: 'udp', plain: silent, trace: wentOut, decision: 'here' }, 'untold'],
  [
    'a quiet UDP program, and nothing known',
    { protocol: 'udp', plain: silent, trace: undefined, decision: undefined },
    'untold',
  ],
  ['a quiet UDP program without a way back', { protocol: 'udp', plain: silent, trace: wentOut }, 'overruled'],
  [
    'a quiet UDP program of a source that fails',
    { protocol: 'udp', plain: silent, trace: wentOut, decision: 'bad-source' },
    'rp_filter',
  ],
  [
    'a quiet UDP program without rules',
    { protocol: 'udp', plain: silent, trace: wentOut, decision: 'here', missing: ['ip rule'] },
    'missing-rule',
  ],
];

const local: Partial<Seen> = { way: { kind: 'local' }, decision: 'here' };
const localCases: readonly (readonly [what: string, seen: Partial<Seen>, cause: string])[] = [
  [
    'its answer leaves, and rules are missing',
    { trace: { ...wentOut, answered: 1 }, missing: ['ip rule'] },
    'missing-rule',
  ],
  ['its answer leaves, whatever is in force', { trace: { ...wentOut, answered: 1 } }, 'overruled'],
  [
    'it answers from another address, and rules are missing',
    { trace: { ...wentOut, strayed: 1 }, missing: ['ip rule'] },
    'missing-rule',
  ],
  [
    'its answer leaves, and what is in force is not known',
    { trace: { ...wentOut, answered: 1 }, missing: undefined },
    'missing-rule',
  ],
  ['its answer is dropped', { trace: { ...wentOut, answered: 1, back: 1, kept: 1, reached: 1 } }, 'input'],
  [
    'it does not answer at all, and rules are missing',
    { trace: wentOut, missing: ['ip rule'] },
    'missing-rule',
  ],
  [
    'a pseudo address is not local',
    { pseudo: true, trace: { ...wentOut, answered: 1 }, missing: ['ip route'] },
    'missing-route',
  ],
];

for (const [what, seen, cause] of [
  ...cases,
  ...localCases.map(
    ([what, seen, cause]) => [`a program here: ${what}`, { ...local, ...seen }, cause] as const,
  ),
]) {
  test(`${what}: ${cause}`, () => assert.equal(causeOf(seen), cause));
}

test('every fault has a text and a remedy', () => {
  for (const [, seen] of cases) {
    const verdict = blame({ ...lost, ...seen });
    assert.match(verdict.text, /^\S.{10,}\S$/);
    if (verdict.result === 'fails') assert.match(verdict.remedy, /^\S.{10,}\S$/);
  }
});

test('what is not in force is named', () => {
  const { text } = blame({ ...lost, missing: ['ip -4 rule add pref 60'] });
  assert.match(text, /\(not in force: ip -4 rule add pref 60\)$/);
});

test('a decision is read from what the kernel says', () => {
  assert.equal(decisionOf(0, '[{"type":"local","dst":"203.0.113.1"}]', ''), 'here');
  assert.equal(decisionOf(0, '[{"dst":"203.0.113.1","dev":"eth0"}]', ''), 'elsewhere');
  assert.equal(decisionOf(2, '', 'RTNETLINK answers: Invalid cross-device link'), 'bad-source');
  assert.equal(decisionOf(2, '', 'RTNETLINK answers: Invalid argument'), 'bad-source');
  assert.equal(decisionOf(2, '', 'RTNETLINK answers: No route to host'), 'nowhere');
});

const upstream = { protocol: 'udp', address: parseAddress('fd00::2'), zone: '', port: 53 } as const;
const client = { address: parseAddress('2001:db8::1'), port: 40_000 };

test('a trace counts the packets of its own attempt, by both ports', () => {
  const script = traceScript('dualport', [{ upstream, client }], { value: 5, mask: 0xf });
  assert.match(
    script,
    /^add table inet dualport_check\ndelete table inet dualport_check\ntable inet dualport_check \{\n/,
  );
  assert.match(
    script,
    /ip6 saddr 2001:db8::1 ip6 daddr fd00::2 udp dport 53 udp sport 40000 counter name "left_0"/,
  );
  const back = 'ip6 saddr fd00::2 ip6 daddr 2001:db8::1 udp sport 53 udp dport 40000';
  assert.ok(script.includes(`${back} add @from_0 { iifname } counter name "back_0"`));
  assert.ok(script.includes(`${back} meta mark & 0xf == 0x5 counter name "marked_0"`));
  assert.ok(script.includes('meta l4proto { icmp, ipv6-icmp } counter name "delivered_0"'));
});

test('a trace is read from the counters of its number', () => {
  const objects = [
    { counter: { name: 'left_0', packets: 9 } },
    { counter: { name: 'left_1', packets: 3 } },
    { counter: { name: 'back_1', packets: 2 } },
    { set: { name: 'from_1', elem: ['docker0', { elem: { val: 'eth0', expires: 3 } }] } },
  ];
  const trace = readTrace(objects, 1);
  assert.deepEqual(
    [trace.left, trace.back, trace.delivered, trace.interfaces],
    [3, 2, 0, ['docker0', 'eth0']],
  );
  assert.deepEqual(readTrace(objects, 0).interfaces, []);
});
