/**
 * What a run will do: blocks (a topology and families, with their workloads), rounds and seconds. Everything
 * that may be asked for on the command line is settled here, before anything is started.
 */
import type { Families, PlanName, TopologyName } from './results.ts';
import { allSubjects } from './subjects/all.ts';
import type { Subject } from './subjects/subject.ts';
import { allWorkloads } from './workloads/all.ts';
import type { Workload } from './workloads/workload.ts';

export const topologyNames = ['T1', 'T2'] as const satisfies readonly TopologyName[];
export const familiesNames = ['4to4', '6to6', '6to4'] as const satisfies readonly Families[];

export interface Block {
  readonly topology: TopologyName;
  readonly families: Families;
  readonly workloads: readonly Workload[];
}

export interface Plan {
  readonly name: PlanName;
  readonly rounds: number;
  /** Length of one load. */
  readonly seconds: number;
  /** Idle connections to open. */
  readonly idle: number;
  readonly blocks: readonly Block[];
  /** All that are started and gated. */
  readonly subjects: readonly Subject[];
  /** Those of them that are put under load. */
  readonly measured: readonly Subject[];
}

/** What was asked for; undefined is the plan's own choice. */
export interface Request {
  readonly plan: PlanName;
  readonly workloads?: readonly Workload[] | undefined;
  readonly subjects?: readonly Subject[] | undefined;
  readonly topologies?: readonly TopologyName[] | undefined;
  readonly families?: readonly Families[] | undefined;
  readonly rounds?: number | undefined;
}

/** What one person would want to know first. */
const headline = named('bulk-1-down requests-64 open-loop connections udp-1200-64');
/** What another pair of families could change. */
const crossing = named(
  'bulk-1-down bulk-8-down requests-64 requests-256 open-loop connections udp-64-64 udp-1200-64 udp-trains',
);

interface Preset {
  readonly rounds: number;
  readonly seconds: number;
  readonly idle: number;
  readonly blocks: readonly Block[];
  readonly subjects: readonly Subject[];
  readonly measured?: readonly Subject[];
}

const notQuick = ['haproxy', 'nginx', 'socat', 'c-relay', 'dualport-pseudo', 'dualport-transparent'];

const presets: Readonly<Record<PlanName, Preset>> = {
  full: {
    // The fewest from which a 95 % interval can be had.
    rounds: 6,
    // Short loads in more rounds beat long ones: what disturbs a machine comes and goes within minutes.
    seconds: 1,
    idle: 10_000,
    blocks: [
      { topology: 'T2', families: '4to4', workloads: allWorkloads },
      { topology: 'T2', families: '6to4', workloads: crossing },
      { topology: 'T2', families: '6to6', workloads: headline },
      { topology: 'T1', families: '4to4', workloads: headline },
    ],
    subjects: allSubjects,
  },
  // Each rival at its best, without the ones that are slower for want of a setting; and no bound on our own code, nor
  // our other ways of doing the same.
  quick: {
    rounds: 3,
    seconds: 1,
    idle: 2_000,
    blocks: [{ topology: 'T2', families: '4to4', workloads: [...headline, ...named('start-up-10')] }],
    subjects: allSubjects.filter(({ name }) => !notQuick.includes(name)),
  },
  // Everything once, to see that it works: speeds mean nothing.
  smoke: {
    rounds: 1,
    seconds: 0.2,
    idle: 200,
    blocks: [
      { topology: 'T2', families: '4to4', workloads: allWorkloads },
      { topology: 'T2', families: '6to4', workloads: [] },
      { topology: 'T2', families: '6to6', workloads: [] },
    ],
    subjects: allSubjects,
    measured: allSubjects.filter(({ name, kind }) => name === 'direct' || kind === 'dualport'),
  },
};

/** @param root whether namespaces may be made; without, T1 is all there is */
export function makePlan(request: Request, root: boolean): Plan {
  const preset = presets[request.plan];
  const subjects = request.subjects ?? preset.subjects;
  return {
    name: request.plan,
    rounds: request.rounds ?? preset.rounds,
    seconds: preset.seconds,
    idle: preset.idle,
    blocks: blocksOf(request, preset, root),
    subjects,
    measured: request.subjects ?? preset.measured ?? subjects,
  };
}

function blocksOf(request: Request, preset: Preset, root: boolean): readonly Block[] {
  return pairsOf(request, preset, root).map(({ topology, families }) => {
    const own = preset.blocks.find((block) => block.topology === topology && block.families === families);
    return { topology, families, workloads: request.workloads ?? own?.workloads ?? headline };
  });
}

type Pair = Pick<Block, 'topology' | 'families'>;

function pairsOf(
  { topologies, families, workloads }: Request,
  { blocks }: Preset,
  root: boolean,
): readonly Pair[] {
  if (!root) return (families ?? ['4to4']).map((each) => ({ topology: 'T1', families: each }));
  if (topologies === undefined && families === undefined) {
    // Named workloads are wanted where the plan is at its fullest, not four times.
    return workloads === undefined ? blocks : blocks.slice(0, 1);
  }
  return (topologies ?? ['T2']).flatMap((topology) =>
    (families ?? ['4to4']).map((each) => ({ topology, families: each })),
  );
}

function named(words: string): readonly Workload[] {
  return words.split(' ').flatMap((word) => allWorkloads.filter(({ name }) => name === word));
}

/** Seconds that the plan will take, if nothing fails. */
export function expectedSeconds({ blocks, rounds, seconds, measured, subjects }: Plan): number {
  const gates = blocks.length * (1 + subjects.length * 0.6);
  const loads = blocks.flatMap(({ workloads }) => workloads.map((workload) => workload.expected(seconds)));
  return gates + rounds * measured.length * loads.reduce((sum, each) => sum + each, 0);
}
