/**
 * What both ends of a UDP flow need from node:dgram.
 */

/** node:dgram queues without bound when the kernel's buffer is full; beyond this, datagrams are dropped. */
export const maxQueuedBytes: number = 1024 * 1024;

/**
 * All addresses are numeric here. Answering the look-up at once makes bind, connect and send take effect in
 * the same turn of the event loop, where node:dgram would otherwise defer every single datagram.
 */
export function numericLookup(
  host: string,
  _family: unknown,
  answer: (error: Error | null, address: string, family: number) => void,
): void {
  answer(null, host, host.includes(':') ? 6 : 4);
}
