/**
 * What connections cost that do nothing: each has carried one exchange, then stays. The kernel's part is the
 * whole machine's, both ends included, since nothing tells whose a socket's memory is; `direct` shows what the
 * ends alone take.
 */

import { once } from 'node:events';
import { loadProgram } from '../load/programs.ts';
import { groupMemory, kernelObjects } from '../proc.ts';
import type { Child } from '../processes.ts';
import type { Figures, Measurement, Workload } from './workload.ts';

export const idle: Workload = {
  name: 'idle',
  title: 'Idle connections',
  method:
    'tcp-load: 10 000 connections after one exchange each (500 where each is a process, fewer where the open file limit is below 60 500); growth of the relay (PSS) and of all kernel objects.',
  group: 'memory',
  protocol: 'tcp',
  metrics: [
    { name: 'userKiB', title: 'Memory of the relay', unit: 'KiB/connection', better: 'lower' },
    {
      name: 'kernelKiB',
      title: 'Kernel memory, both ends included',
      unit: 'KiB/connection',
      better: 'lower',
    },
  ],
  expected: () => 3,
  measure,
};

async function measure(measurement: Measurement): Promise<Figures> {
  const { world, processes, running, ports, subject } = measurement;
  const count = Math.min(
    ...[measurement.idle, subject.mostIdle ?? Number.POSITIVE_INFINITY],
    connectionsWithin(processes.openFileLimit),
  );
  const { address, port } = running.entrance(ports.echo);
  const before = memory(measurement);
  const command = [loadProgram('tcp-load'), 'idle', address, `${port}`, '--connections', `${count}`];
  const client = processes.start(world.client, command, { stdin: 'pipe' });
  try {
    const { established } = JSON.parse(await line(client, 1));
    if (established !== count) throw new Error(`only ${established} of ${count} connections came about`);
    const during = memory(measurement);
    client.process.stdin?.end();
    const { alive } = JSON.parse(await line(client, 2));
    if (alive !== count) throw new Error(`only ${alive} of ${count} connections were alive afterwards`);
    return {
      values: {
        userKiB: Math.max(0, during.user - before.user) / 1024 / count,
        kernelKiB: Math.max(0, during.kernel - before.kernel) / 1024 / count,
      },
    };
  } finally {
    await client.end();
  }
}

function memory({ running }: Measurement) {
  return { user: groupMemory(running.processes).pss, kernel: kernelObjects() };
}

/** docker-proxy holds two sockets and two pipes for each; everybody gets what it can hold. */
export function connectionsWithin(openFiles: number): number {
  return Math.floor((openFiles - 500) / 6);
}

/** The n-th line that a program prints. */
async function line(child: Child, n: number): Promise<string> {
  const deadline = AbortSignal.timeout(20_000);
  for (;;) {
    const lines = child.stdout.split('\n');
    if (lines.length > n) return lines[n - 1] ?? '';
    if (!child.alive) throw new Error(child.lastWords);
    await Promise.race([
      once(child.process.stdout ?? child.process, 'data', { signal: deadline }),
      child.ended,
    ]);
  }
}
