import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { options } from '../../../src/config/options.ts';
import type { FamilyMode } from '../../../src/config/rules.ts';
import { type Endpoint, type Family, formatEndpoint, parseAddress } from '../../../src/net/address.ts';
import { compileRoute } from '../../../src/policy/route.ts';

function endpoints(...texts: readonly string[]): readonly Endpoint[] {
  return texts.map((text) => ({ address: parseAddress(text), zone: '', port: 80 }));
}

const upstreams = endpoints('fd00::1', '10.0.0.1', 'fd00::2', '::ffff:10.0.0.2');
const ipv4 = ['10.0.0.1:80', '10.0.0.2:80'];
const ipv6 = ['[fd00::1]:80', '[fd00::2]:80'];

/** The order of those four for an IPv4 client, and for an IPv6 client. */
const orders: Readonly<Record<FamilyMode, Readonly<Record<Family, readonly string[]>>>> = {
  same: { 4: [...ipv4, ...ipv6], 6: [...ipv6, ...ipv4] },
  v4: { 4: ipv4, 6: ipv4 },
  v6: { 4: ipv6, 6: ipv6 },
  'prefer-v4': { 4: [...ipv4, ...ipv6], 6: [...ipv4, ...ipv6] },
  'prefer-v6': { 4: [...ipv6, ...ipv4], 6: [...ipv6, ...ipv4] },
};
const modes = Object.keys(orders) as readonly FamilyMode[];
const families: readonly Family[] = [4, 6];

test('the modes here are those a user can write', () => {
  assert.equal(modes.join(', '), options.family.allowed);
});

for (const mode of modes) {
  for (const family of families) {
    test(`family ${mode} offers an IPv${family} client ${orders[mode][family].join(', ')}`, () => {
      const route = compileRoute(mode, upstreams);
      assert.deepEqual(route(family).map(formatEndpoint), orders[mode][family]);
    });
  }
}

test('an upstream that is not there changes nothing in the order of the others', () => {
  const some = fc.subarray([...upstreams]);
  fc.assert(
    fc.property(fc.constantFrom(...modes), fc.constantFrom(...families), some, (mode, family, some) => {
      const there = new Set(some.map(formatEndpoint));
      assert.deepEqual(
        compileRoute(mode, some)(family).map(formatEndpoint),
        orders[mode][family].filter((upstream) => there.has(upstream)),
      );
    }),
    { numRuns: 500 },
  );
});

test('upstreams of one family stay in the order they were written', () => {
  const route = compileRoute('same', upstreams.toReversed());
  assert.deepEqual(route(6).map(formatEndpoint), [...ipv6.toReversed(), ...ipv4.toReversed()]);
});

test('a container of one family serves clients of the other, unless the mode forbids it', () => {
  const onlyIpv4 = endpoints('10.0.0.1');
  for (const mode of ['same', 'v4', 'prefer-v4', 'prefer-v6'] as const) {
    assert.deepEqual(compileRoute(mode, onlyIpv4)(6), onlyIpv4, mode);
  }
  assert.deepEqual(compileRoute('v6', onlyIpv4)(6), []);
  assert.deepEqual(compileRoute('v6', onlyIpv4)(4), []);
});

test('every flow of a rule is given the same order, which nobody can change', () => {
  for (const mode of modes) {
    const list = [...upstreams];
    const route = compileRoute(mode, list);
    list.length = 0;
    for (const family of families) {
      const order = route(family);
      assert.equal(route(family), order);
      assert.ok(Object.isFrozen(order));
      assert.deepEqual(order.map(formatEndpoint), orders[mode][family]);
    }
  }
});
