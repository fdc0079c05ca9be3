/**
 * The client of the gate, a process of its own because it runs in the client's network namespace:
 * `node carry.js <address> <port>` sends bytes to an echo server and compares what comes back.
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** Bytes, each way. */
const amount = 16 * 2 ** 20;
const smallAmount = 64;

const [address = '', port = ''] = process.argv.slice(2);

try {
  for (const size of [smallAmount, amount]) await carry(randomBytes(size));
} catch (error) {
  // One line, which the report of a run shows as the reason.
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = 1;
}

async function carry(bytes: Buffer): Promise<void> {
  const socket = connect({ host: address, port: Number(port) });
  const answer = hashOf(socket, bytes.length);
  socket.write(bytes);
  try {
    const [sent, received] = [createHash('sha256').update(bytes).digest('hex'), await answer];
    if (sent !== received) throw new Error(`${bytes.length} bytes came back changed`);
  } finally {
    socket.destroy();
  }
}

async function hashOf(socket: Socket, length: number): Promise<string> {
  const hash = createHash('sha256');
  let left = length;
  socket.on('data', (chunk: Buffer) => {
    left -= chunk.length;
    hash.update(chunk);
    if (left <= 0) socket.emit('all');
  });
  const ended = once(socket, 'end').then(() => {
    throw new Error(`the connection ended, and ${left} of ${length} bytes had not come back`);
  });
  await Promise.race([once(socket, 'all'), ended]);
  return hash.digest('hex');
}
