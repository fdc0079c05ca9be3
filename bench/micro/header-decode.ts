/**
 * A rule with `--accept-proxy` reads one header per connection, or one per datagram. The decoder keeps no state:
 * it is asked again with all bytes so far, so what an incomplete header costs is paid for every piece it
 * arrives in. Version 1 is text and goes through the address parser twice, version 2 is bytes.
 */
import { equalEndpoint, type Family } from '../../src/net/address.ts';
import { decode, encode, type HeaderSpec } from '../../src/proxy-protocol/codec.ts';
import { type Decoded, tlvType } from '../../src/proxy-protocol/header.ts';
import { clients, dialled } from './clients.ts';
import { nth, type Operation, operation, type Question } from './question.ts';

/** What HAProxy sends for a TLS connection with `proxy-v2-options authority,unique-id,crc32c`. */
export const extras: Pick<HeaderSpec, 'crc32c' | 'uniqueId' | 'tlvs'> = {
  crc32c: true,
  uniqueId: Buffer.from('b3a7b0f2-52f6-4d7c-9f3d-2b8a0d5f6a11'),
  tlvs: [{ type: tlvType.authority, value: Buffer.from('www.example.org') }],
};

export const headerDecode: Question = {
  name: 'header-decode',
  sentence: 'What does reading a PROXY header cost, whole and one byte short?',
  operations: () => [
    whole('v1, TCP4', 1, 4),
    whole('v1, TCP6', 1, 6),
    whole('v2, INET', 2, 4),
    whole('v2, INET6', 2, 6),
    whole('v2, INET, authority + unique id + CRC32C', 2, 4, extras),
    whole('v2, INET6, authority + unique id + CRC32C', 2, 6, extras),
    short('v1, TCP6, one byte short', 1, 6),
    short('v2, INET6, authority + unique id + CRC32C, one byte short', 2, 6, extras),
    notProxy(),
  ],
};

/** A header for each client. */
export function headers(version: 1 | 2, family: Family, more: Partial<HeaderSpec> = {}): readonly Buffer[] {
  const destination = dialled[family];
  return clients[family].map((source) => encode({ version, transport: 'tcp', source, destination, ...more }));
}

function whole(name: string, version: 1 | 2, family: Family, more: Partial<HeaderSpec> = {}): Operation {
  const received = headers(version, family, more);
  const isRight = (decoded: Decoded, call: number) =>
    decoded.state === 'done' &&
    decoded.length === nth(received, call).length &&
    decoded.header.crc32c === (more.crc32c === true) &&
    decoded.header.source !== undefined &&
    equalEndpoint(decoded.header.source, nth(clients[family], call));
  return operation(name, (call) => decode(nth(received, call), 'tcp'), isRight);
}

function short(name: string, version: 1 | 2, family: Family, more: Partial<HeaderSpec> = {}): Operation {
  const received = headers(version, family, more).map((header) => header.subarray(0, -1));
  return operation(
    name,
    (call) => decode(nth(received, call), 'tcp'),
    ({ state }) => state === 'more',
  );
}

/** Somebody who should have sent one, and speaks HTTP at once. */
function notProxy(): Operation {
  const request = Buffer.from('GET / HTTP/1.1\r\nHost: 192.0.2.80\r\n\r\n');
  return operation(
    'no header but a request',
    () => decode(request, 'tcp'),
    ({ state }) => state === 'error',
  );
}
