/**
 * A world is a topology with a pair of families: the part of a run within which figures may be compared. Here
 * is what the page asks of one, above all why a subject has no figure in it, which is never left unsaid.
 */
import type {
  Cell,
  Families,
  GateRecord,
  Ratio,
  Results,
  Sample,
  TopologyName,
  WorkloadRecord,
} from '../results.ts';
import { familiesText } from './wording.ts';

export interface World {
  readonly topology: TopologyName;
  readonly families: Families;
  /** For the address of its section, such as `t2-6to4`. */
  readonly id: string;
  readonly title: string;
  /** Those that have samples here, failed ones included. */
  readonly workloads: readonly WorkloadRecord[];
  readonly samples: readonly Sample[];
  readonly cells: readonly Cell[];
  readonly ratios: readonly Ratio[];
  readonly gates: readonly GateRecord[];
}

export function worldsOf(results: Results): readonly World[] {
  const places = new Map(
    [...results.gates, ...results.samples].map(({ topology, families }) => [
      `${topology} ${families}`,
      { topology, families },
    ]),
  );
  return [...places.values()].map(({ topology, families }) => worldOf(results, topology, families));
}

function worldOf(results: Results, topology: TopologyName, families: Families): World {
  const here = (where: { topology: TopologyName; families: Families }) =>
    where.topology === topology && where.families === families;
  const samples = results.samples.filter(here);
  const measured = new Set(samples.map(({ workload }) => workload));
  return {
    topology,
    families,
    id: `${topology}-${families}`.toLowerCase(),
    title: `${topology} ${familiesText(families)}`,
    workloads: results.workloads.filter(({ name }) => measured.has(name)),
    samples,
    cells: results.cells.filter(here),
    ratios: results.ratios.filter(here),
    gates: results.gates.filter(here),
  };
}

export function cellOf(world: World, workload: string, metric: string, subject: string): Cell | undefined {
  return world.cells.find(
    (cell) => cell.workload === workload && cell.metric === metric && cell.subject === subject,
  );
}

/** Why there is no figure: a word for a chart, and the reason in full if there is one. */
export interface Absence {
  readonly word: string;
  readonly reason: string;
}

/** Of a subject that has no missing-record and no cell for this workload. */
export function absenceOf(world: World, workload: WorkloadRecord, subject: string): Absence {
  const gate = gateOf(world, workload, subject);
  if (gate?.outcome === 'failed') return { word: 'failed its gate', reason: gate.reason ?? '' };
  if (gate?.outcome === 'not applicable') return { word: 'not applicable', reason: gate.reason ?? '' };
  const tried = world.samples.filter(
    (sample) => sample.workload === workload.name && sample.subject === subject,
  );
  if (tried.length === 0) return { word: 'not measured', reason: '' };
  const error = tried.findLast((sample) => sample.error !== undefined)?.error;
  return error === undefined ? { word: 'no such figure', reason: '' } : { word: 'failed', reason: error };
}

function gateOf(world: World, workload: WorkloadRecord, subject: string): GateRecord | undefined {
  const protocol = workload.group === 'udp' ? 'udp' : 'tcp';
  return world.gates.find((gate) => gate.subject === subject && gate.protocol === protocol);
}
