/**
 * CRC-32C (Castagnoli), the checksum of the PP2_TYPE_CRC32C TLV: the iSCSI one of RFC 3720, appendix B.4,
 * bit-reflected, start value and final XOR all ones. One table lookup per byte is enough: a header is a few
 * dozen bytes.
 */

/** The generator 0x1EDC6F41 with its bits reversed. */
const polynomial = 0x82f63b78;

const table = Uint32Array.from({ length: 256 }, (_, byte) => shifted(byte));

/** The checksum of these bytes, an unsigned 32-bit number. */
export function crc32c(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) crc = (table[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** A byte's remainder: eight steps of the division. */
function shifted(byte: number): number {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? polynomial ^ (crc >>> 1) : crc >>> 1;
  return crc;
}
