/**
 * May this client come in? Allow and deny lists are compiled once; a flow costs two look-ups.
 *
 * Deny wins. An allow list, once there is one, names everybody who may come. The question is asked of the
 * client, which is the PROXY header's source where a header was accepted.
 */
import type { RefuseReason } from '../flow/flow.ts';
import type { Address } from '../net/address.ts';
import { type Cidr, compileCidrs } from '../net/cidr.ts';

export type Access = (client: Address) => Extract<RefuseReason, 'denied' | 'not-allowed'> | undefined;

export function compileAccess(allow: readonly Cidr[], deny: readonly Cidr[]): Access {
  if (allow.length === 0 && deny.length === 0) return () => undefined;
  const denied = compileCidrs(deny);
  const allowed = allow.length === 0 ? () => true : compileCidrs(allow);
  return (client) => {
    if (denied(client)) return 'denied';
    return allowed(client) ? undefined : 'not-allowed';
  };
}
