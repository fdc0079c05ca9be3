/** What iproute2 lists, in the words that would make it. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { parseList, parseRoute, parseRule } from '../../../src/transparent/listed.ts';

const made = { priority: 60, src: 'all', protocol: '240' };

const rules: readonly (readonly [listed: object, family: 4 | 6, words: string])[] = [
  [
    { ...made, fwmark: '0x1000', fwmask: '0x1000', iif: 'docker0', table: '24000' },
    4,
    'iif docker0 fwmark 0x1000/0x1000 lookup 24000',
  ],
  [
    { ...made, fwmark: '0x1', iif: 'br-1', iif_detached: null, table: '7' },
    4,
    'iif br-1 fwmark 0x1/0xffffffff lookup 7',
  ],
  [{ ...made, src: '127.0.0.0', srclen: 8, iif: 'lo', table: '1' }, 4, 'from 127.0.0.0/8 iif lo lookup 1'],
  [
    { ...made, src: '0.0.0.0', iif: 'lo', ipproto: 'udp', sport: 53, table: '1' },
    4,
    'from 0.0.0.0/32 iif lo ipproto udp sport 53 lookup 1',
  ],
  [{ ...made, src: '::1', iif: 'lo', table: '1' }, 6, 'from ::1/128 iif lo lookup 1'],
  [
    { ...made, iif: 'lo', ipproto: 'ipproto-17', sport_start: 53, sport_end: 55, table: '1' },
    6,
    'iif lo ipproto udp sport 53-55 lookup 1',
  ],
  [
    { ...made, iif: 'lo', ipproto: 'ipproto-6', sport: 80, table: '1' },
    4,
    'iif lo ipproto tcp sport 80 lookup 1',
  ],
  [
    { ...made, src: '8000::', srclen: 1, iif: 'lo', ipproto: 'udp', goto: 64 },
    6,
    'from 8000::/1 iif lo ipproto udp goto 64',
  ],
  [{ ...made, src: '::', srclen: 1, goto: 64, unresolved: null }, 6, 'from ::/1 goto 64'],
  [{ ...made, iif: 'lo', nop: null }, 6, 'iif lo nop'],
];

for (const [listed, family, words] of rules) {
  test(`a rule: ${words}`, () => {
    const rule = parseRule({ ...listed }, family);
    assert.equal(rule.words, words);
    assert.deepEqual([rule.plain, rule.priority, rule.protocol], [true, 60, '240']);
  });
}

for (const [key, value] of Object.entries({
  not: null,
  dst: '10.0.0.0',
  tos: '0x10',
  action: '6',
  oif: 'eth0',
  dport: 7,
})) {
  test(`a rule with ${key} is not said by the words`, () => {
    assert.equal(parseRule({ ...made, table: '254', [key]: value }, 4).plain, false);
  });
}

test('a rule that looks into no table has none', () => {
  assert.equal(parseRule({ ...made, goto: 64 }, 6).table, undefined);
  assert.equal(parseRule({ ...made, table: '24000' }, 6).table, 24_000);
});

const routes: readonly (readonly [listed: object, family: 4 | 6, words: string])[] = [
  [{ type: '2', dst: 'default', dev: 'lo', table: '24000' }, 4, 'local 0.0.0.0/0 dev lo table 24000'],
  [
    { type: '2', dst: 'default', dev: 'lo', table: '24001', prefsrc: '::1', metric: 1024 },
    6,
    'local ::/0 dev lo table 24001 src ::1',
  ],
  [
    { type: '2', dst: '240.0.0.0/4', dev: 'lo', table: '255', metric: 60 },
    4,
    'local 240.0.0.0/4 dev lo table local metric 60',
  ],
  [
    { type: '2', dst: 'fd46:1::/96', dev: 'lo', table: '255', metric: 60 },
    6,
    'local fd46:1::/96 dev lo table local metric 60',
  ],
  [{ type: '6', dst: '192.0.2.1', dev: 'lo', table: '5' }, 4, 'blackhole 192.0.2.1/32 dev lo table 5'],
  [
    { type: '2', dst: 'default', dev: 'lo', table: '5', metric: 1024 },
    4,
    'local 0.0.0.0/0 dev lo table 5 metric 1024',
  ],
  [{ type: '77', dst: '2001:db8::1', dev: 'lo', table: '5' }, 6, '77 2001:db8::1/128 dev lo table 5'],
];

for (const [listed, family, words] of routes) {
  test(`a route: ${words}`, () => assert.equal(parseRoute({ ...listed }, family).words, words));
}

test('the list of one table leaves its number out', () => {
  assert.equal(
    parseRoute({ type: '2', dst: 'default', dev: 'lo' }, 4, 700).words,
    'local 0.0.0.0/0 dev lo table 700',
  );
});

test('nothing is an empty list', () => {
  assert.deepEqual(parseList(''), []);
  assert.deepEqual(parseList('\n'), []);
  assert.deepEqual(parseList('[ ]'), []);
});
