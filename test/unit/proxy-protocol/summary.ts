/** A verdict in one line of text, so that the decoder and the oracles can be compared whole. */
import { ok } from 'node:assert/strict';
import { decode } from '../../../src/proxy-protocol/codec.ts';
import type { Decoded, Transport } from '../../../src/proxy-protocol/header.ts';

export const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** `more`, `error CODE`, or all that a finished header says. */
export function summary(decoded: Decoded): string {
  if (decoded.state === 'more') return 'more';
  if (decoded.state === 'error') return `error ${decoded.error}`;
  const { version, command, source, destination, unix, tlvs, crc32c } = decoded.header;
  const parties = [source, destination].map((party) => (party ? `${hex(party.address)}:${party.port}` : '-'));
  ok((source === undefined) === (destination === undefined) && !source?.zone && !destination?.zone);
  const fields = tlvs.map(({ type, value }) => `${type}=${hex(value)}`);
  return [
    `done ${decoded.length} v${version} ${command} ${parties.join('>')}`,
    unix ? `unix ${unix.source}>${unix.destination}` : '',
    fields.join(','),
    crc32c ? 'crc' : '',
  ].join(' ');
}

export function verdict(bytes: Uint8Array, transport: Transport = 'tcp'): string {
  return summary(decode(bytes, transport));
}

/** Feeds pieces as a socket would hand them over, until there is a verdict. */
export function fed(pieces: readonly Uint8Array[]): string {
  let bytes = Buffer.alloc(0);
  for (const piece of pieces) {
    bytes = Buffer.concat([bytes, piece]);
    const now = verdict(bytes);
    if (now !== 'more') return now;
  }
  return 'more';
}
