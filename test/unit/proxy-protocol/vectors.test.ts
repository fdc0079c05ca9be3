/** The shared vector file: every header in it whole, cut, split, and with payload behind it. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { formatEndpoint } from '../../../src/net/address.ts';
import { decode } from '../../../src/proxy-protocol/codec.ts';
import type { Decoded, Tlv, Transport } from '../../../src/proxy-protocol/header.ts';
import { readSslTlvs } from '../../../src/proxy-protocol/tlv.ts';
import { fed, hex, summary, verdict } from './summary.ts';

interface Vector {
  readonly id: string;
  readonly desc: string;
  readonly hex: string;
  readonly len: number;
  readonly expect: string;
  readonly opts?: { readonly transport: string };
}

// Compiled tests run from dist/test/unit/proxy-protocol; the fixtures stay in the source tree.
const fixture = new URL('../../../../test/fixtures/proxy-protocol.json', import.meta.url);
const vectors: readonly Vector[] = JSON.parse(readFileSync(fixture, 'utf8'));

const transportOf = (vector: Vector): Transport => (vector.opts?.transport === 'dgram' ? 'udp' : 'tcp');
const bytesOf = (vector: Vector) => Buffer.from(vector.hex, 'hex');
const accepted = vectors.filter(({ expect }) => expect.startsWith('OK'));
const streams = vectors.filter((vector) => transportOf(vector) === 'tcp');

/** A verdict in the words of the vector file. */
function inVectorWords(decoded: Decoded, size: number): string {
  if (decoded.state === 'more') return 'NEED';
  if (decoded.state === 'error') return `ERR ${decoded.error}`;
  const { header, length } = decoded;
  const words = ['OK', parties(decoded.header)];
  if (header.crc32c) words.push('crc');
  for (const tlv of header.tlvs) if (tlv.type !== 3) words.push(`tlv ${tlvWords(tlv)}`);
  if (size > length) words.push(`rest=${size - length}`);
  return words.join(' ');
}

function parties(header: (Decoded & { state: 'done' })['header']): string {
  if (header.unix) return `unix ${header.unix.source}>${header.unix.destination}`;
  if (header.source && header.destination) {
    return [header.source, header.destination].map(formatEndpoint).join('>').replaceAll(/[[\]]/g, '');
  }
  return header.command === 'LOCAL' ? 'real-endpoints' : 'unspec';
}

function tlvWords({ type, value }: Tlv): string {
  if (type !== 0x20) return `0x${type.toString(16)}=${hex(value)}`;
  const inner = readSslTlvs(value)?.map((field) => `0x${field.type.toString(16)}`);
  const verified = Buffer.from(value).readUInt32BE(1);
  return `0x20(${hex(value.subarray(0, 1))},${verified}:${inner?.join()})`;
}

test('the vector file is whole', () => {
  assert.ok(vectors.length >= 59);
  for (const vector of vectors) assert.equal(bytesOf(vector).length, vector.len, vector.id);
});

for (const vector of vectors) {
  test(`${vector.id}: ${vector.desc}`, () => {
    // v4-mapped addresses are IPv4 as soon as they are read.
    const expected = vector.expect.replaceAll(/::ffff:(?=\d+\.)/g, '');
    const bytes = bytesOf(vector);
    assert.equal(inVectorWords(decode(bytes, transportOf(vector)), bytes.length), expected);
  });
}

test('a part of a header is never a header', () => {
  for (const vector of accepted) {
    const bytes = bytesOf(vector);
    const decoded = decode(bytes, transportOf(vector));
    assert.ok(decoded.state === 'done');
    const early = transportOf(vector) === 'tcp' ? 'more' : 'error truncated';
    for (let size = 0; size < decoded.length; size++) {
      assert.equal(verdict(bytes.subarray(0, size), transportOf(vector)), early, `${vector.id} at ${size}`);
    }
  }
});

test('a verdict never changes when more bytes arrive', () => {
  for (const vector of streams) {
    const bytes = bytesOf(vector);
    const whole = verdict(bytes);
    for (let size = 0; size < bytes.length; size++) {
      const early = verdict(bytes.subarray(0, size));
      assert.ok(early === 'more' || early === whole, `${vector.id} at ${size}: ${early}, then ${whole}`);
    }
  }
});

test('a header arrives in any two pieces, or byte by byte', () => {
  for (const vector of streams) {
    const bytes = bytesOf(vector);
    for (let at = 0; at <= bytes.length; at++) {
      assert.equal(fed([bytes.subarray(0, at), bytes.subarray(at)]), verdict(bytes), `${vector.id} at ${at}`);
    }
    assert.equal(fed([...bytes].map((byte) => Uint8Array.of(byte))), verdict(bytes), vector.id);
  }
});

test('payload behind a header is neither read nor touched', () => {
  const payload = Buffer.alloc(65_536, '\r\nPROXY UNKNOWN\r\n\0');
  for (const vector of accepted) {
    const alone = decode(bytesOf(vector), transportOf(vector));
    assert.ok(alone.state === 'done');
    const bytes = Buffer.concat([bytesOf(vector).subarray(0, alone.length), payload]);
    const before = Buffer.from(bytes);
    const decoded = decode(bytes, transportOf(vector));
    assert.equal(summary(decoded), summary(alone), vector.id);
    assert.deepEqual(bytes, before, vector.id);
    assert.ok(bytes.subarray(alone.length).equals(payload), vector.id);
  }
});

test('a header keeps what it says when the buffer it was read from is used again', () => {
  for (const vector of accepted) {
    const bytes = bytesOf(vector);
    const decoded = decode(bytes, transportOf(vector));
    const before = summary(decoded);
    bytes.fill(0xaa);
    assert.equal(summary(decoded), before, vector.id);
  }
});

test('a header is found in any window of a larger buffer', () => {
  for (const vector of vectors) {
    const bytes = bytesOf(vector);
    const larger = Buffer.concat([Buffer.from('PROXY '), bytes, Buffer.from('\r\n')]);
    const window = new Uint8Array(larger.buffer, larger.byteOffset + 6, bytes.length);
    assert.equal(verdict(window, transportOf(vector)), verdict(bytes, transportOf(vector)), vector.id);
  }
});
