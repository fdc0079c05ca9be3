/**
 * A workload puts one subject under one kind of load for a while and returns figures. It is handed everything
 * it needs and keeps nothing: rounds, order, steal time and failures are the run's business.
 */
import { groupCpu, systemCpu } from '../proc.ts';
import type { Processes } from '../processes.ts';
import type { Sample, WorkloadRecord } from '../results.ts';
import type { Publication, RunningSubject, Subject } from '../subjects/subject.ts';
import type { World } from '../world.ts';

/** The three ports through which a subject is measured. */
export interface Ports {
  /** A TCP echo server runs behind it all the time. */
  readonly echo: Publication;
  /** TCP; a workload starts what it needs behind it. */
  readonly bulk: Publication;
  /** UDP, likewise. */
  readonly datagrams: Publication;
}

export interface Measurement {
  readonly world: World;
  readonly processes: Processes;
  readonly subject: Subject;
  readonly running: RunningSubject;
  readonly ports: Ports;
  /** Length of the load. */
  readonly seconds: number;
  /** Idle connections to open. */
  readonly idle: number;
  /** An empty folder for a subject that is started afresh. */
  scratch(): string;
}

export type Figures = Pick<Sample, 'values' | 'latency'>;

export interface Workload extends WorkloadRecord {
  readonly protocol: 'tcp' | 'udp';
  /** The Debian package it needs, which is also the program's name. */
  readonly tool?: 'iperf3' | 'wrk';
  /** Seconds that one measurement takes in all, for the time left. */
  expected(seconds: number): number;
  /** Why this subject has no figure here. */
  cannot?(subject: Subject): string | undefined;
  measure(measurement: Measurement): Promise<Figures>;
}

/** The program behind a port is on another family only for the client that comes without a relay. */
export function programOf({ subject }: { readonly subject: Subject }, publication: Publication) {
  return subject.name === 'direct' ? publication.direct : publication.container;
}

export interface Spent {
  /** CPU seconds of the whole system, and of the subject's processes. */
  readonly system: number;
  readonly subject: number;
}

/** Runs a load and returns what it printed with the CPU time spent meanwhile. */
export async function spending(
  { running }: Measurement,
  load: () => Promise<string>,
): Promise<readonly [output: string, spent: Spent]> {
  const system = systemCpu();
  const subject = groupCpu(running.processes);
  const output = await load();
  return [output, { system: systemCpu() - system, subject: groupCpu(running.processes) - subject }];
}

export const cpuMetrics = {
  system: (unit: string) => ({ title: 'CPU time of the whole system', unit, better: 'lower' }) as const,
  subject: (unit: string) => ({ title: "CPU time of the relay's processes", unit, better: 'lower' }) as const,
};
