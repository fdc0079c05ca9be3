/**
 * The PROXY header of one flow as bytes. It is made once per flow; a UDP engine may put the same bytes in
 * front of many datagrams.
 */
import { randomUUID } from 'node:crypto';
import type { Announcement, Protocol } from '../flow/flow.ts';
import { encode } from '../proxy-protocol/codec.ts';

/** An identifier for the header and the log line of one flow, when the header is to have one. */
export function makeUniqueId(announce: Announcement | undefined): string | undefined {
  return announce?.uniqueId === true && announce.version === 2 ? randomUUID() : undefined;
}

/** The header's bytes, or undefined when the upstream is not told who the client is. */
export function headerBytes(
  announce: Announcement | undefined,
  transport: Protocol,
  uniqueId: string | undefined,
): Buffer | undefined {
  if (announce === undefined) return undefined;
  const { version, source, destination, crc32c } = announce;
  // The text form of version 1 has no room for more than the addresses.
  if (version === 1) return encode({ version, transport, source, destination });
  const identifier = uniqueId === undefined ? undefined : Buffer.from(uniqueId);
  return encode({ version, transport, source, destination, crc32c, uniqueId: identifier });
}
