/**
 * Bulk transfer by iperf3: `down` is from the container to the client, as a download is. The server is a fresh
 * one for each measurement, since one that a subject left in the lurch answers nobody else.
 */
import { untilListening } from '../proc.ts';
import type { Endpoint } from '../subjects/subject.ts';
import {
  cpuMetrics,
  type Figures,
  type Measurement,
  programOf,
  spending,
  type Workload,
} from './workload.ts';

type Direction = 'down' | 'up';

export function bulk(streams: number, direction: Direction): Workload {
  const whither = direction === 'down' ? 'container to client' : 'client to container';
  return {
    name: `bulk-${streams}-${direction}`,
    title: `Bulk, ${streams === 1 ? '1 stream' : `${streams} streams`}, ${direction}`,
    method: `iperf3, ${whither}; bytes that arrived. CPU time per 10⁹ bytes.`,
    group: 'bulk',
    protocol: 'tcp',
    tool: 'iperf3',
    metrics: [
      { name: 'gbps', title: 'Throughput', unit: 'Gbit/s', better: 'higher' },
      { name: 'cpuPerGB', ...cpuMetrics.system('s/GB') },
      { name: 'subjectCpuPerGB', ...cpuMetrics.subject('s/GB') },
    ],
    expected: (seconds) => (seconds < 1 ? 0.5 : Math.round(seconds) + 0.3),
    measure: (measurement) => measure(measurement, streams, direction),
  };
}

/** iperf3 knows no parts of seconds; a run that short is one that only tries everything, by bytes then. */
function length(seconds: number): readonly string[] {
  return seconds < 1 ? ['-n', '16M'] : ['-t', `${Math.round(seconds)}`];
}

async function measure(measurement: Measurement, streams: number, direction: Direction): Promise<Figures> {
  const { processes, world, ports, running } = measurement;
  const program = programOf(measurement, ports.bulk);
  const server = processes.start(world.container, ['iperf3', '-s', '-1', ...at(program, '-B')]);
  try {
    await untilListening([server], [{ protocol: 'tcp', ...program }]);
    const { seconds } = measurement;
    const words = [...length(seconds), '-P', `${streams}`, '-J', ...(direction === 'down' ? ['-R'] : [])];
    const command = ['iperf3', ...at(running.entrance(ports.bulk), '-c'), ...words];
    const [output, spent] = await spending(measurement, () =>
      processes.run(world.client, command, seconds + 5),
    );
    return figures(output, spent);
  } finally {
    await server.end();
  }
}

function at({ address, port }: Endpoint, flag: '-B' | '-c'): readonly string[] {
  return [flag, address, '-p', `${port}`];
}

function figures(output: string, spent: { system: number; subject: number }): Figures {
  const { bytes, bits_per_second } = JSON.parse(output).end.sum_received;
  if (!(bytes > 0)) throw new Error('iperf3 received nothing');
  return {
    values: {
      gbps: bits_per_second / 1e9,
      cpuPerGB: spent.system / (bytes / 1e9),
      subjectCpuPerGB: spent.subject / (bytes / 1e9),
    },
  };
}
