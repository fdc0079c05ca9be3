/**
 * Headers put together by hand from the specification, sharing no code with src/proxy-protocol: what the
 * tests compare the encoder with and feed the decoder. Checksums are computed bit by bit.
 */
import { isIPv4 } from 'node:net';

export interface Party {
  /** IPv4 in dotted text, or 16 bytes of IPv6 in hex. */
  readonly ip: string;
  readonly port: number;
}

export interface HandmadeTlv {
  readonly type: number;
  readonly value: Uint8Array;
}

export const signatureV2 = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');

/** Bytes 12 to 15 and what follows them, whatever they say. */
export function rawV2(
  versionCommand: number,
  familyTransport: number,
  rest: Uint8Array,
  length = rest.length,
): Buffer {
  const fixed = Buffer.from([versionCommand, familyTransport, length >> 8, length & 255]);
  return Buffer.concat([signatureV2, fixed, rest]);
}

/** A PROXY header of version 2 for two addresses, INET exactly when both are dotted. */
export function handmadeV2(
  transport: 'tcp' | 'udp',
  source: Party,
  destination: Party,
  tlvs: readonly HandmadeTlv[] = [],
  checksum = false,
): Buffer {
  const dotted = isIPv4(source.ip) && isIPv4(destination.ip);
  const address = ({ ip }: Party) => (dotted ? Buffer.from(ip.split('.').map(Number)) : wide(ip));
  const port = (party: Party) => Buffer.from([Math.floor(party.port / 256), party.port % 256]);
  const block = [address(source), address(destination), port(source), port(destination)];
  const fields = tlvs.map(handmadeTlv);
  if (checksum) fields.push(Buffer.from('03000400000000', 'hex'));
  const nibbles = (dotted ? 0x10 : 0x20) + (transport === 'tcp' ? 1 : 2);
  const header = rawV2(0x21, nibbles, Buffer.concat([...block, ...fields]));
  if (checksum) header.writeUInt32BE(slowCrc32c(header), header.length - 4);
  return header;
}

export function handmadeTlv({ type, value }: HandmadeTlv): Buffer {
  return Buffer.concat([Buffer.from([type, value.length >> 8, value.length & 255]), value]);
}

/** Sixteen bytes: IPv6 from hex, IPv4 v4-mapped. */
export function wide(ip: string): Buffer {
  if (!isIPv4(ip)) return Buffer.from(ip, 'hex');
  return Buffer.concat([
    Buffer.from('00000000000000000000ffff', 'hex'),
    Buffer.from(ip.split('.').map(Number)),
  ]);
}

/** Division by the polynomial one bit at a time, most significant bit first, on reversed bytes. */
export function slowCrc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc = (crc ^ (reversed(byte, 8) << 24)) >>> 0;
    for (let i = 0; i < 8; i++) crc = ((crc << 1) ^ (crc >>> 31 ? 0x1edc6f41 : 0)) >>> 0;
  }
  return (reversed(crc, 32) ^ 0xffffffff) >>> 0;
}

function reversed(number: number, bits: number): number {
  const digits = number.toString(2).padStart(bits, '0');
  return Number.parseInt([...digits].reverse().join(''), 2);
}
