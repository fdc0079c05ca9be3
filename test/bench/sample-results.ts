/**
 * A run as the bench could have written it, made from a seed: every group of workloads, two families, and all
 * that may go wrong. Figures have the size and the scatter of real ones, but are nobody's.
 */
import { cellsOf, ratiosOf } from '../../bench/compare.ts';
import type {
  Families,
  GateRecord,
  MetricRecord,
  Results,
  Sample,
  SubjectKind,
  SubjectRecord,
  WorkloadRecord,
} from '../../bench/results.ts';

/** What a program's output or a version string may hold. */
export const hostile = '</script><img src=x onerror="document.title=1"> & \' "quoted" <!--';

export const rounds = 5;

interface Standing {
  readonly kind: SubjectKind;
  /** How fast it is, the direct way being 1. */
  readonly speed: number;
  readonly memory: number;
  readonly title: string;
}

const standings: Readonly<Record<string, Standing>> = {
  direct: { kind: 'bound', speed: 1, memory: 0, title: 'No relay: the client calls the program itself' },
  'nft-dnat': { kind: 'bound', speed: 0.92, memory: 0, title: 'Kernel NAT' },
  'docker-proxy': { kind: 'peer', speed: 0.5, memory: 18, title: "Docker's userland proxy" },
  haproxy: { kind: 'peer', speed: 0.55, memory: 9, title: 'HAProxy' },
  'haproxy-splice': { kind: 'peer', speed: 0.62, memory: 8, title: 'HAProxy with splice' },
  nginx: { kind: 'peer', speed: 0.56, memory: 33, title: 'nginx stream' },
  'nginx-64k': { kind: 'peer', speed: 0.6, memory: 129, title: 'nginx stream with 64 KiB buffers' },
  socat: { kind: 'peer', speed: 0.3, memory: 610, title: 'socat' },
  'socat-256k': { kind: 'peer', speed: 0.34, memory: 640, title: 'socat with 256 KiB blocks' },
  'dualport-portable': { kind: 'dualport', speed: 0.44, memory: 12, title: 'dualport on node:net' },
  'dualport-linux': { kind: 'dualport', speed: 0.7, memory: 0.5, title: 'dualport with its own core' },
};

function subjectsOf(missing: readonly string[]): readonly SubjectRecord[] {
  return Object.entries(standings).map(([name, { kind, title }]) => ({
    name,
    title,
    kind,
    version: name === 'nginx' ? `1.22.1 ${hostile}` : '1.2.3',
    settings: kind === 'bound' ? 'none' : 'one worker, no log',
    ...(missing.includes(name) ? { missing: `not built: ${hostile}` } : {}),
  }));
}

const metric = (name: string, title: string, unit: string, better: MetricRecord['better']): MetricRecord => ({
  name,
  title,
  unit,
  better,
});

const bulk = [
  metric('gbps', 'Throughput', 'Gbit/s', 'higher'),
  metric('cpuPerGB', 'CPU time of the system', 's/GB', 'lower'),
  metric('subjectCpuPerGB', 'CPU time of the subject', 's/GB', 'lower'),
];
const requests = [
  metric('rate', 'Requests', '1/s', 'higher'),
  metric('cpuPerRequest', 'CPU time of the system', 'µs/request', 'lower'),
  metric('p50', 'Latency, median', 'µs', 'lower'),
  metric('p99', 'Latency, 99th percentile', 'µs', 'lower'),
  metric('p99_9', 'Latency, 99.9th percentile', 'µs', 'lower'),
];
const latency = requests.slice(2);
const connections = [
  metric('rate', 'Connections', '1/s', 'higher'),
  metric('failures', 'Connections that failed', '', 'lower'),
  metric('cpuPerConnection', 'CPU time of the system', 'µs/connection', 'lower'),
];
const memory = [
  metric('userKiB', 'User memory', 'KiB/connection', 'lower'),
  metric('kernelKiB', 'Kernel memory', 'KiB/connection', 'lower'),
];
const datagrams = [
  metric('rate', 'Datagrams with at most 0.1 % loss', '1/s', 'higher'),
  metric('delivered', 'Delivered when overloaded', '1/s', 'higher'),
];
const startUp = [
  metric('readyMs', 'Until it answers', 'ms', 'lower'),
  metric('pssMiB', 'Memory, shared parts once (PSS)', 'MiB', 'lower'),
  metric('rssMiB', 'Memory, resident (RSS)', 'MiB', 'lower'),
];

type Spec = readonly [WorkloadRecord['group'], string, string, readonly MetricRecord[]];

const specs: readonly Spec[] = [
  ['bulk', 'bulk-1-down', 'One stream to the client', bulk],
  ['bulk', 'bulk-1-up', 'One stream from the client', bulk],
  ['bulk', 'bulk-8-down', 'Eight streams to the client', bulk],
  ['bulk', 'bulk-8-up', 'Eight streams from the client', bulk],
  ['requests', 'requests-1', 'One connection, request by request', requests],
  ['requests', 'requests-64', '64 connections, request by request', requests],
  ['requests', 'requests-256', '256 connections, request by request', requests],
  ['latency', 'open-loop', 'Requests at a fixed rate', latency],
  ['connections', 'connections', 'Connections one after another', connections],
  ['memory', 'idle', '10,000 idle connections', memory],
  ...[64, 512, 1200].flatMap((size): readonly Spec[] =>
    [1, 64].map((flows) => [
      'udp',
      `udp-${size}-${flows}`,
      `${size} bytes, ${flows === 1 ? 'one flow' : '64 flows'}`,
      datagrams,
    ]),
  ),
  ['udp', 'udp-trains', 'Trains of 40 datagrams', [metric('gbps', 'Throughput', 'Gbit/s', 'higher')]],
  ['start-up', 'start-up-1', 'Start with one published port', startUp],
  ['start-up', 'start-up-10', 'Start with ten published ports', startUp],
  ['start-up', 'start-up-100', 'Start with a hundred published ports', startUp],
];

const workloads: readonly WorkloadRecord[] = specs.map(([group, name, title, metrics]) => ({
  name,
  title,
  method: `A sentence on how ${name} is driven, with which tool and for how long.`,
  group,
  metrics,
}));

/** Of the whole direct way; those of lower is better are divided by the speed. */
const scales: Readonly<Record<string, number>> = {
  gbps: 16.2,
  cpuPerGB: 0.71,
  subjectCpuPerGB: 0.3,
  cpuPerRequest: 21.8,
  cpuPerConnection: 129,
  p50: 41,
  p99: 160,
  p99_9: 380,
  delivered: 240_000,
  kernelKiB: 7.5,
  readyMs: 12,
};

const rates: Readonly<Record<string, number>> = { requests: 93_500, connections: 11_500, udp: 210_000 };

const curve = [0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 100];

/** A generator of uniform numbers from a seed; the sequence of Park and Miller. */
function uniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

export interface Options {
  readonly seed?: number;
  readonly missing?: readonly string[];
  readonly worlds?: readonly Families[];
  /** Ended in the last round, in the middle of the workloads. */
  readonly cutShort?: boolean;
  /** Without a failed gate, failed samples, remarks or a subject that dies. */
  readonly allWell?: boolean;
}

export function sampleResults(options: Options = {}): Results {
  const {
    missing = ['dualport-linux'],
    worlds = ['4to4', '6to4'],
    cutShort = false,
    allWell = false,
  } = options;
  const subjects = subjectsOf(missing);
  const gates = worlds.flatMap((families) => gatesOf(subjects, families, allWell));
  const samples = samplesOf(options, subjects, gates, worlds);
  const kept = cutShort ? samples.slice(0, Math.floor(samples.length * 0.87)) : samples;
  return {
    schema: 1,
    plan: 'full',
    arguments: ['--rounds', String(rounds)],
    startedAt: '2026-11-21T13:02:11.000Z',
    finishedAt: '2026-11-21T15:40:45.000Z',
    complete: !cutShort,
    rounds,
    remarks: allWell ? [] : ['The kernel gives no cpuacct: CPU time is of the processes only.', hostile],
    machine: {
      kernel: '6.12.9',
      cpu: 'AMD EPYC 9R14',
      cpus: 2,
      memory: 8_213_123_072,
      hypervisor: 'kvm',
      node: 'v20.20.2',
      tools: { iperf3: '3.12', gcc: '12.2.0' },
    },
    topologies: [
      {
        name: 'T2',
        title: 'Client, host and container are network namespaces joined by veth',
        congestionControl: 'cubic',
        settings: { 'net.core.somaxconn': '4096', 'net.ipv4.ip_local_port_range': '1024 65535' },
        offloads: ['tcp-segmentation-offload: on', 'generic-receive-offload: on'],
      },
    ],
    subjects,
    workloads,
    gates,
    samples: kept,
    cells: cellsOf(kept, workloads),
    ratios: ratiosOf(kept, workloads, subjects),
  };
}

function gatesOf(
  subjects: readonly SubjectRecord[],
  families: Families,
  allWell: boolean,
): readonly GateRecord[] {
  return subjects
    .filter(({ missing }) => missing === undefined)
    .flatMap(({ name: subject }) =>
      (['tcp', 'udp'] as const).map((protocol): GateRecord => {
        const gate = { topology: 'T2', families, subject, protocol } as const;
        if (protocol === 'udp' && subject.startsWith('haproxy')) {
          return { ...gate, outcome: 'not applicable', reason: 'it relays no UDP' };
        }
        if (subject === 'nft-dnat' && families === '6to4') {
          return { ...gate, outcome: 'not applicable', reason: 'NAT cannot change the family' };
        }
        if (!allWell && protocol === 'udp' && subject === 'socat') {
          return { ...gate, outcome: 'failed', reason: `3 of 100 datagrams differ: ${hostile}` };
        }
        return { ...gate, outcome: 'passed' };
      }),
    );
}

function samplesOf(
  { seed = 1, allWell = false }: Options,
  subjects: readonly SubjectRecord[],
  gates: readonly GateRecord[],
  worlds: readonly Families[],
): readonly Sample[] {
  const random = uniform(seed);
  const noise = (share: number) => 1 + share * (random() + random() - 1);
  let at = 0;
  return worlds.flatMap((families) =>
    Array.from({ length: rounds }, (_, index) => index + 1).flatMap((round) =>
      workloads.flatMap((workload) => {
        const day = noise(0.1);
        return subjects.flatMap((subject): readonly Sample[] => {
          if (!mayRun(subject, workload, families, gates)) return [];
          at += 4;
          const place = { topology: 'T2', families, workload: workload.name, subject: subject.name } as const;
          const sample = { ...place, round, steal: random() < 0.01 ? 3.4 : 0.2, at };
          const error = allWell ? undefined : errorOf(sample);
          if (error !== undefined) return [{ ...sample, values: {}, error }];
          return [{ ...sample, ...valuesOf(subject.name, workload, () => day * noise(0.06)) }];
        });
      }),
    ),
  );
}

function mayRun(
  { name, missing }: SubjectRecord,
  { group }: WorkloadRecord,
  families: Families,
  gates: readonly GateRecord[],
): boolean {
  const protocol = group === 'udp' ? 'udp' : 'tcp';
  const gate = gates.find(
    (candidate) =>
      candidate.subject === name && candidate.families === families && candidate.protocol === protocol,
  );
  if (group === 'start-up' && standings[name]?.kind === 'bound') return false;
  return missing === undefined && gate?.outcome === 'passed';
}

/** socat runs out of processes with many connections; one peer dies in round 3 and stays dead for a while. */
function errorOf({ subject, workload, round, families }: Omit<Sample, 'values'>): string | undefined {
  if (subject.startsWith('socat') && workload === 'idle')
    return `fork: Resource temporarily unavailable ${hostile}`;
  if (subject === 'nginx-64k' && workload.startsWith('bulk') && round >= 3 && families === '4to4') {
    return 'it ended with signal 11 under bulk-8-up';
  }
  return undefined;
}

function valuesOf(
  name: string,
  { group, metrics, name: workload }: WorkloadRecord,
  noise: () => number,
): Pick<Sample, 'values' | 'latency'> {
  const { speed, memory: kib } = standings[name] ?? { speed: 1, memory: 0 };
  const ports = Number(workload.match(/-(\d+)$/)?.[1] ?? 1);
  const value = ({ name: metricName, better }: MetricRecord): number => {
    if (metricName === 'failures') return 0;
    if (metricName === 'userKiB') return kib * noise();
    if (metricName.endsWith('ssMiB'))
      return memoryOf(name, ports) * (metricName === 'rssMiB' ? 1.3 : 1) * noise();
    if (metricName === 'readyMs') return (name.startsWith('dualport') ? 70 : 12) * ports ** 0.4 * noise();
    const whole = metricName === 'rate' ? (rates[group] ?? 1) : (scales[metricName] ?? 1);
    return (better === 'higher' ? whole * speed : whole / speed) * noise();
  };
  const values = Object.fromEntries(metrics.map((record) => [record.name, value(record)]));
  if (group !== 'latency') return { values };
  const latencyCurve = curve.map((percentile): readonly [number, number] => {
    const nines = -Math.log10(Math.max(1 - percentile / 100, 1e-5));
    return [percentile, Math.round((30 / speed) * 1.9 ** nines * noise() * 10) / 10];
  });
  return { values, latency: latencyCurve };
}

/** docker-proxy is a process a port; the others are one. */
function memoryOf(name: string, ports: number): number {
  if (name === 'docker-proxy') return 4 * ports;
  if (name.startsWith('socat')) return 1.5 * ports;
  return (name.startsWith('dualport') ? 46 : 9) + 0.05 * ports;
}
