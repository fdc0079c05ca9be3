/**
 * An address that answers nothing: a stopped program whose backlog is full, so that the kernel drops further
 * SYNs. Needs no privilege and no packet filter.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const program = `
const server = require('node:net').createServer().listen({ port: Number(process.argv[2]), host: process.argv[1], backlog: 1 }, () => {
  process.stdout.write(server.address().port + '\\n');
});`;

export interface SilentServer {
  readonly port: number;
  /** From now on it answers, once the client has asked again. */
  wake(): void;
  /** Its port is free again when the promise resolves. */
  close(): Promise<void>;
}

export async function silentServer(host: string, at = 0): Promise<SilentServer> {
  const child = spawn(process.execPath, ['-e', program, host, String(at)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = await once(child.stdout, 'data');
  const port = Number(String(line));
  child.kill('SIGSTOP');
  const fillers = Array.from({ length: 4 }, () => net.connect({ port, host }).on('error', () => {}));
  await sleep(100);
  return {
    port,
    wake: () => child.kill('SIGCONT'),
    close: async () => {
      for (const filler of fillers) filler.destroy();
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    },
  };
}
