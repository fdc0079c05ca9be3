import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { DualportError } from '../../../src/errors.ts';
import { type Address, formatAddress, fromBytes, isIpv4, parseAddress } from '../../../src/net/address.ts';
import { type Cidr, compileCidrs, formatCidr, intersectCidrs, parseCidr } from '../../../src/net/cidr.ts';
import { lookAlikes, spelledIpv4 } from './spellings.ts';

function matches(prefixes: readonly string[], ...texts: readonly string[]): readonly boolean[] {
  const contains = compileCidrs(prefixes.map(parseCidr));
  return texts.map((text) => contains(parseAddress(text)));
}

/** What each text is written as once it is read. */
const accepted: Readonly<Record<string, string>> = {
  '10.0.0.0/8': '10.0.0.0/8',
  '10.1.2.3': '10.1.2.3/32',
  '10.1.2.3/32': '10.1.2.3/32',
  '10.1.2.2/31': '10.1.2.2/31',
  '0.0.0.0/0': '0.0.0.0/0',
  '0.0.0.0': '0.0.0.0/32',
  '128.0.0.0/1': '128.0.0.0/1',
  '172.16.0.0/12': '172.16.0.0/12',
  '2001:DB8::/32': '2001:db8::/32',
  '2001:db8::1': '2001:db8::1/128',
  '2001:db8:8000::/33': '2001:db8:8000::/33',
  'fe80::/10': 'fe80::/10',
  '::/0': '::/0',
  '::': '::/128',
  '::/96': '::/96',
  '::ffff:0:0/96': '0.0.0.0/0',
  '::ffff:10.0.0.0/104': '10.0.0.0/8',
  '::ffff:a00:0/104': '10.0.0.0/8',
  '::ffff:10.0.0.1': '10.0.0.1/32',
  '0:0:0:0:0:FFFF:A00:1/128': '10.0.0.1/32',
  '::fffe:0:0/95': '::fffe:0:0/95',
};
for (const [text, canonical] of Object.entries(accepted)) {
  test(`${text} is the prefix ${canonical}`, () => {
    assert.equal(formatCidr(parseCidr(text)), canonical);
    assert.deepEqual(parseCidr(canonical), parseCidr(text));
  });
}

const lengthOf32 = /is not an address prefix: the prefix length is a number from 0 to 32$/;
const lengthOf128 = /is not an address prefix: the prefix length is a number from 0 to 128$/;
const noAddress = /is not an address prefix: write one such as 10\.0\.0\.0\/8 or 2001:db8::\/32$/;
const refused: Readonly<Record<string, RegExp>> = {
  '10.0.0.0/33': lengthOf32,
  '10.0.0.0/': lengthOf32,
  '10.0.0.0/-1': lengthOf32,
  '10.0.0.0/08': lengthOf32,
  '10.0.0.0/8.0': lengthOf32,
  '10.0.0.0/0x8': lengthOf32,
  '10.0.0.0/ 8': lengthOf32,
  '10.0.0.0/8 ': lengthOf32,
  '10.0.0.0/8/8': lengthOf32,
  '10.0.0.0/255.0.0.0': lengthOf32,
  '10.0.0.0/1000': lengthOf32,
  '10.0.0.0/104': lengthOf32,
  '2001:db8::/129': lengthOf128,
  '2001:db8::/': lengthOf128,
  '::/00': lengthOf128,
  '': noAddress,
  '/8': noAddress,
  app: noAddress,
  '10.0.0/8': noAddress,
  '10.0.0.00/8': noAddress,
  '[::]/0': noAddress,
  'fe80::%eth0/10': noAddress,
  'fe80::1%eth0': noAddress,
  '*': noAddress,
};
for (const [text, why] of Object.entries(refused)) {
  test(`${JSON.stringify(text)} is no prefix`, () => {
    assert.throws(
      () => parseCidr(text),
      (error) => error instanceof DualportError && error.code === 'ADDRESS' && why.test(error.message),
    );
  });
}

/** The prefix that was meant by one with bits set behind it. */
const meant: Readonly<Record<string, string>> = {
  '10.0.0.1/8': '10.0.0.0/8',
  '192.168.1.1/24': '192.168.1.0/24',
  '192.0.2.1/31': '192.0.2.0/31',
  '255.255.255.255/0': '0.0.0.0/0',
  '0.0.0.1/0': '0.0.0.0/0',
  '2001:db8::1/64': '2001:db8::/64',
  '2001:db8:ffff::/33': '2001:db8:8000::/33',
  '::1/0': '::/0',
  '::ffff:10.0.0.1/104': '10.0.0.0/8',
  '::ffff:192.0.2.129/121': '192.0.2.128/25',
};
test('a v4-mapped text shorter than its 96 bits is told what was meant, not a prefix of half the world', () => {
  assert.throws(() => parseCidr('::ffff:10.0.0.0/8'), {
    message:
      '"::ffff:10.0.0.0/8" is not an address prefix: a v4-mapped prefix has a length of 96 or more; write 10.0.0.0/8',
  });
  assert.throws(() => parseCidr('::ffff:0:0/95'), { message: /has a length of 96 or more$/ });
});
for (const [text, prefix] of Object.entries(meant)) {
  test(`${text} is refused, and ${prefix} offered`, () => {
    assert.throws(() => parseCidr(text), {
      code: 'ADDRESS',
      message:
        `"${text}" is not an address prefix: it has bits set behind the prefix; write ${prefix}, or the address ` +
        'alone for one host',
    });
    assert.equal(formatCidr(parseCidr(prefix)), prefix);
  });
}

test('a rule of one spelling holds for every other spelling of the address', () => {
  for (const rule of spelledIpv4) {
    for (const text of [rule, ...(rule.includes(':') ? [`${rule}/128`] : [`${rule}/32`])]) {
      assert.ok(matches([text], ...spelledIpv4).every(Boolean), text);
      assert.ok(!matches([text], ...Object.keys(lookAlikes)).some(Boolean), text);
    }
  }
});

test('a rule of an address that only looks like it holds for that address alone', () => {
  for (const [rule, canonical] of Object.entries(lookAlikes)) {
    assert.ok(!matches([rule], ...spelledIpv4).some(Boolean), rule);
    assert.deepEqual(
      matches([rule], ...Object.keys(lookAlikes)),
      Object.values(lookAlikes).map((other) => other === canonical),
    );
  }
});

const everyIpv6 = [...Object.keys(lookAlikes), '::', '::1', 'fe80::1', '2001:db8::1'];

test('0.0.0.0/0 is every IPv4 address and no other', () => {
  assert.ok(matches(['0.0.0.0/0'], '0.0.0.0', '255.255.255.255', ...spelledIpv4).every(Boolean));
  assert.ok(!matches(['0.0.0.0/0'], ...everyIpv6).some(Boolean));
});

test('::/0 is every IPv6 address and no other', () => {
  assert.ok(matches(['::/0'], ...everyIpv6, 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff').every(Boolean));
  assert.ok(!matches(['::/0'], '0.0.0.0', '255.255.255.255', ...spelledIpv4).some(Boolean));
});

test('::ffff:0:0/96 is every IPv4 address and no other', () => {
  assert.deepEqual(parseCidr('::ffff:0:0/96'), parseCidr('0.0.0.0/0'));
  assert.ok(matches(['::ffff:0:0/96'], '0.0.0.0', '255.255.255.255', ...spelledIpv4).every(Boolean));
  assert.ok(!matches(['::ffff:0:0/96'], ...everyIpv6).some(Boolean));
});

test('an IPv6 prefix around the mapped addresses does not hold for IPv4', () => {
  for (const prefix of ['::/1', '::/64', '::/80', '::/81', '::fffe:0:0/95']) {
    assert.deepEqual(matches([prefix], '::ffff:192.0.2.1', '192.0.2.1'), [false, false], prefix);
  }
  assert.deepEqual(matches(['::/64'], '::fffe:c000:201'), [true]);
});

test('no prefix is nobody, both families whole are everybody', () => {
  assert.ok(!matches([], ...spelledIpv4, ...everyIpv6).some(Boolean));
  assert.ok(matches(['0.0.0.0/0', '::/0'], ...spelledIpv4, ...everyIpv6).every(Boolean));
});

test('a prefix ends at its last address', () => {
  const inside = (text: string) => matches(['10.0.0.0/8', '2001:db8::/33', '192.0.2.4/31'], text)[0];
  const edges: Readonly<Record<string, boolean>> = {
    '9.255.255.255': false,
    '10.0.0.0': true,
    '10.255.255.255': true,
    '11.0.0.0': false,
    '192.0.2.3': false,
    '192.0.2.4': true,
    '192.0.2.5': true,
    '192.0.2.6': false,
    '2001:db7:ffff:ffff:ffff:ffff:ffff:ffff': false,
    '2001:db8::': true,
    '2001:db8:7fff:ffff:ffff:ffff:ffff:ffff': true,
    '2001:db8:8000::': false,
  };
  for (const [text, expected] of Object.entries(edges)) assert.equal(inside(text), expected, text);
});

test('prefixes inside each other and side by side are one', () => {
  const nested = ['10.0.0.0/24', '10.0.0.0/8', '10.255.255.255', '10.9.0.0/16', '10.0.0.0/8', '11.0.0.0/8'];
  for (const prefixes of [nested, nested.toReversed()]) {
    assert.deepEqual(
      matches(
        prefixes,
        '9.255.255.255',
        '10.0.0.1',
        '10.200.0.1',
        '10.255.255.255',
        '11.255.255.255',
        '12.0.0.0',
      ),
      [false, true, true, true, true, false],
    );
  }
});

test('compiling leaves the prefixes as they were, and the answer does not follow the list', () => {
  const list = ['10.0.0.0/9', '10.0.0.0/8'].map(parseCidr);
  const before = list.map(formatCidr);
  const contains = compileCidrs(list);
  assert.deepEqual(list.map(formatCidr), before);
  list.length = 0;
  assert.ok(contains(parseAddress('10.200.0.1')));
});

/** The number a 16-byte address is. */
const value = (address: Address) => BigInt(`0x${Buffer.from(address).toString('hex')}`);

const isMapped = (address: Address) => value(address) >> 32n === 0xffffn;

/** Membership from the definition: the same family, and the same number in front of the prefix length. */
function covers(cidr: Cidr, address: Address): boolean {
  const isIpv4Prefix = cidr.bits >= 96 && isMapped(cidr.address);
  if (isIpv4Prefix !== isMapped(address)) return false;
  const hostBits = BigInt(128 - cidr.bits);
  return value(cidr.address) >> hostBits === value(address) >> hostBits;
}

function zeroed(address: Address, bits: number): Address {
  const hostBits = BigInt(128 - bits);
  const first = (value(address) >> hostBits) << hostBits;
  return Uint8Array.from(Buffer.from(first.toString(16).padStart(32, '0'), 'hex'));
}

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
/** Most bytes from a few values, so that prefixes meet, nest and touch. */
const near = (length: number) =>
  fc
    .array(fc.constantFrom(0, 0, 0x7f, 0x80, 0xff), { minLength: length, maxLength: length })
    .map((values) => Uint8Array.from(values));
const ipv4 = fc.oneof(bytes(4), near(4)).map(fromBytes);
const ipv6 = fc.oneof(
  bytes(16),
  near(16),
  near(2).map((tail) => fromBytes(Uint8Array.of(...new Array(14).fill(0), ...tail))),
);
const address = fc.oneof(ipv4, ipv6);
const ipv4Cidr = fc
  .tuple(ipv4, fc.integer({ min: 96, max: 128 }))
  .map(([address, bits]): Cidr => ({ address: zeroed(address, bits), bits }));
const ipv6Cidr = fc
  .tuple(ipv6, fc.integer({ min: 0, max: 128 }))
  .map(([address, bits]): Cidr => ({ address: zeroed(address, bits), bits }));
const cidr = fc.oneof(ipv4Cidr, ipv6Cidr);

/** The first and last address of a prefix and their neighbours outside, where mistakes live. */
function edges({ address, bits }: Cidr): readonly Address[] {
  const last = value(address) + (1n << BigInt(128 - bits)) - 1n;
  return [value(address) - 1n, value(address), last, last + 1n]
    .filter((number) => number >= 0n && number < 1n << 128n)
    .map((number) => Uint8Array.from(Buffer.from(number.toString(16).padStart(32, '0'), 'hex')));
}

test('any list of prefixes contains what the definition says, and nothing else', () => {
  fc.assert(
    fc.property(fc.array(cidr, { maxLength: 8 }), fc.array(address, { maxLength: 8 }), (cidrs, addresses) => {
      const contains = compileCidrs(cidrs);
      for (const asked of [...addresses, ...cidrs.flatMap(edges)]) {
        const expected = cidrs.some((cidr) => covers(cidr, asked));
        assert.equal(
          contains(asked),
          expected,
          `${formatAddress(asked)} in ${cidrs.map(formatCidr).join(' ')}`,
        );
      }
    }),
    { numRuns: 3000 },
  );
});

test('a prefix is written so that it is read as the same prefix', () => {
  fc.assert(
    fc.property(cidr, (cidr) => assert.deepEqual(parseCidr(formatCidr(cidr)), cidr)),
    { numRuns: 2000 },
  );
});

test('a prefix with any bit set behind it is refused, and what is offered is the prefix without it', () => {
  fc.assert(
    fc.property(address, fc.nat(127), (address, length) => {
      const bits = isIpv4(address) ? 96 + (length % 32) : length;
      const first = zeroed(address, bits);
      fc.pre(Buffer.compare(first, address) !== 0);
      const text = `${formatAddress(address)}/${isIpv4(address) ? bits - 96 : bits}`;
      const offered = formatCidr({ address: first, bits });
      assert.throws(
        () => parseCidr(text),
        (error) => error instanceof DualportError && error.message.includes(`; write ${offered}, or`),
      );
    }),
  );
});

function intersection(a: readonly string[], b: readonly string[]): readonly string[] {
  return intersectCidrs(a.map(parseCidr), b.map(parseCidr)).map(formatCidr).sort();
}

test('what two sets have in common are the narrower of prefixes that nest', () => {
  assert.deepEqual(intersection(['10.0.0.0/8'], ['10.1.0.0/16', '11.0.0.0/8']), ['10.1.0.0/16']);
  assert.deepEqual(intersection(['10.1.2.3', '192.0.2.0/24'], ['10.1.0.0/16', '0.0.0.0/0']), [
    '10.1.2.3/32',
    '192.0.2.0/24',
  ]);
  assert.deepEqual(intersection(['10.0.0.0/8', '10.0.0.0/8'], ['10.0.0.0/8']), ['10.0.0.0/8']);
  assert.deepEqual(intersection(['10.0.0.0/8'], ['11.0.0.0/8']), []);
  assert.deepEqual(intersection([], ['0.0.0.0/0']), []);
  assert.deepEqual(intersection(['::/0', '2001:db8::/32'], ['2001:db8:1::/48', 'fd00::1']), [
    '2001:db8:1::/48',
    'fd00::1/128',
  ]);
});

test('all of IPv6 has nothing in common with IPv4, however it is spelled', () => {
  assert.deepEqual(intersection(['::/0'], ['10.0.0.0/8', '::ffff:0:0/96']), []);
  assert.deepEqual(intersection(['0.0.0.0/0'], ['::/96', 'fd00::/8']), []);
});

test('an address is in the intersection exactly when it is in both', () => {
  const few = fc.array(cidr, { maxLength: 6 });
  fc.assert(
    fc.property(few, few, address, (a, b, outside) => {
      const both = compileCidrs(intersectCidrs(a, b));
      const [inA, inB] = [compileCidrs(a), compileCidrs(b)];
      for (const asked of [outside, ...a.map((one) => one.address), ...b.map((one) => one.address)]) {
        assert.equal(both(asked), inA(asked) && inB(asked));
      }
    }),
    { numRuns: 2000 },
  );
});

/** Prefixes that do not touch, so that none merge: every second /32 or /64 from a start. */
function scattered(count: number): readonly Cidr[] {
  return Array.from({ length: count }, (_, i) => {
    const [a, b, c] = [(i >> 15) & 0xff, (i >> 7) & 0xff, (i << 1) & 0xff];
    if (i % 2 === 0) return { address: fromBytes(Uint8Array.of(10, a, b, c)), bits: 128 };
    return { address: Uint8Array.of(0x20, 1, 0, 0, 0, a, b, c, 0, 0, 0, 0, 0, 0, 0, 0), bits: 64 };
  });
}

/** The best of five runs, in milliseconds: what else the machine does only ever adds. */
function bestOf5(run: () => void): number {
  return Math.min(
    ...Array.from({ length: 5 }, () => {
      const started = performance.now();
      run();
      return performance.now() - started;
    }),
  );
}

test('a hundred times as many prefixes do not take ten times as long to ask', () => {
  const lists = [500, 50_000].map((count) => {
    const cidrs = scattered(count);
    const started = performance.now();
    const contains = compileCidrs(cidrs);
    assert.ok(performance.now() - started < 5000, 'compiling takes seconds');
    for (const { address } of cidrs.slice(0, 500)) assert.ok(contains(address));
    return { contains, asked: [...cidrs.slice(0, 250), ...cidrs.slice(-250)].map(({ address }) => address) };
  });
  const times = lists.map(({ contains, asked }) =>
    bestOf5(() => {
      for (let round = 0; round < 40; round++) for (const address of asked) contains(address);
    }),
  );
  assert.ok((times[1] ?? 0) < 10 * (times[0] ?? 0), `${times.join(' ms, then ')} ms`);
});
