/**
 * Both ends of flows that stand still, in a process of their own, so that what this process holds is the
 * engine's: an upstream that writes without end, and clients that never read.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

const program = `
const net = require('node:net');
const block = Buffer.alloc(65536);
const sent = [];
const server = net.createServer((socket) => {
  const index = sent.push(0) - 1;
  const fill = () => {
    do sent[index] += block.length; while (sent[index] < 64 * 1024 * 1024 && socket.write(block));
  };
  socket.on('drain', fill).on('error', () => {});
  fill();
}).listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('data', (line) => {
  const [port, flows] = String(line).split(' ').map(Number);
  for (let i = 0; i < flows; i++) net.connect(port, '127.0.0.1').pause().on('error', () => {});
  setTimeout(() => console.log(sent.length, Math.max(...sent)), 1500);
});`;

export interface StalledPeers {
  readonly upstreamPort: number;
  /** Connects the clients; resolves when everything has come to a stand, with the most one writer has sent. */
  stall(port: number, flows: number): Promise<{ flows: number; mostSent: number }>;
  close(): void;
}

export async function stalledPeers(): Promise<StalledPeers> {
  const child = spawn(process.execPath, ['-e', program], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  const [upstreamPort] = await once(lines, 'line');
  return {
    upstreamPort: Number(upstreamPort),
    async stall(port, flows) {
      child.stdin.write(`${port} ${flows}`);
      const [line] = await once(lines, 'line');
      const [connected = 0, mostSent = 0] = String(line).split(' ').map(Number);
      return { flows: connected, mostSent };
    },
    close: () => child.kill('SIGKILL'),
  };
}
