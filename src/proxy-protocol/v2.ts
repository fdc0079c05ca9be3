/**
 * PROXY protocol version 2 (section 2.2): 16 fixed bytes, an address block, TLVs.
 *
 *     0                        12        13        14       16
 *     | signature              | ver cmd | fam trn | length | addresses | TLVs |
 *
 * Each fixed byte is judged when it arrives, and a length beyond the limit is refused there, so nothing is
 * collected that will not be accepted. The rest is judged whole: addresses count only when the TLVs behind
 * them are well formed and the checksum, if there is one, is right.
 */
import {
  Command,
  IPv4Address,
  IPv4ProxyAddress,
  IPv6Address,
  IPv6ProxyAddress,
  TransportProtocol,
  UnspecProxyAddress,
  V2ProxyProtocol,
} from 'proxy-protocol-js';
import { type Endpoint, fromBytes, ipv4Octets, isIpv4 } from '../net/address.ts';
import { crc32c } from './crc32c.ts';
import {
  anonymous,
  type Decoded,
  failed,
  type HeaderError,
  maxV2Bytes,
  more,
  type ProxyHeader,
  type Tlv,
  type Transport,
  tlvType,
} from './header.ts';
import { emptyChecksum, readTlvs, writeTlvs } from './tlv.ts';

export const v2Signature: Uint8Array = Uint8Array.of(13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10);

const fixedBytes = 16;
const LOCAL = 0;
const PROXY = 1;
const UNIX = 3;
const DGRAM = 2;

/** What the address block takes, by the family nibble: UNSPEC, INET, INET6, UNIX. */
const blockBytes = [0, 12, 36, 216] as const;

const transportNibble = { tcp: 1, udp: 2 } as const;

/** Reads a header from bytes that begin with {@link v2Signature}, as far as they go. */
export function decodeV2(bytes: Uint8Array, transport: Transport): Decoded {
  const wrong = kindError(bytes[12], bytes[13], transport);
  if (wrong !== undefined) return failed(wrong);
  if (bytes.length < fixedBytes) return more;
  const fixed = readFixed(bytes);
  if (fixed.length > maxV2Bytes) return failed('v2-too-long');
  if (fixed.length < fixedBytes + fixed.block) return failed('v2-short');
  if (bytes.length < fixed.length) return more;
  const header = readHeader(bytes, fixed);
  return typeof header === 'string' ? failed(header) : { state: 'done', header, length: fixed.length };
}

/** What an outgoing header says besides the two addresses. */
export interface Extras {
  readonly tlvs: readonly Tlv[];
  readonly crc32c: boolean;
}

/**
 * Writes a header: INET when both addresses are IPv4, else INET6 with an IPv4 side v4-mapped. The checksum
 * comes last: it covers the whole header, with zeros in its own place (section 2.2.3).
 *
 * @throws RangeError when a TLV is not legal or the header is longer than receivers take
 */
export function encodeV2(
  transport: Transport,
  source: Endpoint,
  destination: Endpoint,
  extras: Extras,
): Buffer {
  const tlvs = writeTlvs(extras.crc32c ? [...extras.tlvs, emptyChecksum()] : extras.tlvs);
  const header = Buffer.concat([plainHeader(transport, source, destination), tlvs]);
  if (header.length > maxV2Bytes) throw tooLong(header.length);
  header.writeUInt16BE(header.length - fixedBytes, 14);
  if (extras.crc32c) header.writeUInt32BE(crc32c(header), header.length - 4);
  return header;
}

/** LOCAL, UNSPEC and nothing behind, the one form of LOCAL that every receiver takes. */
export function encodeV2Local(): Buffer {
  const local = new V2ProxyProtocol(Command.LOCAL, TransportProtocol.UNSPEC, new UnspecProxyAddress());
  return Buffer.from(local.build());
}

/** Judges bytes 12 and 13, either of which may not have arrived. */
function kindError(
  versionCommand: number | undefined,
  familyTransport: number | undefined,
  transport: Transport,
): HeaderError | undefined {
  if (versionCommand === undefined) return undefined;
  if (versionCommand >> 4 !== 2) return 'v2-version';
  const command = versionCommand & 15;
  if (command > PROXY) return 'v2-command';
  // LOCAL: receivers ignore the family, even one that is not defined.
  if (familyTransport === undefined || command === LOCAL) return undefined;
  const nibble = familyTransport & 15;
  if (familyTransport >> 4 > UNIX || nibble > DGRAM) return 'v2-family';
  return nibble === 0 || nibble === transportNibble[transport] ? undefined : 'v2-transport';
}

/** The fixed bytes behind the signature, once they are all there. */
interface Fixed {
  readonly command: 'LOCAL' | 'PROXY';
  readonly family: number;
  /** Bytes of addresses; 0 when the header names nobody: LOCAL, or either nibble UNSPEC. */
  readonly block: number;
  /** The whole header, fixed bytes included. */
  readonly length: number;
}

function readFixed(bytes: Uint8Array): Fixed {
  const view = new DataView(bytes.buffer, bytes.byteOffset, fixedBytes);
  const command = (view.getUint8(12) & 15) === LOCAL ? 'LOCAL' : 'PROXY';
  const family = view.getUint8(13) >> 4;
  const named = command === 'PROXY' && (view.getUint8(13) & 15) !== 0;
  const block = named ? (blockBytes[family] ?? 0) : 0;
  return { command, family, block, length: fixedBytes + view.getUint16(14) };
}

/** Reads a header that is all there. What stands behind the fixed bytes of one that names nobody is skipped. */
function readHeader(bytes: Uint8Array, { command, family, block, length }: Fixed): ProxyHeader | HeaderError {
  if (block === 0) return anonymous(2, command);
  // A copy, so that the TLVs, which are views of it, outlive the caller's buffer.
  const own = new Uint8Array(bytes.subarray(0, length));
  const tlvs = readTlvs(own.subarray(fixedBytes + block));
  if (tlvs === undefined) return 'v2-tlv';
  const checksum = tlvs.find((tlv) => tlv.type === tlvType.crc32c);
  if (checksum !== undefined && !isIntact(own, checksum.value)) return 'v2-crc';
  const addresses = own.subarray(fixedBytes, fixedBytes + block);
  const parties = family === UNIX ? { unix: readUnix(addresses) } : readEndpoints(addresses);
  return { ...anonymous(2, command), ...parties, tlvs, crc32c: checksum !== undefined };
}

/** Compares the checksum with that of the header around it, computed with zeros in its place. */
function isIntact(header: Uint8Array, checksum: Uint8Array): boolean {
  const from = checksum.byteOffset - header.byteOffset;
  const zeroed = Uint8Array.from(header).fill(0, from, from + checksum.length);
  return new DataView(header.buffer, checksum.byteOffset).getUint32(0) === crc32c(zeroed);
}

/** Source and destination address, then source and destination port. */
function readEndpoints(block: Uint8Array): Pick<ProxyHeader, 'source' | 'destination'> {
  const size = block.length / 2 - 2;
  const view = new DataView(block.buffer, block.byteOffset, block.length);
  const endpoint = (index: 0 | 1): Endpoint => ({
    address: fromBytes(block.subarray(index * size, (index + 1) * size)),
    zone: '',
    port: view.getUint16(2 * size + 2 * index),
  });
  return { source: endpoint(0), destination: endpoint(1) };
}

function readUnix(block: Uint8Array): { source: string; destination: string } {
  const size = block.length / 2;
  return { source: unixName(block.subarray(0, size)), destination: unixName(block.subarray(size)) };
}

/** A path, as far as its first NUL; a name that begins with a NUL is abstract and is shown with an `@`. */
function unixName(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString();
  const name = text.startsWith('\0') ? `@${text.slice(1)}` : text;
  const end = name.indexOf('\0');
  return end < 0 ? name : name.slice(0, end);
}

/** The header without TLVs. */
function plainHeader(transport: Transport, source: Endpoint, destination: Endpoint): Uint8Array {
  const ipv4 = isIpv4(source.address) && isIpv4(destination.address);
  const addresses = ipv4 ? ipv4Block(source, destination) : ipv6Block(source, destination);
  const protocol = transport === 'tcp' ? TransportProtocol.STREAM : TransportProtocol.DGRAM;
  return new V2ProxyProtocol(Command.PROXY, protocol, addresses).build();
}

function ipv4Block(source: Endpoint, destination: Endpoint): IPv4ProxyAddress {
  const octets = ({ address }: Endpoint) => IPv4Address.createFrom([...ipv4Octets(address)]);
  return new IPv4ProxyAddress(octets(source), source.port, octets(destination), destination.port);
}

function ipv6Block(source: Endpoint, destination: Endpoint): IPv6ProxyAddress {
  const octets = ({ address }: Endpoint) => IPv6Address.createFrom([...address]);
  return new IPv6ProxyAddress(octets(source), source.port, octets(destination), destination.port);
}

function tooLong(length: number): RangeError {
  return new RangeError(
    `a PROXY header of ${length} bytes is over the limit of ${maxV2Bytes}: send fewer TLVs`,
  );
}
