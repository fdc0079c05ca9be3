import assert from 'node:assert/strict';
import test from 'node:test';
import { optionDefaults, type RuleOptionValues } from '../../../src/config/options.ts';
import { parsePortSpec } from '../../../src/config/port-spec.ts';
import { admitRules, buildRules, type Rule } from '../../../src/config/rules.ts';
import { refuseOwnAddresses } from '../../../src/config/self-connect.ts';
import { formatTarget, parseTarget } from '../../../src/config/target.ts';
import { DualportError, type ErrorCode } from '../../../src/errors.ts';
import { parseAddress } from '../../../src/net/address.ts';

/** Rules of port texts, all with the same values; `to` as texts. */
function build(
  specs: readonly string[],
  { to, ...values }: Partial<Omit<RuleOptionValues, 'to'>> & { to?: readonly string[] } = {},
): readonly Rule[] {
  const targets = to?.map(parseTarget);
  return buildRules(
    specs.flatMap((spec, i) =>
      parsePortSpec(spec).map((port) => ({
        port,
        at: { origin: 'flag' as const, text: `#${i}` },
        values: { ...optionDefaults, ...values, to: targets },
      })),
    ),
  );
}

function refuses(code: ErrorCode, make: () => unknown, ...why: readonly RegExp[]): void {
  assert.throws(make, (error) => {
    assert.ok(error instanceof DualportError);
    assert.equal(error.code, code, error.message);
    for (const words of why) assert.match(error.message, words);
    return true;
  });
}

const elsewhere = { to: ['10.0.0.2'] };

function upstreams(rules: readonly Rule[]): readonly (readonly string[])[] {
  return rules.map((rule) => rule.to.map(formatTarget));
}

test('a rule has its canonical name, its port and the values in force', () => {
  const [rule] = build(['[::]:8080:80'], {
    ...elsewhere,
    source: 'proxy-v2',
    idleTimeout: 7,
    udpReplies: 'limited',
    maxFlowsPerRule: 3,
  });
  assert.deepEqual(rule, {
    name: '[::]:8080:80/tcp',
    port: parsePortSpec('[::]:8080:80')[0],
    to: [parseTarget('10.0.0.2')],
    source: 'proxy-v2',
    mismatch: 'auto',
    sourcePort: 'any',
    udpHeader: 'every',
    proxyCrc32c: false,
    proxyUniqueId: false,
    acceptProxy: [],
    allow: [],
    deny: [],
    family: 'same',
    timeouts: {
      connectMs: 5000,
      headerMs: 5000,
      idleMs: 7,
      halfCloseMs: 120_000,
      udpMs: 30_000,
      udpStreamMs: 180_000,
    },
    udpReplies: 'limited',
    maxFlowsPerRule: 3,
    maxFlowsPerSource: undefined,
  });
});

test('a range is a rule for every port, in order', () => {
  const names = build(['9000-9002:80-82/udp'], elsewhere).map((rule) => rule.name);
  assert.deepEqual(names, ['9000:80/udp', '9001:81/udp', '9002:82/udp']);
});

test('rules are frozen to the bottom', () => {
  const rules = build(['8080:80'], elsewhere);
  const [rule] = rules;
  for (const value of [
    rules,
    rule,
    rule?.to,
    rule?.to[0],
    rule?.timeouts,
    rule?.port,
    rule?.port.hostPorts,
  ]) {
    assert.ok(Object.isFrozen(value));
  }
});

const conflicting: readonly (readonly [string, string])[] = [
  ['8080:80', '8080:81'],
  ['8080:80', '8080:80'],
  ['8080:80', '[::]:8080:81'],
  ['8080:80', '0.0.0.0:8080:81'],
  ['8080:80', '127.0.0.1:8080:81'],
  ['8080:80', '[::1]:8080:81'],
  ['0.0.0.0:8080:80', '192.0.2.1:8080:81'],
  ['[::]:8080:80', '[2001:db8::1]:8080:81'],
  ['192.0.2.1:8080:80', '192.0.2.1:8080:81'],
  ['192.0.2.1:8080:80', '[::ffff:192.0.2.1]:8080:81'],
  ['8080-8089:80-89', '8085:90'],
  ['80', '80'],
  ['8000-8001:80', '8000-8001:80'],
];

for (const pair of conflicting) {
  for (const [first, second] of [pair, pair.toReversed()] as [string, string][]) {
    test(`${first} and ${second} are refused, both named with their places`, () => {
      refuses('PORT_CONFLICT', () => build([first, second], elsewhere), /\(#0\)/, /\(#1\)/);
    });
  }
}

const compatible: readonly (readonly string[])[] = [
  ['8080:80', '8080:80/udp'],
  ['8080:80', '8081:80'],
  ['0.0.0.0:8080:80', '[::]:8080:81'],
  ['0.0.0.0:8080:80', '[2001:db8::1]:8080:81'],
  ['127.0.0.1:8080:80', '127.0.0.2:8080:81'],
  ['[fe80::1%eth0]:8080:80', '[fe80::1%eth1]:8080:80'],
  ['80', '81', '[::]::80'],
  ['8000-8001:80', '8000:81'],
  ['8000-8001:80', '8000-8001:81'],
  ['8000-8001:80', '8000-8001:81/udp', '8000-8001:82/udp'],
  ['8000-8002:80', '8000-8001:81', '8000:82'],
  ['0.0.0.0:8000-8001:80', '[::]:8000-8001:81', '0.0.0.0:8000-8001:82', '[::]:8000-8001:83'],
];

for (const specs of compatible) {
  test(`${specs.join(' and ')} go together`, () => {
    assert.equal(build(specs, elsewhere).length, specs.length);
  });
}

test('a conflict says what both listen on and what to do', () => {
  refuses(
    'PORT_CONFLICT',
    () => build(['8080:80', '[::]:8080:81'], elsewhere),
    /^"\[::\]:8080:81\/tcp" \(#1\) and "8080:80\/tcp" \(#0\) would both listen on tcp port 8080; give one/,
  );
});

test('a range of host ports is refused only when none is left', () => {
  refuses(
    'PORT_CONFLICT',
    () => build(['8000-8001:80', '8000:81', '8001:82'], elsewhere),
    /^"8000-8001:80\/tcp" \(#0\) has no host port left: "8000:81\/tcp" \(#1\) has 8000, and the rest of 8000-8001/,
  );
  refuses(
    'PORT_CONFLICT',
    () => build(['8000-8001:80', '8000-8001:81', '8000-8001:82'], elsewhere),
    /^"8000-8001:82\/tcp" \(#2\) has no host port left: "8000-8001:80\/tcp" \(#0\) has 8000/,
  );
  refuses('PORT_CONFLICT', () => build(['[::]:8000-8001:80', '8000:81', '[::1]:8001:82'], elsewhere));
});

test('the default upstreams are both loopback addresses', () => {
  assert.deepEqual(upstreams(build(['8080:80'])), [['127.0.0.1', '::1']]);
});

test('a default upstream that is a listener is left out, so that a sidecar can use the same port', () => {
  assert.deepEqual(upstreams(build(['[::]:8080:8080'])), [['127.0.0.1']]);
  assert.deepEqual(upstreams(build(['0.0.0.0:8080:8080'])), [['::1']]);
  assert.deepEqual(upstreams(build(['[::1]:8080:8080'])), [['127.0.0.1']]);
  assert.deepEqual(upstreams(build(['127.0.0.1:8080:8080'])), [['::1']]);
  assert.deepEqual(upstreams(build(['[2001:db8::1]:8080:8080'])), [['127.0.0.1', '::1']]);
  assert.deepEqual(upstreams(build(['127.0.0.2:8080:8080'])), [['127.0.0.1', '::1']]);
});

test("another rule's listener counts as well, whichever comes first", () => {
  assert.deepEqual(upstreams(build(['[::]:9090:8080', '[::]:8080:80'])), [
    ['127.0.0.1'],
    ['127.0.0.1', '::1'],
  ]);
  assert.deepEqual(upstreams(build(['[::]:8080:80', '[::]:9090:8080'])), [
    ['127.0.0.1', '::1'],
    ['127.0.0.1'],
  ]);
});

test('the other protocol and ports that are still to be chosen lead nowhere back', () => {
  const specs = ['9090:8080', '8080:80/udp', '8000-8100:81', '::8081'];
  assert.deepEqual(upstreams(build(specs))[0], ['127.0.0.1', '::1']);
});

test('a rule whose default upstreams are all listeners is refused', () => {
  for (const specs of [['8080:8080'], ['53:53/udp'], ['8080:80', '9090:8080']]) {
    refuses('SELF_CONNECT', () => build(specs), /would connect to dualport itself: without --to/);
  }
});

test('an upstream that was written and is a listener is refused, with the listener named', () => {
  refuses(
    'SELF_CONNECT',
    () => build(['8080:8080'], { to: ['10.0.0.2', '127.0.0.1'] }),
    /^"8080:8080\/tcp" \(#0\) would connect to its own listener at tcp 127\.0\.0\.1:8080; name the address/,
  );
  refuses(
    'SELF_CONNECT',
    () => build(['9090:8080', '[::]:8080:80'], { to: ['::1'] }),
    /^"9090:8080\/tcp" \(#0\) would connect to the listener of "\[::\]:8080:80\/tcp" \(#1\) at tcp \[::1\]:8080/,
  );
});

for (const [spec, to] of [
  ['8080:8080', '0.0.0.0'],
  ['8080:8080', '::'],
  ['127.0.0.1:8080:8080', '0.0.0.0'],
  ['8080:8080', '127.0.0.2'],
  ['192.0.2.1:8080:8080', '192.0.2.1'],
  ['[fe80::1%eth0]:8080:8080', 'fe80::1%eth0'],
  ['[::]:8080:8080', 'localhost'],
  ['0.0.0.0:8080:8080', 'app.localhost.'],
  ['8080-8090:8080-8090', '127.0.0.1'],
] as const) {
  test(`${spec} to ${to} is refused as a connection to itself`, () => {
    refuses('SELF_CONNECT', () => build([spec], { to: [to] }), /its own listener/);
  });
}

test('an address of this host, at a port that a rule has on all of them, is refused once the host is known', () => {
  const own = ['10.0.0.2', 'fd00::2'].map(parseAddress);
  const judge = (specs: readonly string[], ...to: readonly string[]) =>
    refuseOwnAddresses(build(specs, { to }), own);
  refuses(
    'SELF_CONNECT',
    () => judge(['53:53/udp'], '10.0.0.3', '10.0.0.2'),
    /^"53:53\/udp" would connect to its own listener at udp 10\.0\.0\.2:53, an address of this host; name the address/,
  );
  refuses(
    'SELF_CONNECT',
    () => judge(['9090:8080', '[::]:8080:80'], 'fd00::2'),
    /^"9090:8080\/tcp" would connect to the listener of "\[::\]:8080:80\/tcp" at tcp \[fd00::2\]:8080, an address of/,
  );
  judge(['8080:80', '[::]:8081:8081', '127.0.0.1:8082:8082', '8083/udp'], '10.0.0.2');
  judge(['8080:8080'], '10.0.0.3', 'app');
});

for (const [spec, to] of [
  ['8080:8081', '127.0.0.1'],
  ['8080:8080', '10.0.0.2'],
  ['[::]:8080:8080', '127.0.0.1'],
  ['127.0.0.1:8080:8080', '127.0.0.2'],
  ['192.0.2.1:8080:8080', '127.0.0.1'],
  ['[fe80::1%eth0]:8080:8080', 'fe80::1%eth1'],
  ['8080:8080', 'notlocalhost'],
] as const) {
  test(`${spec} to ${to} is not judged to be a connection to itself`, () => {
    assert.deepEqual(upstreams(build([spec], { to: [to] })), [[to]]);
  });
}

test('PROXY protocol version 1 on a UDP port is refused, and version 2 is named', () => {
  refuses(
    'USAGE',
    () => build(['80:80', '53:53/udp'], { ...elsewhere, source: 'proxy-v1' }),
    /^#1: 53:53\/udp: found source proxy-v1.*use source proxy-v2/,
  );
});

test('a family without any upstream is refused', () => {
  refuses(
    'USAGE',
    () => build(['8080:80'], { ...elsewhere, family: 'v6' }),
    /^#0: 8080:80\/tcp: found family v6, but no upstream is of that family: 10\.0\.0\.2; .*prefer-v6/,
  );
  refuses('USAGE', () => build(['8080:80'], { to: ['fd00::2'], family: 'v4' }), /family v4/);
  refuses('USAGE', () => build(['[::]:8080:8080'], { family: 'v6' }), /127\.0\.0\.1/);
  for (const family of ['v4', 'prefer-v6', 'same'] as const) build(['8080:80'], { ...elsewhere, family });
  build(['8080:80'], { to: ['10.0.0.2', 'app'], family: 'v6' });
});

/** Rules of labels beside those that stand: names, and messages of what was refused. */
function admit(standing: readonly Rule[], specs: readonly string[], values: Partial<RuleOptionValues> = {}) {
  const inputs = specs.flatMap((spec, i) =>
    parsePortSpec(spec).map((port) => ({
      port,
      at: { origin: 'label' as const, text: `#${i}` },
      values: { ...optionDefaults, to: [parseTarget('10.0.0.2')], ...values },
    })),
  );
  return admitRules(standing, inputs).map((one) => (one instanceof DualportError ? one.message : one.name));
}

test('rules from elsewhere are admitted one by one: what does not fit is refused alone', () => {
  const standing = build(['8080:80', '[::1]:8443:443'], elsewhere);
  const [first, taken, twin, free, overlapped, ...rest] = admit(standing, [
    '9000:80',
    '[::]:8080:80',
    '9000:80',
    '127.0.0.1:8443:443',
    '0.0.0.0:9000:80',
    '9000-9001:80',
  ]);
  assert.deepEqual([first, free, rest], ['9000:80/tcp', '127.0.0.1:8443:443/tcp', ['9000-9001:80/tcp']]);
  assert.match(
    taken ?? '',
    /^"\[::\]:8080:80\/tcp" \(#1\) and "8080:80\/tcp" \(the configuration\) would both listen/,
  );
  assert.match(twin ?? '', /^"9000:80\/tcp" \(#2\) is published already by "9000:80\/tcp" \(#0\)/);
  assert.match(overlapped ?? '', /would both listen on tcp port 9000/);
});

test('a rule that was refused takes no port from the next', () => {
  const refusedFirst = admit([], ['53:53/udp', '53:53/tcp', '53:54/udp'], { source: 'proxy-v1' });
  assert.match(refusedFirst[0] ?? '', /proxy-v1/);
  assert.equal(refusedFirst[1], '53:53/tcp');
  assert.doesNotMatch(refusedFirst[2] ?? '', /both listen/);
});

test('a family without an address is refused in words that fit a container', () => {
  const [refusal] = admit([], ['8080:80'], { family: 'v6' });
  assert.match(
    refusal ?? '',
    /^#0: 8080:80\/tcp: found family v6.*give the container an address of it, or use family/,
  );
});

test('a rule from elsewhere does not connect to a listener of another', () => {
  const [, refusal] = admit([], ['10.0.0.2:80:8080', '8080:80']);
  assert.match(
    refusal ?? '',
    /"8080:80\/tcp" \(#1\) would connect to the listener of "10\.0\.0\.2:80:8080\/tcp"/,
  );
});

test('a fault in what makes a rule is no refusal of it', () => {
  assert.throws(() => admit([], ['8080:80'], { to: null as never }), TypeError);
});

test('rules from elsewhere are frozen, too', () => {
  const port = parsePortSpec('8080:80')[0];
  assert.ok(port);
  const at = { origin: 'label' as const, text: '#' };
  const values = { ...optionDefaults, to: [parseTarget('10.0.0.2')] };
  const [rule] = admitRules([], [{ port, at, values }]);
  assert.ok(Object.isFrozen(rule) && Object.isFrozen((rule as Rule).to[0]));
});

test('tens of thousands of ports are checked against each other in little time', () => {
  const started = performance.now();
  const specs = ['1-20000:1-20000', '0.0.0.0:20001-40000:1-20000', '[::]:20001-40000:20001-40000'];
  const sameHostPort = Array.from({ length: 5000 }, (_, i) => `10.1.${i >> 8}.${i & 255}:50000:80`);
  const ranges = Array.from({ length: 2000 }, (_, i) => `51000-53000:${i + 1}`);
  assert.equal(build([...specs, ...sameHostPort, ...ranges], elsewhere).length, 67_000);
  // A second and a half here at most; all pairs would take minutes.
  assert.ok(performance.now() - started < 15_000);
});
