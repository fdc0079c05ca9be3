/** Writing headers: byte for byte what the specification says, and read back as what was meant. */
import assert from 'node:assert/strict';
import { isIPv4 } from 'node:net';
import test from 'node:test';
import fc from 'fast-check';
import { type Endpoint, equalEndpoint, fromBytes, parseAddress } from '../../../src/net/address.ts';
import { decode, encode, encodeLocal, type HeaderSpec } from '../../../src/proxy-protocol/codec.ts';
import { maxV1Bytes, maxV2Bytes } from '../../../src/proxy-protocol/header.ts';
import { handmadeV2, type Party } from './handmade.ts';
import { hex, verdict } from './summary.ts';

const at = (text: string, port: number, zone = ''): Endpoint => ({ address: parseAddress(text), zone, port });
const client4 = at('198.18.77.7', 40_000);
const server4 = at('198.18.10.1', 443);
const client6 = at('2001:db8:77::7', 40_000);
const server6 = at('2001:db8:10::1', 443);

const v1 = (source: Endpoint, destination: Endpoint) =>
  encode({ version: 1, transport: 'tcp', source, destination }).toString('latin1');
const v2 = (extras: Partial<HeaderSpec>) =>
  encode({ version: 2, transport: 'tcp', source: client4, destination: server4, ...extras });

test('version 1 writes TCP4 for two IPv4 addresses', () => {
  assert.equal(v1(client4, server4), 'PROXY TCP4 198.18.77.7 198.18.10.1 40000 443\r\n');
  assert.equal(
    v1(at('0.0.0.0', 0), at('255.255.255.255', 65_535)),
    'PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n',
  );
});

test('version 1 writes TCP6 for two IPv6 addresses, without their zones', () => {
  assert.equal(v1(client6, server6), 'PROXY TCP6 2001:db8:77::7 2001:db8:10::1 40000 443\r\n');
  assert.equal(v1(at('fe80::1', 1, 'eth0'), at('::1', 2)), 'PROXY TCP6 fe80::1 ::1 1 2\r\n');
});

test('version 1 never mixes families in a line: an IPv4 side is v4-mapped', () => {
  assert.equal(v1(client6, server4), 'PROXY TCP6 2001:db8:77::7 ::ffff:198.18.10.1 40000 443\r\n');
  assert.equal(v1(client4, server6), 'PROXY TCP6 ::ffff:198.18.77.7 2001:db8:10::1 40000 443\r\n');
});

test('version 2 writes the headers of the vectors', () => {
  assert.equal(hex(v2({})), '0d0a0d0a000d0a515549540a2111000cc6124d07c6120a019c4001bb');
  assert.equal(
    hex(v2({ source: client6 })),
    '0d0a0d0a000d0a515549540a2121002420010db800770000000000000000000700000000000000000000ffffc6120a019c4001bb',
  );
  assert.equal(
    hex(v2({ crc32c: true })),
    '0d0a0d0a000d0a515549540a21110013c6124d07c6120a019c4001bb03000442c3e488',
  );
  assert.equal(
    hex(v2({ transport: 'udp', source: client6, destination: at('2001:db8:10::1', 443) })),
    '0d0a0d0a000d0a515549540a2122002420010db800770000000000000000000720010db80010000000000000000000019c4001bb',
  );
});

test('LOCAL is the shortest header there is', () => {
  assert.equal(encodeLocal(1, 'tcp').toString(), 'PROXY UNKNOWN\r\n');
  for (const transport of ['tcp', 'udp'] as const) {
    assert.equal(hex(encodeLocal(2, transport)), '0d0a0d0a000d0a515549540a20000000');
    assert.equal(verdict(encodeLocal(2, transport), transport), 'done 16 v2 LOCAL ->-   ');
  }
  assert.equal(verdict(encodeLocal(1, 'tcp')), 'done 15 v1 LOCAL ->-   ');
});

test('what is returned belongs to the caller', () => {
  for (const make of [
    () => v2({}),
    () => encodeLocal(2, 'tcp'),
    () => encodeLocal(1, 'tcp'),
    () => Buffer.from(v1(client4, server4)),
  ]) {
    const before = hex(make());
    make().fill(0);
    assert.equal(hex(make()), before);
  }
});

test('a checksum passed on is replaced, and so is a unique id when there is a new one', () => {
  const stale = { type: 3, value: Buffer.from('deadbeef', 'hex') };
  const old = { type: 5, value: Buffer.from('old') };
  assert.equal(hex(v2({ tlvs: [stale] })), hex(v2({})));
  assert.equal(hex(v2({ tlvs: [stale], crc32c: true })), hex(v2({ crc32c: true })));
  assert.equal(
    hex(v2({ tlvs: [old], uniqueId: Buffer.from('new') })),
    hex(v2({ uniqueId: Buffer.from('new') })),
  );
  assert.match(verdict(v2({ tlvs: [old] })), /5=6f6c64/);
});

test('TLVs may fill a header to the limit and not beyond', () => {
  const filler = (length: number) => ({ type: 0xe0, value: Buffer.alloc(length) });
  assert.equal(v2({ tlvs: [filler(maxV2Bytes - 31)] }).length, maxV2Bytes);
  assert.throws(() => v2({ tlvs: [filler(maxV2Bytes - 30)] }), {
    name: 'RangeError',
    message: /4097 bytes.*4096/,
  });
  assert.throws(() => v2({ tlvs: [filler(maxV2Bytes - 31)], crc32c: true }), RangeError);
});

test('a TLV no receiver would take is not written', () => {
  const refused = (type: number, length: number) =>
    assert.throws(() => v2({ tlvs: [{ type, value: Buffer.alloc(length) }] }), {
      name: 'RangeError',
      message: `a TLV of type ${type} cannot have these ${length} bytes as its value`,
    });
  refused(0x02, 256);
  refused(0x05, 129);
  refused(0x20, 4);
  refused(0xe0, 65_536);
  refused(256, 0);
  refused(-1, 0);
  refused(1.5, 0);
  assert.throws(() => v2({ uniqueId: Buffer.alloc(129) }), RangeError);
});

test('a port out of range is refused, not wrapped', () => {
  for (const port of [-1, 65_536, 1.5, Number.NaN]) {
    for (const version of [1, 2] as const) {
      const wrong = { ...client4, port };
      const spec = { version, transport: 'tcp', source: client4, destination: server4 } as const;
      assert.throws(() => encode({ ...spec, source: wrong }), RangeError);
      assert.throws(() => encode({ ...spec, destination: wrong }), RangeError);
    }
  }
});

test('version 1 refuses what it cannot say', () => {
  const spec = { version: 1, transport: 'tcp', source: client4, destination: server4 } as const;
  assert.throws(() => encode({ ...spec, transport: 'udp' }), { name: 'RangeError', message: /no UDP/ });
  assert.throws(() => encodeLocal(1, 'udp'), { name: 'RangeError', message: /no UDP/ });
  for (const extras of [
    { crc32c: true },
    { uniqueId: Buffer.of(1) },
    { tlvs: [{ type: 4, value: Buffer.of() }] },
  ]) {
    assert.throws(() => encode({ ...spec, ...extras }), { name: 'RangeError', message: /no TLVs/ });
  }
  assert.equal(encode({ ...spec, crc32c: false, uniqueId: undefined, tlvs: [] }).length, 46);
});

const octets = (size: number) => fc.uint8Array({ minLength: size, maxLength: size });
const endpoints: fc.Arbitrary<Endpoint> = fc.record({
  address: fc.oneof(octets(4), octets(16)).map(fromBytes),
  zone: fc.constant(''),
  port: fc.integer({ min: 0, max: 65_535 }),
});
const tlvs = fc.array(
  fc.record({
    type: fc.integer({ min: 0, max: 255 }).filter((type) => type !== 3 && type !== 5 && type !== 0x20),
    value: fc.uint8Array({ maxLength: 255 }),
  }),
  { maxLength: 8 },
);
const specs = fc.record({
  version: fc.constant(2 as const),
  transport: fc.constantFrom('tcp' as const, 'udp' as const),
  source: endpoints,
  destination: endpoints,
  crc32c: fc.boolean(),
  uniqueId: fc.option(fc.uint8Array({ maxLength: 128 }), { nil: undefined }),
  tlvs,
});

/** The same endpoint as the hand-made headers take it. */
function party({ address, port }: Endpoint): Party {
  const mapped = /^0{20}ffff/.test(hex(address));
  const ip = mapped ? [...address.subarray(12)].join('.') : hex(address);
  assert.equal(isIPv4(ip), mapped);
  return { ip, port };
}

const runs = { numRuns: 5_000, seed: 7 };

test('version 2 is byte for byte the hand-made header', () => {
  fc.assert(
    fc.property(specs, (spec) => {
      const fields = spec.uniqueId ? [...spec.tlvs, { type: 5, value: spec.uniqueId }] : spec.tlvs;
      const expected = handmadeV2(
        spec.transport,
        party(spec.source),
        party(spec.destination),
        fields,
        spec.crc32c,
      );
      assert.equal(hex(encode(spec)), hex(expected));
    }),
    runs,
  );
});

test('version 2 is read back as it was meant', () => {
  fc.assert(
    fc.property(specs, (spec) => {
      const bytes = encode(spec);
      const decoded = decode(bytes, spec.transport);
      assert.ok(decoded.state === 'done' && decoded.length === bytes.length);
      const { version, command, source, destination, crc32c } = decoded.header;
      assert.deepEqual([version, command, crc32c], [2, 'PROXY', spec.crc32c]);
      assert.ok(source && equalEndpoint(source, spec.source));
      assert.ok(destination && equalEndpoint(destination, spec.destination));
      const fields = spec.uniqueId ? [...spec.tlvs, { type: 5, value: spec.uniqueId }] : spec.tlvs;
      const read = decoded.header.tlvs.filter(({ type }) => type !== 3);
      assert.deepEqual(
        read.map(({ type, value }) => [type, hex(value)]),
        fields.map(({ type, value }) => [type, hex(value)]),
      );
    }),
    runs,
  );
});

test('version 1 is one short line, read back as it was meant', () => {
  fc.assert(
    fc.property(endpoints, endpoints, (source, destination) => {
      const bytes = encode({ version: 1, transport: 'tcp', source, destination });
      assert.ok(bytes.length <= maxV1Bytes);
      assert.match(
        bytes.toString('latin1'),
        /^PROXY (TCP4 [\d.]+ [\d.]+|TCP6 [\da-f:]+[\d.]* [\da-f:]+[\d.]*) \d+ \d+\r\n$/,
      );
      const decoded = decode(bytes, 'tcp');
      assert.ok(decoded.state === 'done' && decoded.length === bytes.length);
      assert.ok(decoded.header.source && equalEndpoint(decoded.header.source, source));
      assert.ok(decoded.header.destination && equalEndpoint(decoded.header.destination, destination));
    }),
    runs,
  );
});
