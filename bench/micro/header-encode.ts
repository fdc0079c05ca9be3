/**
 * With `--source proxy-v1` or `proxy-v2` a header is written once per TCP connection and once per UDP flow, by
 * proxy-protocol-js, which builds it from objects and arrays; our part is the checksum and the TLVs.
 */
import { makeUniqueId } from '../../src/engine/announce.ts';
import { type Endpoint, equalEndpoint, type Family } from '../../src/net/address.ts';
import { decode, encode, type HeaderSpec } from '../../src/proxy-protocol/codec.ts';
import { clients, dialled } from './clients.ts';
import { extras } from './header-decode.ts';
import { nth, type Operation, operation, type Question } from './question.ts';

export const headerEncode: Question = {
  name: 'header-encode',
  sentence: 'What does writing a PROXY header cost?',
  operations: () => [
    written('v1, TCP4', 1, 4, 4),
    written('v1, TCP6', 1, 6, 6),
    written('v1, IPv4 client of an IPv6 address', 1, 4, 6),
    written('v2, INET', 2, 4, 4),
    written('v2, INET6', 2, 6, 6),
    written('v2, INET, CRC32C', 2, 4, 4, { crc32c: true }),
    written('v2, INET, authority + unique id + CRC32C', 2, 4, 4, extras),
    uniqueId(),
  ],
};

function written(
  name: string,
  version: 1 | 2,
  client: Family,
  server: Family,
  more: Partial<HeaderSpec> = {},
): Operation {
  const destination = dialled[server];
  const header = (call: number) =>
    encode({ version, transport: 'tcp', source: nth(clients[client], call), destination, ...more });
  return operation(name, header, (bytes, call) => names(bytes, nth(clients[client], call), destination));
}

function names(bytes: Buffer, client: Endpoint, server: Endpoint): boolean {
  const decoded = decode(bytes, 'tcp');
  if (decoded.state !== 'done' || decoded.length !== bytes.length) return false;
  const { source, destination } = decoded.header;
  return (
    source !== undefined &&
    destination !== undefined &&
    equalEndpoint(source, client) &&
    equalEndpoint(destination, server)
  );
}

/** What `--proxy-unique-id` adds before the header is written. */
function uniqueId(): Operation {
  const announce = {
    version: 2,
    source: dialled[4],
    destination: dialled[4],
    crc32c: false,
    uniqueId: true,
    datagrams: 'every',
  } as const;
  return operation(
    'a unique id',
    () => makeUniqueId(announce),
    (id) => id?.length === 36,
  );
}
