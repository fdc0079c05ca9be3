/**
 * IPv4 datagrams with any source address and port, as only a raw socket can send them. Perl, because every
 * Debian has it and Node has no raw sockets; needs root.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Endpoint } from '../../src/net/address.ts';
import { ipv4Octets } from '../../src/net/address.ts';

// The kernel fills in the IPv4 length, identifier and checksum; a UDP checksum of 0 means there is none.
const program = `
use Socket;
my ($packet, $address) = map { pack 'H*', $_ } @ARGV;
socket(my $raw, PF_INET, SOCK_RAW, 255) or die "socket: $!";
send($raw, $packet, 0, pack_sockaddr_in(0, $address)) or die "send: $!";`;

export async function sendRawDatagram(from: Endpoint, to: Endpoint, payload: string): Promise<void> {
  const udp = Buffer.alloc(8);
  udp.writeUInt16BE(from.port, 0);
  udp.writeUInt16BE(to.port, 2);
  udp.writeUInt16BE(udp.length + payload.length, 4);
  const ip = Buffer.from([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
  const addresses = [ipv4Octets(from.address), ipv4Octets(to.address)];
  const packet = Buffer.concat([ip, ...addresses, udp, Buffer.from(payload, 'latin1')]);
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
  await promisify(execFile)('perl', ['-e', program, hex(packet), hex(ipv4Octets(to.address))]);
}
