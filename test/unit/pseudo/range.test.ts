import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { formatAddress, parseAddress } from '../../../src/net/address.ts';
import { parseCidr } from '../../../src/net/cidr.ts';
import { addressOf, embed, embedded, isPseudo, numberOf, PseudoRange } from '../../../src/pseudo/range.ts';

const whole = new PseudoRange(parseCidr('240.0.0.0/4'));
const v6 = parseCidr('fd5f:bf90:309::/96');

function has(range: PseudoRange, text: string): boolean {
  return range.has(numberOf(parseAddress(text)));
}

test('an address is a number and back', () => {
  assert.equal(numberOf(parseAddress('240.1.2.3')), 0xf0010203);
  assert.equal(formatAddress(addressOf(0xf0010203)), '240.1.2.3');
  fc.assert(
    fc.property(fc.nat(0xffffffff), (number) => {
      assert.equal(numberOf(addressOf(number)), number);
    }),
  );
});

test('what may be taken for a network, a broadcast address or nobody is not given', () => {
  for (const text of ['240.0.0.1', '240.0.0.254', '247.1.2.3', '255.255.254.254'])
    assert.ok(has(whole, text), text);
  const left = ['240.0.0.0', '241.2.3.0', '241.2.3.255', '255.255.255.0', '255.255.255.1', '255.255.255.254'];
  for (const text of [...left, '255.255.255.255', '239.255.255.254', '10.0.0.1'])
    assert.ok(!has(whole, text), text);
});

test('a range ends where its prefix does', () => {
  const range = new PseudoRange(parseCidr('10.64.0.0/10'));
  for (const text of ['10.64.0.1', '10.127.255.254']) assert.ok(has(range, text), text);
  for (const text of ['10.63.255.254', '10.128.0.1']) assert.ok(!has(range, text), text);
});

test('it is known how many addresses can be given', () => {
  const count = (prefix: string) => {
    const cidr = parseCidr(prefix);
    const range = new PseudoRange(cidr);
    const first = numberOf(cidr.address);
    return [
      range.usable,
      Array.from({ length: 2 ** (128 - cidr.bits) }, (_, i) => range.has(first + i)).filter(Boolean).length,
    ];
  };
  for (const prefix of ['203.0.113.0/24', '198.18.0.0/20', '255.255.240.0/20']) {
    const [said, counted] = count(prefix);
    assert.equal(said, counted, prefix);
  }
});

test('every hash picks an address of the range, or one that is left out', () => {
  fc.assert(
    fc.property(
      fc.nat(0xffffffff),
      fc.constantFrom('240.0.0.0/4', '10.64.0.0/10', '203.0.113.0/24'),
      (hash, prefix) => {
        const range = new PseudoRange(parseCidr(prefix));
        const number = range.pick(hash);
        assert.ok(number === undefined || range.has(number));
      },
    ),
  );
  assert.equal(whole.pick(0x12345678), 0xf2345678);
  assert.equal(whole.pick(0x12345600), undefined);
});

test('an IPv4 address is the end of the IPv6 one it is embedded in', () => {
  const inner = parseAddress('198.18.77.7');
  const outer = embed(v6, inner);
  assert.equal(formatAddress(outer), 'fd5f:bf90:309::c612:4d07');
  assert.deepEqual(embedded(v6, outer), inner);
  assert.equal(embedded(v6, parseAddress('fd5f:bf90:309::1:c612:4d07')), undefined);
  assert.equal(embedded(v6, inner), undefined);
});

test('a pseudo address is one of either prefix', () => {
  const prefixes = { v4: parseCidr('240.0.0.0/4'), v6 };
  for (const text of ['240.0.0.0', '255.1.2.3', 'fd5f:bf90:309::1'])
    assert.ok(isPseudo(prefixes, parseAddress(text)), text);
  for (const text of ['239.1.2.3', 'fd5f:bf90:309:1::1', '2001:db8::1', '::f000:1']) {
    assert.ok(!isPseudo(prefixes, parseAddress(text)), text);
  }
});
