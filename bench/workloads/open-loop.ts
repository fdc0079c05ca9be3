/**
 * Latency at a fixed rate, every message timed from the moment it was due (tcp-load open), so that a stall is
 * felt by all that should have been sent during it.
 */
import { loadProgram } from '../load/programs.ts';
import type { Figures, Measurement, Workload } from './workload.ts';

/** A quarter to a third of what the slowest relays reach, so that no queue builds up by design. */
const rate = 5000;
const connections = 16;

export const openLoop: Workload = {
  name: 'open-loop',
  title: `Latency at ${rate} messages of 64 bytes a second`,
  method: `tcp-load, open loop, ${connections} connections: from the moment a message was due to its echo.`,
  group: 'latency',
  protocol: 'tcp',
  metrics: [
    { name: 'p50', title: 'Median latency', unit: 'µs', better: 'lower' },
    { name: 'p99', title: '99 % latency', unit: 'µs', better: 'lower' },
    { name: 'p99_9', title: '99.9 % latency', unit: 'µs', better: 'lower' },
    // With as few processors as programs that want one, the generator waits, too; then it is part of the figure.
    { name: 'late', title: 'Most that the generator was behind its schedule', unit: 'µs', better: 'lower' },
  ],
  expected: (seconds) => seconds + 0.1,
  measure,
};

async function measure({ world, processes, running, ports, seconds }: Measurement): Promise<Figures> {
  const { address, port } = running.entrance(ports.echo);
  const words = ['--connections', `${connections}`, '--rate', `${rate}`, '--seconds', `${seconds}`];
  const command = [loadProgram('tcp-load'), 'open', address, `${port}`, ...words];
  const seen = JSON.parse(await processes.run(world.client, command, seconds + 5));
  if (seen.failed > 0) throw new Error(`${seen.failed} of ${seen.sent} messages were not answered`);
  return {
    values: { p50: seen.p50, p99: seen.p99, p99_9: seen['p99.9'], late: seen.late },
    latency: seen.percentiles,
  };
}
