import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { formatTarget, formatUpstream, parseTarget } from '../../../src/config/target.ts';
import { DualportError } from '../../../src/errors.ts';

const accepted: Record<string, readonly ['address' | 'name', string]> = {
  '172.17.0.2': ['address', '172.17.0.2'],
  'fd00::2': ['address', 'fd00::2'],
  '[FD00::2]': ['address', 'fd00::2'],
  '::ffff:10.0.0.1': ['address', '10.0.0.1'],
  'fe80::2%eth0': ['address', 'fe80::2%eth0'],
  '[fe80::2%eth0]': ['address', 'fe80::2%eth0'],
  '0.0.0.0': ['address', '0.0.0.0'],
  '::': ['address', '::'],
  localhost: ['name', 'localhost'],
  'App_1.internal': ['name', 'app_1.internal'],
  '_srv.example.com.': ['name', '_srv.example.com.'],
  '4ever.example': ['name', '4ever.example'],
  ['a'.repeat(63)]: ['name', 'a'.repeat(63)],
  [`${'a.'.repeat(126)}a`]: ['name', `${'a.'.repeat(126)}a`],
};

for (const [text, [kind, canonical]] of Object.entries(accepted)) {
  test(`${text.slice(0, 40)} is an upstream ${kind}`, () => {
    const target = parseTarget(text);
    assert.equal(target.kind, kind);
    assert.equal(formatTarget(target), canonical);
    assert.deepEqual(parseTarget(formatTarget(target)), target);
  });
}

const refused: Record<string, RegExp> = {
  '': /labels of 1 to 63/,
  '.': /labels of 1 to 63/,
  'a..b': /labels of 1 to 63/,
  '-a.example': /labels of 1 to 63/,
  'a-.example': /labels of 1 to 63/,
  'a b': /labels of 1 to 63/,
  'a\0b': /labels of 1 to 63/,
  'a\nb': /labels of 1 to 63/,
  'a\n': /labels of 1 to 63/,
  'käse.example': /labels of 1 to 63/,
  'app/../x': /labels of 1 to 63/,
  ['a'.repeat(64)]: /labels of 1 to 63/,
  [`${'a.'.repeat(125)}aaaa`]: /253 characters/,
  '10.0.0.2:80': /without a port/,
  'app:80': /without a port/,
  '[fd00::2]:80': /without a port/,
  '256.1.1.1': /like an IPv4 address but is none/,
  '10.1': /like an IPv4 address but is none/,
  '0x7f.1': /like an IPv4 address but is none/,
  '127.0.0.0x1': /like an IPv4 address but is none/,
  '010.0.0.1': /like an IPv4 address but is none/,
  '224.0.0.1': /multicast or broadcast/,
  '255.255.255.255': /multicast or broadcast/,
  'ff02::1': /multicast or broadcast/,
  'fe80::2': /needs its interface, as in fe80::2%eth0/,
  'fd00::2%eth0': /only a link-local address/,
  '[10.0.0.2]': /labels of 1 to 63/,
};

for (const [text, why] of Object.entries(refused)) {
  test(`${JSON.stringify(text.slice(0, 40))} is refused as an upstream: ${why.source}`, () => {
    assert.throws(
      () => parseTarget(text),
      (error) => error instanceof DualportError && error.code === 'ADDRESS' && why.test(error.message),
    );
  });
}

test('an upstream is written with its port, IPv6 in brackets', () => {
  const texts = ['10.0.0.2', 'fd00::2', 'fe80::2%eth0', 'app'].map((text) =>
    formatUpstream(parseTarget(text), 80),
  );
  assert.deepEqual(texts, ['10.0.0.2:80', '[fd00::2]:80', '[fe80::2%eth0]:80', 'app:80']);
});

test('any text is a target that survives its own text, or an ADDRESS error', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.domain(), fc.ipV4(), fc.ipV6()), (text) => {
      try {
        const target = parseTarget(text);
        assert.deepEqual(parseTarget(formatTarget(target)), target);
      } catch (error) {
        assert.ok(error instanceof DualportError && error.code === 'ADDRESS', String(error));
      }
    }),
  );
});
