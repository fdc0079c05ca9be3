/**
 * IPv4 datagrams with any source address and port, as only a raw socket can send them. Perl, because every
 * Debian has it and Node has no raw sockets; needs root.
 */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import type { Endpoint } from '../../src/net/address.ts';
import { ipv4Octets } from '../../src/net/address.ts';

// The kernel fills in the IPv4 length, identifier and checksum; a UDP checksum of 0 means there is none.
const program = `
use Socket;
socket(my $raw, PF_INET, SOCK_RAW, 255) or die "socket: $!";
while (<STDIN>) {
  my ($packet, $address) = map { pack 'H*', $_ } split;
  send($raw, $packet, 0, pack_sockaddr_in(0, $address)) or die "send: $!";
}`;

export interface RawDatagram {
  readonly from: Endpoint;
  readonly to: Endpoint;
  readonly payload: string;
}

export function sendRawDatagram(from: Endpoint, to: Endpoint, payload: string): Promise<void> {
  return sendRawDatagrams([{ from, to, payload }]);
}

/** In this order, as fast as they can be sent. */
export async function sendRawDatagrams(datagrams: readonly RawDatagram[]): Promise<void> {
  const perl = execFile('perl', ['-e', program]);
  const failure = once(perl, 'close').then(([code]) => {
    if (code !== 0) throw new Error(`perl ended with ${code}`);
  });
  perl.stdin?.end(datagrams.map(packet).join(''));
  await failure;
}

/** Packet and destination in hex, a line. */
function packet({ from, to, payload }: RawDatagram): string {
  const udp = Buffer.alloc(8);
  udp.writeUInt16BE(from.port, 0);
  udp.writeUInt16BE(to.port, 2);
  udp.writeUInt16BE(udp.length + payload.length, 4);
  const ip = Buffer.from([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
  const addresses = [ipv4Octets(from.address), ipv4Octets(to.address)];
  const bytes = Buffer.concat([ip, ...addresses, udp, Buffer.from(payload, 'latin1')]);
  return `${bytes.toString('hex')} ${Buffer.from(ipv4Octets(to.address)).toString('hex')}\n`;
}
