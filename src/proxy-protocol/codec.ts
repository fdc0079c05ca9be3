/**
 * The PROXY protocol as pure functions: bytes to header, endpoints to bytes. No sockets, no timers, no
 * trust: whether a peer may send a header, and how long it may take, is for the caller to decide before and
 * around these calls.
 *
 * `decode` never consumes and never guesses. It is asked again with all bytes so far whenever more arrive;
 * a verdict other than `more` does not change with the bytes behind it.
 */
import type { Endpoint } from '../net/address.ts';
import { agrees, type Decoded, failed, type Tlv, type Transport, tlvType } from './header.ts';
import { decodeV1, encodeV1, encodeV1Unknown, v1Signature } from './v1.ts';
import { decodeV2, encodeV2, encodeV2Local, v2Signature } from './v2.ts';

/** A header to write. */
export interface HeaderSpec {
  readonly version: 1 | 2;
  readonly transport: Transport;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  /** Version 2: end with a checksum of the header. */
  readonly crc32c?: boolean | undefined;
  /** Version 2: a PP2_TYPE_UNIQUE_ID, at most 128 bytes; replaces one in `tlvs`. */
  readonly uniqueId?: Uint8Array | undefined;
  /** Version 2: fields to pass on. A checksum among them is left out, it was another header's. */
  readonly tlvs?: readonly Tlv[] | undefined;
}

/**
 * Reads the header at the beginning of a stream, or of a datagram.
 *
 * @param bytes all bytes so far; not kept and not written to
 * @returns the header with its length, `more` (TCP only: a datagram is all there is), or what is wrong
 */
export function decode(bytes: Uint8Array, transport: Transport): Decoded {
  if (transport === 'tcp') return decodeStream(bytes);
  const decoded = agrees(bytes, v2Signature) ? decodeV2(bytes, 'udp') : failed('not-proxy');
  return decoded.state === 'more' ? failed('truncated') : decoded;
}

/**
 * Writes the header for a connection or datagram, to be sent in one write in front of all payload.
 * The families follow the addresses: IPv4 when both are, else IPv6 with the IPv4 one v4-mapped.
 *
 * @throws RangeError for what no header can say: a port out of range, TLVs or UDP in version 1, a TLV of an
 * impossible size, or more TLVs than fit into `maxV2Bytes`
 */
export function encode(spec: HeaderSpec): Buffer {
  requirePort(spec.source);
  requirePort(spec.destination);
  const tlvs = ownTlvs(spec);
  const extras = { tlvs, crc32c: spec.crc32c === true };
  if (spec.version === 2) return encodeV2(spec.transport, spec.source, spec.destination, extras);
  requireStream(spec.transport);
  if (tlvs.length > 0 || extras.crc32c) throw new RangeError('a PROXY header of version 1 has no TLVs');
  return encodeV1(spec.source, spec.destination);
}

/** The header of a connection the proxy opens for itself, such as a health check. */
export function encodeLocal(version: 1 | 2, transport: Transport): Buffer {
  if (version === 2) return encodeV2Local();
  requireStream(transport);
  return encodeV1Unknown();
}

function decodeStream(bytes: Uint8Array): Decoded {
  if (agrees(bytes, v2Signature)) return decodeV2(bytes, 'tcp');
  return agrees(bytes, v1Signature) ? decodeV1(bytes) : failed('not-proxy');
}

function ownTlvs({ tlvs = [], uniqueId }: HeaderSpec): readonly Tlv[] {
  const replaced = ({ type }: Tlv) =>
    type === tlvType.crc32c || (type === tlvType.uniqueId && uniqueId !== undefined);
  const kept = tlvs.filter((tlv) => !replaced(tlv));
  return uniqueId === undefined ? kept : [...kept, { type: tlvType.uniqueId, value: uniqueId }];
}

/** The builder would write port 65537 as 1, in silence. */
function requirePort({ port }: Endpoint): void {
  if (Number.isInteger(port) && port >= 0 && port <= 65535) return;
  throw new RangeError(`a PROXY header cannot carry the port ${port}; ports are 0 to 65535`);
}

function requireStream(transport: Transport): void {
  if (transport === 'udp') throw new RangeError('PROXY protocol version 1 has no UDP; use version 2');
}
