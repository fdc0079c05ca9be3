import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import test from 'node:test';
import fc from 'fast-check';
import { DualportError } from '../../../src/errors.ts';
import {
  type Address,
  anyIpv4,
  anyIpv6,
  type Endpoint,
  endpointKey,
  endpointOf,
  equalAddress,
  equalEndpoint,
  familyOf,
  formatAddress,
  formatEndpoint,
  formatHost,
  fromBytes,
  fromIpv4,
  ipv4Octets,
  isIpv4,
  isLoopback,
  isUnicast,
  isUnspecified,
  loopbackIpv4,
  loopbackIpv6,
  parseAddress,
  sourceKey,
  tryParseAddress,
  tryParseZoned,
} from '../../../src/net/address.ts';
import { lookAlikes, notAddresses, spelledIpv4 } from './spellings.ts';

const hex = (address: Address | undefined) => address && Buffer.from(address).toString('hex');

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const ipv4Address = bytes(4).map(fromBytes);
const ipv6Address = bytes(16);
/** Bytes that are often 0 or 0xff, so that runs of zeros and mapped prefixes come up. */
const sparseAddress = fc
  .array(fc.constantFrom(0, 0, 0, 0xff, 1), { minLength: 16, maxLength: 16 })
  .map((values) => Uint8Array.from(values));
const anyAddress = fc.oneof(ipv4Address, ipv6Address, sparseAddress);

/** All eight groups in full: a text that needs no rule to be read. */
function expanded(address: Address): string {
  return hex(address)?.match(/.{4}/g)?.join(':') ?? '';
}

for (const text of spelledIpv4) {
  test(`${text} is the IPv4 address 192.0.2.1`, () => {
    const address = parseAddress(text);
    assert.equal(hex(address), '00000000000000000000ffffc0000201');
    assert.equal(familyOf(address), 4);
    assert.equal(formatAddress(address), '192.0.2.1');
    assert.ok(equalAddress(address, fromIpv4(192, 0, 2, 1)));
  });
}

for (const [text, canonical] of Object.entries(lookAlikes)) {
  test(`${text} is an IPv6 address, whatever is inside it`, () => {
    const address = parseAddress(text);
    assert.equal(familyOf(address), 6);
    assert.equal(formatAddress(address), canonical);
    assert.ok(!equalAddress(address, fromIpv4(192, 0, 2, 1)));
  });
}

for (const text of notAddresses) {
  test(`${JSON.stringify(text)} is no address`, () => {
    assert.equal(tryParseAddress(text), undefined);
  });
}

test('what is an address, the system says too', () => {
  const pieces = [
    '::',
    ':',
    '0',
    '00',
    'ffff',
    'FFFF',
    'db8',
    '12345',
    'g',
    '1.2.3.4',
    '255',
    '256',
    '.',
    '01',
  ];
  const text = fc.array(fc.constantFrom(...pieces), { maxLength: 17 }).map((parts) => parts.join(''));
  const grouped = fc
    .array(fc.constantFrom('0', '1', 'ffff', 'FFFF', '0db8', '', '1.2.3.4'), { maxLength: 9 })
    .map((groups) => groups.join(':'));
  fc.assert(
    fc.property(fc.oneof(text, grouped), (text) => {
      assert.equal(tryParseAddress(text) !== undefined, isIP(text) !== 0, text);
    }),
    { numRuns: 20_000 },
  );
});

test('a text of a mebibyte is refused at once', () => {
  const started = performance.now();
  for (const piece of [':', '1:', '0', '1.', '::', '%']) {
    assert.equal(tryParseAddress(piece.repeat(2 ** 20)), undefined);
    assert.equal(tryParseAddress(`:${piece.repeat(2 ** 20)}`), undefined);
  }
  assert.ok(performance.now() - started < 5000);
});

test('what is written is read back as the same 16 bytes', () => {
  fc.assert(
    fc.property(anyAddress, (address) => {
      assert.equal(hex(parseAddress(formatAddress(address))), hex(address));
      assert.equal(hex(parseAddress(expanded(address))), hex(address));
      assert.equal(hex(parseAddress(expanded(address).toUpperCase())), hex(address));
    }),
    { numRuns: 2000 },
  );
});

test('an IPv6 address is written as a URL would have it, an IPv4 address in four parts', () => {
  fc.assert(
    fc.property(anyAddress, (address) => {
      const text = formatAddress(address);
      if (isIpv4(address)) assert.equal(text, [...ipv4Octets(address)].join('.'));
      else assert.equal(`[${text}]`, new URL(`http://[${expanded(address)}]/`).hostname);
    }),
    { numRuns: 2000 },
  );
});

test('two texts of one address are one address, of two addresses two', () => {
  fc.assert(
    fc.property(anyAddress, anyAddress, (a, b) => {
      assert.equal(equalAddress(a, b), formatAddress(a) === formatAddress(b));
      assert.ok(equalAddress(a, parseAddress(expanded(a))));
    }),
  );
});

test('the bytes of a packet are copied, since the packet goes', () => {
  const ipv4 = Uint8Array.of(192, 0, 2, 1);
  const ipv6 = new Uint8Array(16).fill(7);
  const addresses = [fromBytes(ipv4), fromBytes(ipv6)];
  ipv4.fill(0);
  ipv6.fill(0);
  assert.deepEqual(addresses.map(formatAddress), ['192.0.2.1', '707:707:707:707:707:707:707:707']);
});

test('16 bytes of a packet that are v4-mapped are the IPv4 address', () => {
  assert.equal(formatAddress(fromBytes(parseAddress('::ffff:10.0.0.1'))), '10.0.0.1');
});

test('the fixed addresses are what they are called', () => {
  const texts = [anyIpv4, anyIpv6, loopbackIpv4, loopbackIpv6].map(formatAddress);
  assert.deepEqual(texts, ['0.0.0.0', '::', '127.0.0.1', '::1']);
});

test('a text of a user that is no address is refused with two that are', () => {
  assert.throws(
    () => parseAddress('10.0.0\n'),
    new DualportError('ADDRESS', '"10.0.0\\n" is not an IP address, such as 192.0.2.1 or 2001:db8::1'),
  );
});

test('an address may have the zone of an interface behind it', () => {
  assert.deepEqual(tryParseZoned('fe80::1%eth0'), { address: parseAddress('fe80::1'), zone: 'eth0' });
  assert.equal(tryParseZoned('fe80::1%br-0123456789ab')?.zone, 'br-0123456789ab');
  assert.equal(tryParseZoned('fe80::1%eth0.100')?.zone, 'eth0.100');
  assert.deepEqual(tryParseZoned('fe80::1'), { address: parseAddress('fe80::1'), zone: '' });
  assert.deepEqual(tryParseZoned('192.0.2.1'), { address: fromIpv4(192, 0, 2, 1), zone: '' });
});

const notZoned = [
  'fe80::1%',
  'fe80::1%sixteen-letters-',
  'fe80::1%eth0%eth1',
  'fe80::1%a b',
  'fe80::1%a/b',
  'fe80::1%eth0\n',
  '192.0.2.1%eth0',
  '::ffff:192.0.2.1%eth0',
  '%eth0',
  'eth0',
  '',
];
for (const text of notZoned) {
  test(`${JSON.stringify(text)} is no address with a zone`, () => {
    assert.equal(tryParseZoned(text), undefined);
  });
}

test('what a socket reports is an endpoint, whatever the interface is called', () => {
  assert.deepEqual(endpointOf('::ffff:192.0.2.1', 80), endpointOf('192.0.2.1', 80));
  assert.deepEqual(endpointOf('::1', 80), { address: loopbackIpv6, zone: '', port: 80 });
  for (const zone of ['eth0', 'wan+1', 'a@b', 'é', '"', 'sixteen-letters-']) {
    assert.deepEqual(endpointOf(`fe80::1%${zone}`, 1), { address: parseAddress('fe80::1'), zone, port: 1 });
  }
});

test('a socket that reports no address is not believed', () => {
  assert.throws(() => endpointOf('', 80), /the system reported the address ""/);
  assert.throws(() => endpointOf('/run/app.sock', 80), DualportError);
});

/** Whether each address is unspecified, loopback, and one a host can send from. */
const classes: Readonly<
  Record<string, readonly [unspecified: boolean, loopback: boolean, unicast: boolean]>
> = {
  '0.0.0.0': [true, false, false],
  '::': [true, false, false],
  '::ffff:0:0': [true, false, false],
  '0.0.0.1': [false, false, true],
  '127.0.0.1': [false, true, true],
  '127.255.255.255': [false, true, true],
  '::ffff:7f00:1': [false, true, true],
  '126.255.255.255': [false, false, true],
  '128.0.0.0': [false, false, true],
  '::1': [false, true, true],
  '::2': [false, false, true],
  '::127.0.0.1': [false, false, true],
  '223.255.255.255': [false, false, true],
  '224.0.0.0': [false, false, false],
  '239.255.255.255': [false, false, false],
  '::ffff:e000:1': [false, false, false],
  '240.0.0.0': [false, false, true],
  '255.255.255.254': [false, false, true],
  '255.255.255.255': [false, false, false],
  '10.0.0.255': [false, false, true],
  '2001:db8::1': [false, false, true],
  'fe80::1': [false, false, true],
  'feff::1': [false, false, true],
  'ff00::': [false, false, false],
  'ff02::1': [false, false, false],
  'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff': [false, false, false],
  '::ffff:ffff:ffff:ffff': [false, false, true],
};
for (const [text, [unspecified, loopback, unicast]] of Object.entries(classes)) {
  const words = [unspecified && 'unspecified', loopback && 'loopback', unicast ? 'unicast' : 'not unicast'];
  test(`${text} is ${words.filter(Boolean).join(' and ')}`, () => {
    const address = parseAddress(text);
    assert.deepEqual([isUnspecified(address), isLoopback(address), isUnicast(address)], classes[text]);
  });
}

function endpoint(address: string, port: number, zone = ''): Endpoint {
  return { address: parseAddress(address), zone, port };
}

test('an endpoint is written as a user writes it, a host as a socket takes it', () => {
  assert.equal(formatEndpoint(endpoint('192.0.2.1', 80)), '192.0.2.1:80');
  assert.equal(formatEndpoint(endpoint('::ffff:192.0.2.1', 80)), '192.0.2.1:80');
  assert.equal(formatEndpoint(endpoint('2001:DB8:0::1', 0)), '[2001:db8::1]:0');
  assert.equal(formatEndpoint(endpoint('fe80::1', 65535, 'eth0')), '[fe80::1%eth0]:65535');
  assert.equal(formatHost(endpoint('fe80::1', 80, 'eth0')), 'fe80::1%eth0');
  assert.equal(formatHost(endpoint('10.0.0.1', 80)), '10.0.0.1');
});

/** Few enough that equal ones come up. */
const fewEndpoints = fc.record({
  address: fc.constantFrom(...['10.0.0.1', '10.0.0.2', '::', '::1', 'fe80::1'].map(parseAddress)),
  zone: fc.constantFrom('', '1', '11', 'eth0', 'eth1'),
  port: fc.constantFrom(0, 1, 11, 111, 65535),
});

test('endpoints are equal in address, port and zone, and their keys exactly then', () => {
  assert.ok(equalEndpoint(endpoint('::ffff:10.0.0.1', 80), endpoint('10.0.0.1', 80)));
  fc.assert(
    fc.property(fewEndpoints, fewEndpoints, (a, b) => {
      const equal =
        formatAddress(a.address) === formatAddress(b.address) && a.zone === b.zone && a.port === b.port;
      assert.equal(equalEndpoint(a, b), equal);
      assert.equal(endpointKey(a) === endpointKey(b), equal);
    }),
    { numRuns: 2000 },
  );
});

test('keys of endpoints tell every two of 256 bytes apart', () => {
  const keys = Array.from({ length: 256 }, (_, byte) =>
    endpointKey({ address: new Uint8Array(16).fill(byte), zone: '', port: 1 }),
  );
  assert.equal(new Set(keys).size, 256);
});

test('a client is counted by its IPv4 address or its IPv6 /64', () => {
  const key = (text: string) => sourceKey(parseAddress(text));
  assert.equal(key('10.0.0.1'), key('::ffff:a00:1'));
  assert.notEqual(key('10.0.0.1'), key('10.0.0.2'));
  assert.equal(key('2001:db8:0:1::1'), key('2001:db8:0:1:ffff:ffff:ffff:ffff'));
  assert.notEqual(key('2001:db8:0:1::1'), key('2001:db8:0:2::1'));
  assert.notEqual(key('::1'), key('0.0.0.1'));
});

test('a client whose address lies in the middle of a packet is counted the same', () => {
  const packet = new Uint8Array(40).fill(0xee);
  for (const text of ['10.0.0.1', '2001:db8:0:1::1']) {
    packet.set(parseAddress(text), 11);
    assert.equal(sourceKey(packet.subarray(11, 27)), sourceKey(parseAddress(text)));
  }
});
