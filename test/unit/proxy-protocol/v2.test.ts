/** Version 2: what counts, what is skipped, and the rules for TLVs. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { formatEndpoint } from '../../../src/net/address.ts';
import { decode } from '../../../src/proxy-protocol/codec.ts';
import { crc32c } from '../../../src/proxy-protocol/crc32c.ts';
import type { ProxyHeader } from '../../../src/proxy-protocol/header.ts';
import { readSslTlvs, readTlvs } from '../../../src/proxy-protocol/tlv.ts';
import { handmadeTlv, handmadeV2, rawV2, slowCrc32c } from './handmade.ts';
import { dice, randomBytes } from './random.ts';
import { hex, verdict } from './summary.ts';

const client = { ip: '198.18.77.7', port: 40_000 };
const server = { ip: '198.18.10.1', port: 443 };

function read(bytes: Uint8Array): ProxyHeader {
  const decoded = decode(bytes, 'tcp');
  assert.ok(decoded.state === 'done', verdict(bytes));
  return decoded.header;
}

/** What becomes of a header whose TLV area is these bytes. */
function withTlvs(...areas: readonly Uint8Array[]): string {
  const block = Buffer.from('c6124d07c6120a019c4001bb', 'hex');
  return verdict(rawV2(0x21, 0x11, Buffer.concat([block, ...areas]))).replace(/ .*>\S+/, '');
}

const tlv = (type: number, length: number) => handmadeTlv({ type, value: Buffer.alloc(length, 0x61) });

test('CRC-32C has the published values', () => {
  // The check value of the polynomial, then RFC 3720 B.4.
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
  assert.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa);
  assert.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43);
  assert.equal(crc32c(Buffer.from(Array.from({ length: 32 }, (_, i) => i))), 0x46dd794e);
  assert.equal(crc32c(Buffer.from(Array.from({ length: 32 }, (_, i) => 31 - i))), 0x113fdb5c);
  assert.equal(crc32c(Buffer.alloc(0)), 0);
});

test('CRC-32C agrees with the division bit by bit', () => {
  const roll = dice(1);
  for (let length = 0; length < 300; length++) {
    const bytes = randomBytes(roll, length);
    assert.equal(crc32c(bytes), slowCrc32c(bytes));
  }
});

test('LOCAL takes its length whatever the family and the content say', () => {
  for (const content of ['', 'ff', '03000400000000', 'c6124d07c6120a019c4001bb']) {
    for (const family of [0x00, 0x11, 0x12, 0x31, 0xff]) {
      const bytes = rawV2(0x20, family, Buffer.from(content, 'hex'));
      assert.equal(verdict(Buffer.concat([bytes, Buffer.from('x')])), `done ${bytes.length} v2 LOCAL ->-   `);
    }
  }
});

test('UNSPEC in either nibble names nobody and its content is skipped', () => {
  for (const family of [0x00, 0x01, 0x10, 0x20, 0x30]) {
    assert.equal(verdict(rawV2(0x21, family, Buffer.from('ff'))), 'done 18 v2 PROXY ->-   ');
  }
  assert.equal(verdict(rawV2(0x21, 0x02, Buffer.from('ff'))), 'error v2-transport');
  assert.equal(verdict(rawV2(0x21, 0x02, Buffer.from('ff')), 'udp'), 'done 18 v2 PROXY ->-   ');
  assert.equal(verdict(rawV2(0x21, 0x01, Buffer.from('ff')), 'udp'), 'error v2-transport');
});

test('a v4-mapped address is the IPv4 address it spells', () => {
  const block = '00000000000000000000ffffc6124d07'.concat('20010db8001000000000000000000001', '9c4001bb');
  const { source, destination } = read(rawV2(0x21, 0x21, Buffer.from(block, 'hex')));
  assert.ok(source && destination);
  assert.deepEqual([source, destination].map(formatEndpoint), ['198.18.77.7:40000', '[2001:db8:10::1]:443']);
});

test('unix names end at their NUL, and abstract ones begin with an @', () => {
  const name = (text: string) => Buffer.concat([Buffer.from(text), Buffer.alloc(108 - text.length)]);
  const unix = (a: string, b: string) => read(rawV2(0x21, 0x31, Buffer.concat([name(a), name(b)]))).unix;
  assert.deepEqual(unix('/run/a', '\0abstract'), { source: '/run/a', destination: '@abstract' });
  assert.deepEqual(unix('x'.repeat(108), '/a\0junk'), { source: 'x'.repeat(108), destination: '/a' });
  assert.equal(verdict(rawV2(0x21, 0x31, Buffer.alloc(215))), 'error v2-short');
});

test('a datagram is judged by itself: cut short it is truncated, never waited for', () => {
  const whole = handmadeV2('udp', client, server, [{ type: 4, value: Buffer.alloc(9) }], true);
  for (let size = 0; size < whole.length; size++) {
    assert.equal(verdict(whole.subarray(0, size), 'udp'), 'error truncated');
  }
  assert.match(
    verdict(Buffer.concat([whole, Buffer.from('x')]), 'udp'),
    new RegExp(`^done ${whole.length} .* crc$`),
  );
  assert.equal(verdict(whole, 'tcp'), 'error v2-transport');
});

test('TLVs of every type and of no length are kept in their order', () => {
  const fields = Array.from({ length: 256 }, (_, type) => ({ type, value: Buffer.alloc(type % 3) }));
  const kept = fields.filter(({ type }) => type !== 3 && type !== 0x20);
  const { tlvs } = read(handmadeV2('tcp', client, server, kept));
  assert.deepEqual(
    tlvs.map(({ type, value }) => `${type} ${hex(value)}`),
    kept.map(({ type, value }) => `${type} ${hex(value)}`),
  );
});

test('a list that does not end with its last field is refused', () => {
  assert.match(withTlvs(tlv(0xe0, 3)), /^done/);
  for (const stray of ['00', '0000', 'e00001', 'e0000261', 'e0ffff', '040000e0']) {
    assert.equal(withTlvs(Buffer.from(stray, 'hex')), 'error v2-tlv', stray);
    assert.equal(withTlvs(tlv(0x04, 2), Buffer.from(stray, 'hex')), 'error v2-tlv', stray);
  }
});

test('the lengths a TLV may have end where the specification says', () => {
  assert.match(withTlvs(tlv(0x05, 128)), /^done/);
  assert.equal(withTlvs(tlv(0x05, 129)), 'error v2-tlv');
  assert.match(withTlvs(tlv(0x02, 255)), /^done/);
  assert.equal(withTlvs(tlv(0x02, 256)), 'error v2-tlv');
  for (const length of [0, 3, 5]) assert.equal(withTlvs(tlv(0x03, length)), 'error v2-tlv');
  assert.equal(withTlvs(tlv(0x03, 4)), 'error v2-crc');
  assert.equal(withTlvs(tlv(0x03, 4), tlv(0x03, 4)), 'error v2-tlv');
});

test('a checksum counts wherever it stands, and may be zero only when it is', () => {
  const block = Buffer.from('c6124d07c6120a019c4001bb', 'hex');
  const bytes = rawV2(0x21, 0x11, Buffer.concat([block, tlv(0x03, 0), Buffer.alloc(4), tlv(0x04, 7)]));
  bytes.writeUInt16BE(4, 29);
  assert.equal(verdict(bytes), 'error v2-crc');
  bytes.writeUInt32BE(slowCrc32c(bytes), 31);
  assert.match(verdict(bytes), / crc$/);
  assert.equal(read(bytes).crc32c, true);
});

test('the fields inside SSL are bound by it', () => {
  const ssl = (...inner: readonly Uint8Array[]) =>
    handmadeTlv({ type: 0x20, value: Buffer.concat([Buffer.from('0100000000', 'hex'), ...inner]) });
  assert.match(withTlvs(ssl()), /^done/);
  assert.match(withTlvs(ssl(tlv(0x21, 7), tlv(0x22, 0)), tlv(0x04, 1)), /^done/);
  for (const stray of ['21', '2100', '210001', '21000261']) {
    assert.equal(withTlvs(ssl(Buffer.from(stray, 'hex')), tlv(0x04, 9)), 'error v2-tlv', stray);
  }
  for (const length of [0, 4]) assert.equal(withTlvs(tlv(0x20, length)), 'error v2-tlv');
});

test('SSL inside SSL is opaque, however deep it claims to go', () => {
  let inner: Buffer = Buffer.alloc(0);
  for (let depth = 0; depth < 500; depth++)
    inner = handmadeTlv({ type: 0x20, value: Buffer.concat([Buffer.alloc(5), inner]) });
  assert.match(withTlvs(inner), /^done/);
  const opaque = handmadeTlv({ type: 0x20, value: Buffer.concat([Buffer.alloc(5), tlv(0x20, 1)]) });
  assert.match(withTlvs(opaque), /^done/);
});

test('SSL fields are read one level deep', () => {
  const value = Buffer.concat([Buffer.from('0100000000', 'hex'), tlv(0x21, 7), tlv(0x22, 0)]);
  assert.deepEqual(
    readSslTlvs(value)?.map((field) => [field.type, field.value.length]),
    [
      [0x21, 7],
      [0x22, 0],
    ],
  );
  assert.equal(readSslTlvs(value.subarray(0, 4)), undefined);
  assert.deepEqual(readTlvs(Buffer.alloc(0)), []);
});
