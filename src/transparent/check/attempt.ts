/**
 * One attempt to reach an upstream: as this host, or as a client with an address of its own. Over UDP an empty
 * datagram is sent, which does no harm to any program; many do not answer it.
 */
import { createSocket } from 'node:dgram';
import { Socket } from 'node:net';
import { socketFrom } from '../../engine/linux/socket-from.ts';
import { errnoOf } from '../../errors.ts';
import { type Address, formatHost, isIpv4 } from '../../net/address.ts';
import type { Upstream } from '../needs.ts';

export type Outcome =
  /** The program has accepted, or answered. */
  | { readonly kind: 'answered' }
  /** Its host has said that nobody is there: the way is there. */
  | { readonly kind: 'refused' }
  | { readonly kind: 'silent' }
  | { readonly kind: 'failed'; readonly errno: string }
  /** There is no native part, so no socket can have another address. */
  | { readonly kind: 'impossible'; readonly reason: string };

/** An address to have, and whose it is: another host's, or this one's by a route. */
export interface Client {
  readonly address: Address;
  /** Told, so that late answers to an earlier attempt are not taken for answers to this one. */
  readonly port: number;
  readonly kind: 'foreign' | 'local';
}

/** TCP sends a packet again that was not answered within a second; so is the datagram. */
const againMs = 1000;
const waitMs = 1800;

/** @param stop when it is aborted, nobody is waited for any more */
export async function attempt(upstream: Upstream, stop: AbortSignal, client?: Client): Promise<Outcome> {
  const from = client === undefined ? undefined : socketFrom(client, client.kind, upstream.protocol);
  if (from !== undefined && 'missing' in from) return { kind: 'impossible', reason: from.missing };
  if (from !== undefined && 'errno' in from) return { kind: 'failed', errno: from.errno };
  const way = upstream.protocol === 'tcp' ? tryTcp : tryUdp;
  return way(upstream, AbortSignal.any([stop, AbortSignal.timeout(waitMs)]), from?.fd);
}

function tryTcp(upstream: Upstream, end: AbortSignal, fd: number | undefined): Promise<Outcome> {
  const socket = fd === undefined ? new Socket() : new Socket({ fd });
  const outcome = new Promise<Outcome>((resolve) => {
    end.addEventListener('abort', () => resolve({ kind: 'silent' }));
    socket.on('error', (error) => resolve(outcomeOf(error)));
    socket.connect({ host: formatHost(upstream), port: upstream.port }, () => resolve({ kind: 'answered' }));
  });
  return outcome.finally(() => socket.destroy());
}

function tryUdp(upstream: Upstream, end: AbortSignal, fd: number | undefined): Promise<Outcome> {
  const socket = createSocket(isIpv4(upstream.address) ? 'udp4' : 'udp6');
  const send = () => socket.send(Buffer.alloc(0));
  let again: NodeJS.Timeout | undefined;
  const outcome = new Promise<Outcome>((resolve) => {
    end.addEventListener('abort', () => resolve({ kind: 'silent' }));
    socket.on('error', (error) => resolve(outcomeOf(error)));
    socket.on('message', () => resolve({ kind: 'answered' }));
    socket.on('connect', () => {
      send();
      again = setTimeout(send, againMs);
    });
    const connect = () => socket.connect(upstream.port, formatHost(upstream));
    if (fd === undefined) socket.bind(connect);
    else socket.bind({ fd }, connect);
  });
  return outcome.finally(() => {
    clearTimeout(again);
    socket.close();
  });
}

function outcomeOf(error: unknown): Outcome {
  const errno = errnoOf(error) ?? String(error);
  if (errno === 'ECONNREFUSED') return { kind: 'refused' };
  return errno === 'ETIMEDOUT' ? { kind: 'silent' } : { kind: 'failed', errno };
}
