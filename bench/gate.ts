/**
 * A subject is timed only after it has shown that it works: 16 MiB of random bytes there and back with the
 * same hash, one small echo, and numbered datagrams whose content is checked. Speed without that is worthless.
 */
import { fileURLToPath } from 'node:url';
import type { GateRecord } from './results.ts';
import type { Task } from './subjects/subject.ts';
import { type Crossing, udpLoad } from './workloads/datagrams.ts';

const carry = fileURLToPath(new URL('carry.js', import.meta.url));

/** Tries one protocol; the subject runs and serves `crossing.ports`. */
export async function gate(crossing: Crossing, task: Task): Promise<GateRecord> {
  const record = { ...task, subject: crossing.subject.name };
  try {
    await (task.protocol === 'tcp' ? carriesBytes(crossing) : carriesDatagrams(crossing));
    return { ...record, outcome: 'passed' };
  } catch (error) {
    return { ...record, outcome: 'failed', reason: (error as Error).message };
  }
}

async function carriesBytes({ processes, world, running, ports }: Crossing): Promise<void> {
  const { address, port } = running.entrance(ports.echo);
  await processes.run(world.client, [process.execPath, carry, address, `${port}`], 15);
}

async function carriesDatagrams(crossing: Crossing): Promise<void> {
  const words = ['--rate', '200', '--seconds', '0.1'];
  const seen = JSON.parse(await udpLoad(crossing, 'rate', 1200, 2, words));
  const { sent, received, corrupt, misrouted, duplicates } = seen;
  if (sent !== received || corrupt + misrouted + duplicates > 0) {
    throw new Error(
      `of ${sent} datagrams ${received} arrived, ${corrupt} changed, ${misrouted} to the wrong flow, ${duplicates} doubled`,
    );
  }
}
