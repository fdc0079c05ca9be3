import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { formatPortSpec, type PublishedPort, parsePortSpec as parse } from '../../../src/config/port-spec.ts';
import { DualportError } from '../../../src/errors.ts';
import { fromBytes, isIpv4, isLinkLocal, isUnicast, isUnspecified } from '../../../src/net/address.ts';

/** What a text publishes, each port in canonical text. */
function ports(text: string): readonly string[] {
  return parse(text).map(formatPortSpec);
}

/** The published ports of Docker's own vectors, and ours, by text. */
const accepted: Record<string, readonly string[]> = {
  '80': ['80/tcp'],
  '80/': ['80/tcp'],
  '3000-3005': ['3000/tcp', '3001/tcp', '3002/tcp', '3003/tcp', '3004/tcp', '3005/tcp'],
  '8000-9000:80': ['8000-9000:80/tcp'],
  '9090-9091:8080-8081': ['9090:8080/tcp', '9091:8081/tcp'],
  '127.0.0.1::80': ['127.0.0.1::80/tcp'],
  '192.168.1.100::6000/udp': ['192.168.1.100::6000/udp'],
  '::1:6000:6000': ['[::1]:6000:6000/tcp'],
  ':::5000:5000': ['[::]:5000:5000/tcp'],
  '::::80': ['[::]::80/tcp'],
  '::6000': ['6000/tcp'],
  ':6000': ['6000/tcp'],
  ':8080:6000/tcp': ['8080:6000/tcp'],
  '[::]:80:80/UDP': ['[::]:80:80/udp'],
  '[::]::80': ['[::]::80/tcp'],
  '[2001:4860:0:2001::68]::333': ['[2001:4860:0:2001::68]::333/tcp'],
  '2001:4860:0:2001::68::333': ['[2001:4860:0:2001::68]::333/tcp'],
  '[::1]:80:80': ['[::1]:80:80/tcp'],
  '[1.2.3.4]:80:80': ['1.2.3.4:80:80/tcp'],
  '[]:80:80': ['80:80/tcp'],
  '::ffff:10.0.0.1:80:80': ['10.0.0.1:80:80/tcp'],
  '08080:80': ['8080:80/tcp'],
  '80-80:0080-80': ['80:80/tcp'],
  '0.0.0.0:1234-1235:3333-3334/tcp': ['0.0.0.0:1234:3333/tcp', '0.0.0.0:1235:3334/tcp'],
  '1234-1236:1234-1236/udp': ['1234:1234/udp', '1235:1235/udp', '1236:1236/udp'],
  '65535:65535': ['65535:65535/tcp'],
  '0:80': ['80/tcp'],
  '0-0:80': ['80/tcp'],
  '[fe80::1%eth0]:80:80': ['[fe80::1%eth0]:80:80/tcp'],
  '[fe80::1%eth0]::53/udp': ['[fe80::1%eth0]::53/udp'],
};

for (const [text, expected] of Object.entries(accepted)) {
  test(`${text} publishes ${expected.length} port${expected.length === 1 ? '' : 's'} as Docker would`, () => {
    assert.deepEqual(ports(text), expected);
  });
}

test('an empty address is both families and an empty host port is chosen by the kernel', () => {
  assert.deepEqual(parse('80'), [
    { host: undefined, hostPorts: undefined, containerPort: 80, protocol: 'tcp' },
  ]);
});

test('a range for one container port stays one port with a choice', () => {
  assert.deepEqual(parse('8000-9000:80')[0]?.hostPorts, { first: 8000, last: 9000 });
});

test('a zone is kept beside the address', () => {
  assert.equal(parse('[fe80::1%eth0]:80:80')[0]?.host?.zone, 'eth0');
});

test('the largest range has a port for each number', () => {
  const all = parse('1-65535:1-65535/udp');
  assert.equal(all.length, 65535);
  assert.equal(all.map(formatPortSpec).at(-1), '65535:65535/udp');
});

/** What is refused, with the words that say why. */
const refused: Record<string, RegExp> = {
  '9090-9092:8080-8081': /3 host ports for 2 container ports/,
  '8080:80-81': /1 host ports for 2 container ports/,
  'localhost:80:80': /"localhost" is not an IP address.*127\.0\.0\.1 or \[::1\]/,
  '0.0.0.0:1234-1235:': /container port is missing/,
  ':80:': /container port is missing/,
  '': /container port is missing/,
  '/tcp': /container port is missing/,
  '65536:80': /host port "65536" is not a number from 0 to 65535/,
  '80:65536': /container port "65536"/,
  '192.168.1.100:-1:-1': /container port "-1"/,
  '192.168.1.100': /container port "192.168.1.100"/,
  '80:asdf': /container port "asdf"/,
  '80:1asdf': /container port "1asdf"/,
  '8000-': /container port "8000-"/,
  '-9000': /container port "-9000"/,
  '-': /container port "-"/,
  '80-90-100': /container port "80-90-100"/,
  '+80': /container port "\+80"/,
  ' 80': /container port " 80"/,
  '0x50': /container port "0x50"/,
  '9000-8000': /ends before it starts; write 8000-9000/,
  '80/sctp': /SCTP is not supported: dualport relays tcp and udp/,
  '80/icmp': /protocol "icmp" is not known; write \/tcp or \/udp/,
  '80/tcp/udp': /protocol "tcp\/udp"/,
  '80:80:80:80': /"80:80" is not an IP address/,
  '[::1:80:80': /"\[::1" is not an IP address/,
  '[::1]x:80:80': /"\[::1\]x" is not an IP address/,
  '[[::1]]:80:80': /is not an IP address/,
  '256.0.0.1:80:80': /is not an IP address/,
  '010.0.0.1:80:80': /is not an IP address/,
  'fe80::1%eth0:80:80': /in brackets, \[fe80::1%eth0\]/,
  '[fe80::1]:80:80': /needs its interface, as in \[fe80::1%eth0\]/,
  '[ff02::1]:80:80': /multicast or broadcast/,
  '224.0.0.5:80:80/udp': /multicast or broadcast/,
  '255.255.255.255:80:80': /multicast or broadcast/,
  '[2001:db8::1%eth0]:80:80': /only a link-local address/,
  '[fec0::1%eth0]:80:80': /only a link-local address/,
  '[127.0.0.1%lo]:80:80': /is not an IP address/,
  '80:0': /container port 0 cannot be connected to/,
  '0-5': /container port 0/,
  '0-5:80': /range of host ports starts at 1/,
};

for (const [text, why] of Object.entries(refused)) {
  test(`${JSON.stringify(text)} is refused: ${why.source}`, () => {
    assert.throws(
      () => parse(text),
      (error) => {
        assert.ok(error instanceof DualportError);
        assert.equal(error.code, 'PORT_SPEC');
        assert.match(error.message, why);
        assert.ok(error.message.startsWith(`${JSON.stringify(text)} is not a port to publish: `));
        return true;
      },
    );
  });
}

const port = fc.integer({ min: 1, max: 65535 });
const address = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }),
  fc.uint8Array({ minLength: 16, maxLength: 16 }),
);
const plainHost = address
  .map((bytes) => ({ address: fromBytes(bytes), zone: '' }))
  .filter(({ address }) => (isUnicast(address) || isUnspecified(address)) && !isLinkLocal(address));
const linkLocalHost = fc
  .record({ tail: fc.uint8Array({ minLength: 8, maxLength: 8 }), zone: fc.stringMatching(/^[\w.-]{1,15}$/) })
  .map(({ tail, zone }) => ({
    address: fromBytes(Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, ...tail)),
    zone,
  }));
const hostPorts = fc.tuple(port, port).map(([a, b]) => ({ first: Math.min(a, b), last: Math.max(a, b) }));
const publishedPort: fc.Arbitrary<PublishedPort> = fc.record(
  {
    host: fc.option(fc.oneof(plainHost, linkLocalHost), { nil: undefined }),
    hostPorts: fc.option(hostPorts, { nil: undefined }),
    containerPort: port,
    protocol: fc.constantFrom('tcp' as const, 'udp' as const),
  },
  { noNullPrototype: true },
);

test('every value is read back from its text as the same value', () => {
  fc.assert(fc.property(publishedPort, (value) => assert.deepEqual(parse(formatPortSpec(value)), [value])));
});

test('any text gives ports or a PORT_SPEC error, and what it gives survives its own text', () => {
  const pieces = fc.constantFrom(
    '80',
    '0',
    '-',
    ':',
    '::1',
    '[',
    ']',
    '/',
    'udp',
    '%eth0',
    '1.2.3.4',
    '99999',
  );
  const nearMiss = fc.array(pieces, { maxLength: 9 }).map((parts) => parts.join(''));
  fc.assert(
    fc.property(fc.oneof(nearMiss, fc.string()), (text) => {
      try {
        for (const value of parse(text)) assert.deepEqual(parse(formatPortSpec(value)), [value]);
      } catch (error) {
        assert.ok(error instanceof DualportError && error.code === 'PORT_SPEC', String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test('an IPv4 address written as IPv6 is the IPv4 address', () => {
  const host = parse('[::ffff:192.0.2.1]:80:80')[0]?.host;
  assert.ok(host !== undefined && isIpv4(host.address));
});
