/** Version 1, line by line: which error a line ends in, and how early. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { formatEndpoint } from '../../../src/net/address.ts';
import { decode } from '../../../src/proxy-protocol/codec.ts';
import { maxHeaderBytes, maxV1Bytes } from '../../../src/proxy-protocol/header.ts';
import { verdict } from './summary.ts';

const line = (text: string) => Buffer.from(text, 'latin1');
const ones = 'ffff:ffff:ffff:ffff:ffff:ffff';

function endpoints(text: string): string {
  const decoded = decode(line(text), 'tcp');
  if (decoded.state !== 'done') return verdict(line(text));
  assert.equal(decoded.length, text.length);
  const { command, source, destination } = decoded.header;
  return source && destination ? `${formatEndpoint(source)} ${formatEndpoint(destination)}` : command;
}

const legal: readonly (readonly [string, string])[] = [
  ['PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n', '0.0.0.0:0 255.255.255.255:65535'],
  ['PROXY TCP6 :: ::1 1 2\r\n', '[::]:1 [::1]:2'],
  ['PROXY TCP6 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1 2\r\n', '[1:2:3:4:5:6:7:0]:1 [0:2:3:4:5:6:7:8]:2'],
  ['PROXY TCP6 ::FFFF:198.18.77.7 2001:DB8::A 1 2\r\n', '198.18.77.7:1 [2001:db8::a]:2'],
  ['PROXY TCP6 ::ffff:c612:4d07 64:ff9b::198.18.10.1 1 2\r\n', '198.18.77.7:1 [64:ff9b::c612:a01]:2'],
  [`PROXY TCP6 ${ones}:255.255.255.255 ::1 65535 65535\r\n`, `[${ones}:ffff:ffff]:65535 [::1]:65535`],
  ['PROXY UNKNOWN\r\n', 'LOCAL'],
  ['PROXY UNKNOWN \r\n', 'LOCAL'],
  ['PROXY UNKNOWN \0\xff  anything\r\n', 'LOCAL'],
];

for (const [text, expected] of legal) {
  test(`${JSON.stringify(text)} is read`, () => assert.equal(endpoints(text), expected));
}

const illegal: Readonly<Record<string, readonly string[]>> = {
  'not-proxy': ['proxy TCP4', 'PROXYTCP4', 'PROXY\r\n', ' PROXY', '\r\nPROXY', 'GET / HTTP/1.1\r\n'],
  'v1-proto': [
    'PROXY  TCP4',
    'PROXY \r\n',
    'PROXY TCP\r\n',
    'PROXY TCP5 ',
    'PROXY TCP44 ',
    'PROXY TCP4\r\n',
    'PROXY UDP4 ',
    'PROXY UNKNOWNS',
    'PROXY UNKNOWN\t',
    'PROXY unknown\r\n',
  ],
  'v1-bare-lf': [
    'PROXY UNKNOWN\n',
    'PROXY UNKNOWN\rX',
    'PROXY UNKNOWN\r\r\n',
    'PROXY UNKNOWN a\nb\r\n',
    'PROXY TCP4 1.1.1.1 1.1.1.1 1 2\n',
    'PROXY TCP4 1.1.1.1 1.1.1.1 1 2\r\r\n',
    'PROXY TCP4 1.1.1.1\n',
    'PROXY TCP4 \n',
  ],
  'v1-fields': [
    'PROXY TCP4  1.1.1.1',
    'PROXY TCP4 \r\n',
    'PROXY TCP4 1.1.1.1  ',
    'PROXY TCP4 1.1.1.1\r',
    'PROXY TCP4 1.1.1.1 1.1.1.1\r\n',
    'PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n',
    'PROXY TCP4 1.1.1.1 1.1.1.1 1 \r\n',
    'PROXY TCP4 1.1.1.1 1.1.1.1  1 2\r\n',
    'PROXY TCP4 1.1.1.1 1.1.1.1 1 2 ',
    'PROXY TCP4 1.1.1.1 1.1.1.1 1 2 3\r\n',
  ],
  'v1-address': [
    'PROXY TCP4 1.1.1.256 ',
    'PROXY TCP4 1.1.1.01 ',
    'PROXY TCP4 1.1.1 ',
    'PROXY TCP4 1.1.1.1.1 ',
    'PROXY TCP4 1.1.1. ',
    'PROXY TCP4 16843009 ',
    'PROXY TCP4 0x1.1.1.1',
    'PROXY TCP4 +1.1.1.1',
    'PROXY TCP4 1.1.1.1/8',
    'PROXY TCP4 1111111111111111',
    'PROXY TCP4 ::',
    'PROXY TCP4 ::ffff:1.1.1.1 ',
    'PROXY TCP4 1.1.1.1 ::1 1 2\r\n',
    'PROXY TCP4 \xb9.1.1.1',
    'PROXY TCP4 1.1.1.1\t1.1.1.1',
    'PROXY TCP6 1.1.1.1 ',
    'PROXY TCP6 ::1 1.1.1.1 ',
    'PROXY TCP6 [',
    'PROXY TCP6 fe80::1%',
    'PROXY TCP6 ::1/',
    'PROXY TCP6 :::1 ',
    'PROXY TCP6 1:2:3:4:5:6:7 ',
    'PROXY TCP6 1:2:3:4:5:6:7:8:9 ',
    'PROXY TCP6 1:2:3:4:5:6:7:8:: ',
    'PROXY TCP6 00001:: ',
    'PROXY TCP6 ::ffff:1.2.3 ',
    'PROXY TCP6 ::ffff:1.2.3.04 ',
    'PROXY TCP6 abcdef ',
    'PROXY TCP6 g',
    `PROXY TCP6 ${'f'.repeat(46)}`,
  ],
  'v1-port': [
    'PROXY TCP4 1.1.1.1 1.1.1.1 x',
    'PROXY TCP4 1.1.1.1 1.1.1.1 -',
    'PROXY TCP4 1.1.1.1 1.1.1.1 +1',
    'PROXY TCP4 1.1.1.1 1.1.1.1 00',
    'PROXY TCP4 1.1.1.1 1.1.1.1 01',
    'PROXY TCP4 1.1.1.1 1.1.1.1 0x1',
    'PROXY TCP4 1.1.1.1 1.1.1.1 1e3',
    'PROXY TCP4 1.1.1.1 1.1.1.1 65536',
    'PROXY TCP4 1.1.1.1 1.1.1.1 100000',
    'PROXY TCP4 1.1.1.1 1.1.1.1 1 65536',
    'PROXY TCP4 1.1.1.1 1.1.1.1 1 1.',
    'PROXY TCP4 1.1.1.1 1.1.1.1 1 2\0',
  ],
  'v1-too-long': [
    `PROXY UNKNOWN ${'x'.repeat(92)}`,
    `PROXY UNKNOWN ${'x'.repeat(92)}\r\n`,
    `PROXY UNKNOWN ${'x'.repeat(65_536)}`,
    `PROXY TCP6 ${ones}:255.255.255.255 ${ones}:255.255.255.255 111`,
    `PROXY TCP6 ${ones}:255.255.255.255 ${ones}:255.255.255.255 111\r\n`,
  ],
};

for (const [error, texts] of Object.entries(illegal)) {
  test(`lines that end in ${error}`, () => {
    for (const text of texts)
      assert.equal(verdict(line(text)), `error ${error}`, JSON.stringify(text.slice(0, 120)));
  });
}

test('a line is refused with its first wrong byte, whatever was to follow', () => {
  for (const text of illegal['v1-port'] ?? []) {
    const bytes = line(text);
    const first =
      [...bytes.keys()].find((size) => verdict(bytes.subarray(0, size)) !== 'more') ?? bytes.length;
    assert.equal(verdict(Buffer.concat([bytes.subarray(0, first), line(' 1 1 1\r\n')])), 'error v1-port');
    assert.ok(first >= bytes.length - 2, text);
  }
});

test('a line of 107 bytes is read, and one byte more is not waited for', () => {
  const longest = `PROXY UNKNOWN ${'x'.repeat(91)}\r\n`;
  assert.equal(longest.length, maxV1Bytes);
  assert.equal(endpoints(longest), 'LOCAL');
  assert.equal(verdict(line(longest.slice(0, 105))), 'more');
  assert.equal(verdict(line(longest.slice(0, 106))), 'more');
  assert.equal(verdict(line(`${longest.slice(0, 105)}x`)), 'error v1-too-long');
  assert.ok(maxHeaderBytes >= maxV1Bytes);
});

test('a megabyte without a line end costs no more than its first 107 bytes', () => {
  const flood = Buffer.concat([line('PROXY UNKNOWN '), Buffer.alloc(1 << 20, ' ')]);
  const started = performance.now();
  for (let i = 0; i < 10_000; i++) decode(flood, 'tcp');
  // Reading it all would take seconds.
  assert.ok(performance.now() - started < 1_000);
});

test('version 1 does not exist in datagrams, whole or begun', () => {
  for (const text of ['P', 'PROXY ', 'PROXY UNKNOWN\r\n', 'PROXY TCP4 1.1.1.1 1.1.1.1 1 2\r\nx']) {
    assert.equal(verdict(line(text), 'udp'), 'error not-proxy');
  }
});
