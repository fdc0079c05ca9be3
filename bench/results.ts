/**
 * One run of the bench as it is written to bench/results/: the contract between what measures, what compares
 * and what shows. The JSON file is exactly `Results`; docs/bench/README.md explains it to readers of the file.
 *
 * A sample is the atom: one subject under one workload in one round. Everything else of the file either
 * describes the conditions or is computed from the samples (compare.ts), so a run that was cut short is a
 * valid file with fewer samples.
 */

/** How a client's family meets the upstream's: `6to4` is an IPv6 client of an IPv4 program. */
export type Families = '4to4' | '6to6' | '6to4';

/** T1: everything on one loopback. T2: client, host and container are network namespaces joined by veth. */
export type TopologyName = 'T1' | 'T2';

export type PlanName = 'full' | 'quick' | 'smoke';

export interface Results {
  readonly schema: 1;
  readonly plan: PlanName;
  /** Words of the command line behind `npm run bench --`. */
  readonly arguments: readonly string[];
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  readonly finishedAt: string;
  /** False after Ctrl-C: the samples up to then. */
  readonly complete: boolean;
  /** Rounds that were asked for; each gives every subject one sample of every workload. */
  readonly rounds: number;
  /** What a reader must know before believing a figure, such as a missing privilege. */
  readonly remarks: readonly string[];
  readonly machine: Machine;
  readonly topologies: readonly TopologyRecord[];
  /** In the order in which they are shown. */
  readonly subjects: readonly SubjectRecord[];
  readonly workloads: readonly WorkloadRecord[];
  readonly gates: readonly GateRecord[];
  readonly samples: readonly Sample[];
  readonly cells: readonly Cell[];
  readonly ratios: readonly Ratio[];
}

export interface Machine {
  readonly kernel: string;
  readonly cpu: string;
  readonly cpus: number;
  /** Bytes. */
  readonly memory: number;
  readonly hypervisor: string;
  readonly node: string;
  /** Versions of the tools that measure, such as iperf3. */
  readonly tools: Readonly<Record<string, string>>;
}

export interface TopologyRecord {
  readonly name: TopologyName;
  readonly title: string;
  readonly congestionControl: string;
  /** Settings of its network namespaces, by sysctl. */
  readonly settings: Readonly<Record<string, string>>;
  /** Offloads of its devices as ethtool names them, if it is there. */
  readonly offloads: readonly string[];
}

/** Bounds are no rivals: nothing that relays can be faster than no relay. */
export type SubjectKind = 'bound' | 'peer' | 'dualport';

export interface SubjectRecord {
  readonly name: string;
  readonly title: string;
  readonly kind: SubjectKind;
  readonly version: string;
  /** What was set, in a phrase; the configuration in full stands in bench/subjects/. */
  readonly settings: string;
  /** Why there are no samples at all, such as a program that is not installed. */
  readonly missing?: string;
}

export interface WorkloadRecord {
  readonly name: string;
  readonly title: string;
  /** What is done and with which tool, in a sentence or two. */
  readonly method: string;
  readonly group: 'bulk' | 'requests' | 'latency' | 'connections' | 'udp' | 'memory' | 'start-up';
  /** The first is the one that is shown first. */
  readonly metrics: readonly MetricRecord[];
}

export interface MetricRecord {
  readonly name: string;
  readonly title: string;
  readonly unit: string;
  readonly better: 'higher' | 'lower';
}

/** Whether a subject may be measured: it carried hashed bytes and datagrams on these families. */
export interface GateRecord {
  readonly topology: TopologyName;
  readonly families: Families;
  readonly subject: string;
  readonly protocol: 'tcp' | 'udp';
  readonly outcome: 'passed' | 'failed' | 'not applicable';
  readonly reason?: string;
}

export interface Sample {
  readonly topology: TopologyName;
  readonly families: Families;
  readonly workload: string;
  readonly subject: string;
  /** From 1. */
  readonly round: number;
  /** By metric; empty if it failed. */
  readonly values: Readonly<Record<string, number>>;
  /** Latency in µs by percentile, ascending, such as [[50, 41], [99.9, 380]]. */
  readonly latency?: readonly (readonly [percentile: number, microseconds: number])[];
  readonly error?: string;
  /** CPU time the hypervisor gave to others meanwhile, in percent of all. */
  readonly steal: number;
  /** Seconds since startedAt. */
  readonly at: number;
}

/** What one subject reached on one metric, over the rounds. */
export interface Cell extends Where {
  readonly subject: string;
  readonly rounds: number;
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** Where a figure belongs. */
export interface Where {
  readonly topology: TopologyName;
  readonly families: Families;
  readonly workload: string;
  readonly metric: string;
}

/**
 * `subject` divided by `against`, round by round, so that what slows the whole machine cancels out. The
 * interval is that of the median, 95 % by bootstrap where there are rounds enough for it (six), the widest there is
 * below; only one that excludes 1 is a win or a loss. statistics.ts says what few rounds can and cannot tell.
 */
export interface Ratio extends Where {
  readonly subject: string;
  readonly against: string;
  readonly rounds: number;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly low: number;
  readonly high: number;
  readonly verdict: 'better' | 'worse' | 'no difference';
}
