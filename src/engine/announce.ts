/**
 * The PROXY header of one flow as bytes. It is made once per flow; a UDP engine may put the same bytes in
 * front of many datagrams.
 */
import { randomUUID } from 'node:crypto';
import type { Announcement, Protocol } from '../flow/flow.ts';
import { encode } from '../proxy-protocol/codec.ts';

/** The header's bytes, or undefined when the upstream is not told who the client is. */
export function headerBytes(announce: Announcement | undefined, protocol: Protocol): Buffer | undefined {
  if (announce === undefined) return undefined;
  const { version, source, destination } = announce;
  // The text form of version 1 has no room for more than the addresses.
  if (version === 1) return encode({ version, transport: protocol, source, destination });
  const uniqueId = announce.uniqueId ? Buffer.from(randomUUID()) : undefined;
  return encode({ version, transport: protocol, source, destination, crc32c: announce.crc32c, uniqueId });
}
