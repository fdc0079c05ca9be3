/**
 * PROXY protocol version 1 (section 2.1): one line of text, `PROXY TCP4 source destination port port` CRLF.
 *
 * Reading is strict where receivers in the field are not. Some take `198.18.7` or `010` as addresses of
 * their own making, so a text that could mean two things is refused, and only its 16-byte meaning goes on.
 * Every byte that cannot belong to a line is refused when it arrives; a whole address is judged when the
 * byte behind it arrives. The text read never exceeds 106 bytes, whatever was sent.
 */
import { INETProtocol, Peer, V1BinaryProxyProtocol } from 'proxy-protocol-js';
import { type Address, type Endpoint, formatAddress, isIpv4, tryParseAddress } from '../net/address.ts';
import {
  agrees,
  anonymous,
  type Decoded,
  failed,
  type HeaderError,
  maxV1Bytes,
  more,
  type ProxyHeader,
} from './header.ts';

const CR = 0x0d;
const LF = 0x0a;
const SP = 0x20;

export const v1Signature: Uint8Array = Buffer.from('PROXY ');

/** How a line of TCP4 or TCP6 begins, and what tells its addresses from all others. */
interface Family {
  readonly start: Uint8Array;
  /** The beginning of an address: its letters, and no more of them than the longest spelling has. */
  readonly partial: RegExp;
  /** What every whole address contains: TCP6 with a bare IPv4 address is no TCP6 line. */
  readonly separator: string;
}

/** The longest spellings: four octets of three digits; six groups and an IPv4 tail (RFC 4291, 2.2). */
const families: readonly Family[] = [
  { start: Buffer.from('PROXY TCP4 '), partial: /^[\d.]{0,15}$/, separator: '.' },
  { start: Buffer.from('PROXY TCP6 '), partial: /^[\da-fA-F:.]{0,45}$/, separator: ':' },
];

const unknown: Uint8Array = Buffer.from('PROXY UNKNOWN');

/** Reads a header from bytes that begin with {@link v1Signature}, as far as they go. */
export function decodeV1(bytes: Uint8Array): Decoded {
  const line = lineOf(bytes);
  const family = families.find(({ start }) => agrees(bytes, start));
  if (family !== undefined) return decodeTcp(bytes, line, family);
  return agrees(bytes, unknown) ? decodeUnknown(bytes, line) : failed('v1-proto');
}

/**
 * Writes a header: TCP4 when both addresses are IPv4, else TCP6 with an IPv4 side as `::ffff:a.b.c.d`, the
 * form `inet_ntop` writers use. Zones mean nothing to another host and are left out.
 */
export function encodeV1(source: Endpoint, destination: Endpoint): Buffer {
  const tcp4 = isIpv4(source.address) && isIpv4(destination.address);
  const peer = ({ address, port }: Endpoint) =>
    new Peer(tcp4 ? formatAddress(address) : ipv6Text(address), port);
  const protocol = tcp4 ? INETProtocol.TCP4 : INETProtocol.TCP6;
  return Buffer.from(new V1BinaryProxyProtocol(protocol, peer(source), peer(destination)).build());
}

export function encodeV1Unknown(): Buffer {
  return Buffer.from('PROXY UNKNOWN\r\n');
}

function ipv6Text(address: Address): string {
  return isIpv4(address) ? `::ffff:${formatAddress(address)}` : formatAddress(address);
}

/** The text up to the first CR or LF, or as far as a CR could still stand, and which of them ended it. */
interface Line {
  readonly text: Uint8Array;
  readonly end: number | undefined;
}

function lineOf(bytes: Uint8Array): Line {
  const window = bytes.subarray(0, maxV1Bytes - 1);
  for (const [i, byte] of window.entries()) {
    if (byte === CR || byte === LF) return { text: window.subarray(0, i), end: byte };
  }
  return { text: window, end: undefined };
}

/** What the line's end makes of a text that is good so far: undefined when it is whole. */
function judgeEnd(bytes: Uint8Array, { text, end }: Line): Decoded | undefined {
  if (end === undefined) return text.length < maxV1Bytes - 1 ? more : failed('v1-too-long');
  const behind = bytes[text.length + 1];
  if (end === LF || (behind !== undefined && behind !== LF)) return failed('v1-bare-lf');
  return behind === LF ? undefined : more;
}

/** UNKNOWN: whatever stands between the word and the CRLF is ignored (section 2.1). */
function decodeUnknown(bytes: Uint8Array, line: Line): Decoded {
  const next = line.text[unknown.length];
  if (next !== undefined && next !== SP) return failed('v1-proto');
  return judgeEnd(bytes, line) ?? done(line, anonymous(1, 'LOCAL'));
}

function decodeTcp(bytes: Uint8Array, line: Line, family: Family): Decoded {
  const fields = readFields(line, family);
  if (typeof fields === 'string') return failed(fields);
  const [source, destination] = fields;
  return judgeEnd(bytes, line) ?? done(line, { ...anonymous(1, 'PROXY'), source, destination });
}

function done({ text }: Line, header: ProxyHeader): Decoded {
  return { state: 'done', header, length: text.length + 2 };
}

/** The endpoints, none yet from a line without its end, or the first error from the left. */
function readFields({ text, end }: Line, family: Family): readonly Endpoint[] | HeaderError {
  const words = Buffer.from(text.subarray(family.start.length)).toString('latin1').split(' ');
  const partial = end === CR ? undefined : words.pop();
  const addresses: Address[] = [];
  const ports: number[] = [];
  for (const word of words) {
    if (word === '' || ports.length === 2) return 'v1-fields';
    if (addresses.length < 2) {
      const address = readAddress(word, family);
      if (address === undefined) return 'v1-address';
      addresses.push(address);
    } else {
      const port = readPort(word);
      if (port === undefined) return 'v1-port';
      ports.push(port);
    }
  }
  if (partial !== undefined) return partialError(words.length, partial, family) ?? [];
  return endpoints(addresses, ports);
}

function endpoints(
  addresses: readonly Address[],
  ports: readonly number[],
): readonly Endpoint[] | HeaderError {
  if (ports.length < 2) return 'v1-fields';
  return addresses.map((address, i) => ({ address, zone: '', port: ports[i] ?? 0 }));
}

function readAddress(word: string, family: Family): Address | undefined {
  if (!family.partial.test(word) || !word.includes(family.separator)) return undefined;
  return tryParseAddress(word);
}

function readPort(word: string): number | undefined {
  return /^(0|[1-9]\d{0,4})$/.test(word) && Number(word) <= 65535 ? Number(word) : undefined;
}

/** What is wrong already with a field whose end has not arrived, by the number of fields in front of it. */
function partialError(before: number, word: string, family: Family): HeaderError | undefined {
  if (before > 3) return 'v1-fields';
  if (before < 2) return family.partial.test(word) ? undefined : 'v1-address';
  // The beginning of a port is a port.
  return word === '' || readPort(word) !== undefined ? undefined : 'v1-port';
}
