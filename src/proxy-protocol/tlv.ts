/**
 * The TLV list behind the addresses of a version 2 header (section 2.2): type in one byte, length in two,
 * value. Unknown types are kept and never an error, as the specification asks of receivers; a list that does
 * not fill its space exactly is one, because then sender and receiver disagree about where payload begins.
 *
 * One table of rules serves reading and writing, so nothing is sent that would be refused. Nothing here acts
 * on a value: NETNS in particular names a namespace and switches nobody into it.
 */
import { type Tlv, tlvType } from './header.ts';

const headBytes = 3;
const crcBytes = 4;

/** One byte of flags and four of the verification result in front of an SSL TLV's own list. */
const sslFixedBytes = 5;

/**
 * Reads a list that fills `bytes` exactly. The values are views of `bytes`, not copies.
 *
 * @returns undefined when it is not a legal list
 */
export function readTlvs(bytes: Uint8Array): readonly Tlv[] | undefined {
  const tlvs = splitTlvs(bytes);
  if (tlvs === undefined || !tlvs.every(isLegal)) return undefined;
  const checksums = tlvs.filter((tlv) => tlv.type === tlvType.crc32c);
  return checksums.length > 1 ? undefined : tlvs;
}

/** The fields inside an SSL TLV's value (version, common name, cipher …); undefined when it is malformed. */
export function readSslTlvs(value: Uint8Array): readonly Tlv[] | undefined {
  return value.length < sslFixedBytes ? undefined : splitTlvs(value.subarray(sslFixedBytes));
}

/**
 * Writes a list.
 *
 * @throws RangeError when a field cannot be written, or a receiver would refuse it
 */
export function writeTlvs(tlvs: readonly Tlv[]): Buffer {
  return Buffer.concat(tlvs.map(writeTlv));
}

/** The field that later takes the checksum, filled with the zeros it is computed over. */
export function emptyChecksum(): Tlv {
  return { type: tlvType.crc32c, value: new Uint8Array(crcBytes) };
}

/** Cuts a list at its lengths; undefined when the last field does not end where the bytes do. */
function splitTlvs(bytes: Uint8Array): readonly Tlv[] | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const tlvs: Tlv[] = [];
  let at = 0;
  while (at < bytes.length) {
    const from = at + headBytes;
    if (from > bytes.length) return undefined;
    const end = from + view.getUint16(at + 1);
    if (end > bytes.length) return undefined;
    tlvs.push({ type: view.getUint8(at), value: bytes.subarray(from, end) });
    at = end;
  }
  return tlvs;
}

function isLegal({ type, value }: Tlv): boolean {
  switch (type) {
    case tlvType.crc32c:
      return value.length === crcBytes;
    // Section 2.2.5.
    case tlvType.uniqueId:
      return value.length <= 128;
    // A host name (RFC 1035, 2.3.4: 255 octets); HAProxy draws the same line.
    case tlvType.authority:
      return value.length <= 255;
    // One level deep and no deeper: a field inside it is opaque, even one that says it is SSL again.
    case tlvType.ssl:
      return readSslTlvs(value) !== undefined;
    default:
      return true;
  }
}

function writeTlv(tlv: Tlv): Buffer {
  const { type, value } = tlv;
  if (!Number.isInteger(type) || type < 0 || type > 0xff || value.length > 0xffff || !isLegal(tlv)) {
    throw new RangeError(`a TLV of type ${type} cannot have these ${value.length} bytes as its value`);
  }
  return Buffer.concat([Uint8Array.of(type, value.length >> 8, value.length & 0xff), value]);
}
