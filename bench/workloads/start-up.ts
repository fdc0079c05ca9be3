/**
 * A fresh instance with many ports on both families: time until the last listens, and memory then. Only what
 * runs in processes has an answer.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { groupMemory } from '../proc.ts';
import type { Child } from '../processes.ts';
import type { Publication, Subject } from '../subjects/subject.ts';
import type { World } from '../world.ts';
import type { Figures, Measurement, Workload } from './workload.ts';

export function startUp(ports: number): Workload {
  return {
    name: `start-up-${ports}`,
    title: `Start with ${ports === 1 ? '1 port' : `${ports} ports`} on IPv4 and IPv6`,
    method:
      'a fresh instance; from its start until the kernel shows every port as listening, memory 0.2 s later.',
    group: 'start-up',
    protocol: 'tcp',
    metrics: [
      { name: 'readyMs', title: 'Time to the last port', unit: 'ms', better: 'lower' },
      { name: 'pssMiB', title: 'Memory, shared pages in part (PSS)', unit: 'MiB', better: 'lower' },
      { name: 'rssMiB', title: 'Memory, shared pages in full (RSS)', unit: 'MiB', better: 'lower' },
    ],
    expected: () => 0.8 + ports / 150,
    cannot: ({ kind }: Subject) => (kind === 'bound' ? 'a bound is no rival in starting' : undefined),
    measure: (measurement) => measure(measurement, ports),
  };
}

async function measure(measurement: Measurement, count: number): Promise<Figures> {
  const { processes, world, subject } = measurement;
  const stage = { processes, place: world.host, scratch: measurement.scratch() };
  const started = performance.now();
  const running = await subject.start(stage, publications(world, count));
  try {
    const readyMs = performance.now() - started;
    await sleep(200);
    const { pss, rss } = groupMemory(running.processes);
    return { values: { readyMs, pssMiB: pss / 2 ** 20, rssMiB: rss / 2 ** 20 } };
  } finally {
    await Promise.all(running.processes.map((child: Child) => child.end()));
  }
}

/** Above the ports of all other measurements. */
const firstPort = 50_000;

function publications({ hostAddress, containerAddress }: World, count: number): readonly Publication[] {
  return (['v4', 'v6'] as const).flatMap((family) =>
    Array.from({ length: count }, (_, i) => {
      const container = { address: containerAddress[family], port: firstPort + 5000 + i };
      const host = { address: hostAddress[family], port: firstPort + i };
      return { protocol: 'tcp', host, container, direct: container } as const;
    }),
  );
}
