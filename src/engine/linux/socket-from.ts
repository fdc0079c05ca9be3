/** A socket with the address of somebody else, for whoever wants to know whether answers to it come back. */
import { getSystemErrorName } from 'node:util';
import type { Endpoint } from '../../net/address.ts';
import { endpointBytes, sourceKind } from './layout.ts';
import { loadNative } from './load.ts';

/** An open descriptor, which is the caller's to close; or why there is none: an errno's name, or a sentence. */
export type SocketFrom = { readonly fd: number } | { readonly errno: string } | { readonly missing: string };

/**
 * Bound to an address without a zone, and not connected.
 *
 * @param kind whether the kernel keeps the address by a route, or it is another host's
 */
export function socketFrom(
  { address, port }: Pick<Endpoint, 'address' | 'port'>,
  kind: 'local' | 'foreign',
  protocol: 'tcp' | 'udp',
): SocketFrom {
  const loaded = loadNative();
  if ('reason' in loaded) return { missing: loaded.reason };
  const at = new Uint8Array(endpointBytes);
  at.set(address);
  new Uint16Array(at.buffer)[10] = port;
  const fd = loaded.native.socketFrom(at, sourceKind[kind], protocol === 'tcp');
  return fd >= 0 ? { fd } : { errno: getSystemErrorName(fd) };
}
