/**
 * Two things about the end of a TCP connection that node:net does not say by itself.
 */
import { readSync } from 'node:fs';
import type { Socket } from 'node:net';

const oneByte = Buffer.alloc(1);

/**
 * Ends a connection with RST, so that the peer cannot take what it has for the whole.
 *
 * When the end of our data was handed to the kernel a moment ago and its FIN is not confirmed to Node yet,
 * libuv refuses the reset (EINVAL) and Node would lose the descriptor; the direction is complete then, and a
 * plain close says the same.
 */
export function reset(socket: Socket): void {
  if (socket.destroyed) return;
  if (socket.connecting || (socket.writableEnded && !socket.writableFinished)) socket.destroy();
  else socket.resetAndDestroy();
}

/**
 * Was this 'end' a FIN? libuv up to 1.51 (Node 20 and 22) reports a reset that follows a partial read as a
 * clean end; the kernel still knows, and one read on the descriptor asks it: 0 is a FIN, ECONNRESET is not.
 * Must be called while the 'end' event is being handled. Without a descriptor (Windows) Node is believed.
 */
export function endedCleanly(socket: Socket): boolean {
  const fd = descriptorOf(socket);
  if (fd === undefined) return true;
  try {
    return readSync(fd, oneByte) === 0;
  } catch {
    return false;
  }
}

function descriptorOf(socket: Socket): number | undefined {
  const handle = '_handle' in socket ? socket._handle : undefined;
  if (typeof handle !== 'object' || handle === null || !('fd' in handle)) return undefined;
  return typeof handle.fd === 'number' && handle.fd >= 0 ? handle.fd : undefined;
}
