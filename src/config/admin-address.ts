/**
 * Where metrics, health and status are served. A port alone means the loopback addresses: only an address
 * that was written out makes this visible to other hosts.
 */
import { type Endpoint, loopbackIpv4, loopbackIpv6, tryParseZoned } from '../net/address.ts';
import { notAllowed } from './place.ts';

/** A unix socket, or the TCP endpoints to listen on. */
export type AdminAddress =
  | { readonly kind: 'path'; readonly path: string }
  | { readonly kind: 'tcp'; readonly endpoints: readonly Endpoint[] };

export const adminForms =
  'a unix socket path that starts with / or ./ (at most 107 bytes), or [host:]port with port 1 to 65535, ' +
  'such as /run/dualport.sock, :9090 (loopback only), 127.0.0.1:9090 or [::1]:9090';

/**
 * Reads a path or an address; `:9090`, `9090` and `localhost:9090` are both loopback addresses.
 *
 * @throws DualportError USAGE
 */
export function parseAdminAddress(text: string): AdminAddress {
  const admin = /^\.?\//.test(text) ? parsePath(text) : parseTcp(text);
  if (admin === undefined) throw notAllowed(text, adminForms);
  return admin;
}

/** sun_path holds 108 bytes with its final NUL (unix(7)). */
function parsePath(path: string): AdminAddress | undefined {
  if (path.includes('\0') || Buffer.byteLength(path) > 107) return undefined;
  return { kind: 'path', path };
}

function parseTcp(text: string): AdminAddress | undefined {
  const match = /^(?:(\[[^\]]*:[^\]]*\]|[^:[\]]*):)?(\d{1,5})$/.exec(text);
  if (match === null) return undefined;
  const [, host = '', portText] = match;
  const port = Number(portText);
  if (port < 1 || port > 65535) return undefined;
  const endpoints = hostEndpoints(host, port);
  return endpoints && { kind: 'tcp', endpoints };
}

function hostEndpoints(host: string, port: number): readonly Endpoint[] | undefined {
  if (host === '' || host.toLowerCase() === 'localhost') {
    return [loopbackIpv4, loopbackIpv6].map((address) => ({ address, zone: '', port }));
  }
  const zoned = tryParseZoned(host.replace(/^\[(.*)\]$/, '$1'));
  return zoned && [{ ...zoned, port }];
}
