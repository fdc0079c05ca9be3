/**
 * What a PROXY protocol header says, in words both versions share, and the limits a header is held to.
 * "The specification" in this folder is HAProxy's proxy-protocol.txt; its sections are given by number.
 * Everything here is a value: no header keeps a reference to the buffer it was read from.
 */
import type { Endpoint } from '../net/address.ts';

/** What carries the header: a byte stream, or one datagram that holds the whole header. */
export type Transport = 'tcp' | 'udp';

/** A type-length-value field of version 2 (section 2.2); the length is the value's own. */
export interface Tlv {
  readonly type: number;
  readonly value: Uint8Array;
}

/** The TLV types this program reads, writes or holds to a rule; all others are carried as they are. */
export const tlvType = {
  authority: 0x02,
  crc32c: 0x03,
  uniqueId: 0x05,
  ssl: 0x20,
} as const;

export interface ProxyHeader {
  readonly version: 1 | 2;
  /** LOCAL when the sender speaks for itself (a health check) or, in version 1, says UNKNOWN. */
  readonly command: 'LOCAL' | 'PROXY';
  /** The client; undefined when the header names none (LOCAL, UNSPEC, unix): the socket's own peer counts. */
  readonly source: Endpoint | undefined;
  /** What the client dialled; undefined exactly when `source` is. */
  readonly destination: Endpoint | undefined;
  /** The names of a unix socket connection, for people to read; an abstract name begins with `@`. */
  readonly unix: { readonly source: string; readonly destination: string } | undefined;
  /** The TLVs in their order, CRC32C included; none when the header names nobody, its content is skipped. */
  readonly tlvs: readonly Tlv[];
  /** True when the header carried a checksum, and it was right. */
  readonly crc32c: boolean;
}

/** Why bytes are not an acceptable header: a closed set, the same in logs and metrics. */
export type HeaderError =
  // neither signature; in a datagram also a version 1 line, which UDP does not have
  | 'not-proxy'
  // the word behind PROXY is not TCP4, TCP6 or UNKNOWN
  | 'v1-proto'
  // a line feed without its carriage return, or the reverse
  | 'v1-bare-lf'
  // no line end within 107 bytes
  | 'v1-too-long'
  // not four fields with one space between them
  | 'v1-fields'
  // not an address of the announced family
  | 'v1-address'
  // not a number from 0 to 65535 without leading zeros
  | 'v1-port'
  | 'v2-version'
  | 'v2-command'
  // an address family or transport the specification does not define
  | 'v2-family'
  // the announced length does not hold the addresses of the family
  | 'v2-short'
  // a TLV that overruns its parent, stray bytes, or a value of an impossible size
  | 'v2-tlv'
  | 'v2-crc'
  // STREAM in a datagram, or DGRAM in a stream
  | 'v2-transport'
  // longer than maxHeaderBytes
  | 'v2-too-long'
  // a datagram that ends inside its header
  | 'truncated';

export type Decoded =
  /** The header, and how many bytes it takes; the bytes behind them are payload. */
  | { readonly state: 'done'; readonly header: ProxyHeader; readonly length: number }
  /** So far a header, and not yet all of it. */
  | { readonly state: 'more' }
  | { readonly state: 'error'; readonly error: HeaderError };

/** The longest version 1 line with its CRLF (section 2.1). */
export const maxV1Bytes = 107;

/** The longest version 2 header accepted and built: 16 fixed bytes, addresses and TLVs together. */
export const maxV2Bytes = 4096;

/** What a caller that collects a header must be ready to hold: no unfinished header is longer. */
export const maxHeaderBytes = Math.max(maxV1Bytes, maxV2Bytes);

export const more: Decoded = { state: 'more' };

export function failed(error: HeaderError): Decoded {
  return { state: 'error', error };
}

/** A header that names nobody: the connection's real endpoints count. */
export function anonymous(version: 1 | 2, command: ProxyHeader['command']): ProxyHeader {
  return {
    version,
    command,
    source: undefined,
    destination: undefined,
    unix: undefined,
    tlvs: [],
    crc32c: false,
  };
}

/** True when the bytes so far are the beginning of `wanted`, or begin with it. */
export function agrees(bytes: Uint8Array, wanted: Uint8Array): boolean {
  const known = Math.min(bytes.length, wanted.length);
  for (let i = 0; i < known; i++) if (bytes[i] !== wanted[i]) return false;
  return true;
}
