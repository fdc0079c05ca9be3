/**
 * UDP by udp-load, from the client to a sink behind the subject, numbered: the highest rate with at most 0.1 %
 * lost, what still arrives when far more is sent, and trains of datagrams made by segmentation offload (GSO),
 * as QUIC servers send them.
 */
import { loadProgram } from '../load/programs.ts';
import { type Measurement, programOf, spending, type Workload } from './workload.ts';

export function datagrams(size: number, flows: number): Workload {
  return {
    name: `udp-${size}-${flows}`,
    title: `UDP, ${size} bytes, ${flows === 1 ? '1 flow' : `${flows} flows`}`,
    method:
      'udp-load: bisection for the highest rate with at most 0.1 % lost; and what arrives of as many as can be sent.',
    group: 'udp',
    protocol: 'udp',
    metrics: [
      { name: 'rate', title: 'Datagrams at ≤ 0.1 % loss', unit: '1/s', better: 'higher' },
      { name: 'delivered', title: 'Datagrams that arrive at overload', unit: '1/s', better: 'higher' },
    ],
    expected: (seconds) => trials(seconds) * (trialSeconds(seconds) + 0.1),
    measure: async (measurement) => {
      const { seconds } = measurement;
      const words = ['--trials', `${trials(seconds)}`, '--seconds', `${trialSeconds(seconds)}`];
      const seen = JSON.parse(await udpLoad(measurement, 'search', size, flows, words));
      refuseDamage(seen.overload);
      return { values: { rate: seen.rate, delivered: seen.overload.delivered } };
    },
  };
}

/** Including the first one, at overload; a run that is that short only tries everything. */
function trials(seconds: number): number {
  return seconds < 1 ? 3 : 7;
}

function trialSeconds(seconds: number): number {
  return Math.max(0.05, seconds / 8);
}

const trainSize = 1200;
const trainLength = 40;

export const trains: Workload = {
  name: 'udp-trains',
  title: `UDP trains, ${trainLength} × ${trainSize} bytes`,
  method: `udp-load: trains of ${trainLength} datagrams by UDP_SEGMENT as fast as they can be sent, one flow, a sink with UDP_GRO; payload that arrived.`,
  group: 'udp',
  protocol: 'udp',
  metrics: [
    { name: 'gbps', title: 'Payload that arrives', unit: 'Gbit/s', better: 'higher' },
    { name: 'cpuPerGB', title: 'CPU time of the whole system', unit: 's/GB', better: 'lower' },
  ],
  expected: (seconds) => seconds / 2 + 0.2,
  measure: async (measurement) => {
    const seconds = measurement.seconds / 2;
    const words = ['--rate', '0', '--train', `${trainLength}`, '--seconds', `${seconds}`];
    const [output, spent] = await spending(measurement, () =>
      udpLoad(measurement, 'rate', trainSize, 1, words),
    );
    const seen = JSON.parse(output);
    refuseDamage(seen);
    const gigabytes = (seen.received * trainSize) / 1e9;
    return { values: { gbps: seen.gbps, cpuPerGB: spent.system / gigabytes } };
  },
};

/** Lost is a figure; changed, doubled or sent to the wrong flow is a failure. */
function refuseDamage(seen: {
  corrupt: number;
  misrouted: number;
  duplicates: number;
  received: number;
}): void {
  const { corrupt, misrouted, duplicates } = seen;
  if (corrupt + misrouted + duplicates > 0)
    throw new Error(`${corrupt} datagrams changed, ${misrouted} to the wrong flow, ${duplicates} doubled`);
  if (seen.received === 0) throw new Error('no datagram arrived');
}

/** What udp-load is told about where it is; also for the gate. */
export type Crossing = Pick<Measurement, 'processes' | 'world' | 'running' | 'ports' | 'subject'>;

/** One process sends in the client's network and receives in the container's. */
export function udpLoad(
  measurement: Crossing,
  mode: 'search' | 'rate',
  size: number,
  flows: number,
  words: readonly string[],
): Promise<string> {
  const { processes, world, running, ports } = measurement;
  const { client, container } = world;
  const target = running.entrance(ports.datagrams);
  const sink = programOf(measurement, ports.datagrams);
  return processes.run(
    {},
    [
      ...[loadProgram('udp-load'), mode, '--size', `${size}`, '--flows', `${flows}`, ...words],
      ...(client.netns === undefined ? [] : ['--client-netns', client.netns]),
      ...(container.netns === undefined ? [] : ['--sink-netns', container.netns]),
      ...['--target', target.address, `${target.port}`, '--sink', sink.address, `${sink.port}`],
    ],
    30,
  );
}
