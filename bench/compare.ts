/**
 * From samples to figures: what each subject reached (cells) and how it stands to the others (ratios). Pure,
 * and indifferent to what is missing: a round counts for a pair only if both have a value in it, so a subject
 * that failed, died halfway or never ran takes nothing from the others.
 *
 * Who is compared: every subject with every bound, which says what relaying costs, and every dualport subject
 * with every peer and every other dualport one. Peers are not compared among themselves.
 */
import type { Cell, MetricRecord, Ratio, Sample, SubjectRecord, Where, WorkloadRecord } from './results.ts';
import { type Interval, intervalOfRatios, median } from './statistics.ts';

/** One metric at one place, in the order of the workloads. */
interface Place {
  readonly where: Where;
  readonly metric: MetricRecord;
  /** By subject, in the order in which they first came up. */
  readonly rounds: ReadonlyMap<string, ByRound>;
}

type ByRound = ReadonlyMap<number, number>;

type Pair = readonly [subject: string, against: string];

export function cellsOf(samples: readonly Sample[], workloads: readonly WorkloadRecord[]): readonly Cell[] {
  return placesOf(samples, workloads).flatMap(({ where, rounds }) =>
    [...rounds].map(([subject, values]) => ({ ...where, subject, ...spread([...values.values()]) })),
  );
}

export function ratiosOf(
  samples: readonly Sample[],
  workloads: readonly WorkloadRecord[],
  subjects: readonly SubjectRecord[],
): readonly Ratio[] {
  const pairs = pairsOf(subjects);
  return placesOf(samples, workloads).flatMap((place) => pairs.flatMap((pair) => ratioOf(place, pair)));
}

function pairsOf(subjects: readonly SubjectRecord[]): readonly Pair[] {
  return subjects.flatMap(({ name, kind }) =>
    subjects
      .filter((other) => other.name !== name && kind !== 'bound')
      .filter((other) => other.kind === 'bound' || kind === 'dualport')
      .map((other): Pair => [name, other.name]),
  );
}

function ratioOf({ where, metric, rounds }: Place, [subject, against]: Pair): readonly Ratio[] {
  const ratios = roundByRound(rounds.get(subject), rounds.get(against));
  if (ratios.length === 0) return [];
  const interval = intervalOfRatios(ratios);
  const verdict = verdictOf(interval, metric.better);
  return [{ ...where, subject, against, ...spread(ratios), ...interval, verdict }];
}

function roundByRound(values: ByRound = new Map(), divisors: ByRound = new Map()): readonly number[] {
  return [...values].flatMap(([round, value]) => {
    const divisor = divisors.get(round) ?? 0;
    return divisor > 0 ? [value / divisor] : [];
  });
}

function verdictOf({ low, high }: Interval, better: MetricRecord['better']): Ratio['verdict'] {
  if (low <= 1 && high >= 1) return 'no difference';
  return low > 1 === (better === 'higher') ? 'better' : 'worse';
}

function spread(values: readonly number[]): Pick<Cell, 'rounds' | 'median' | 'min' | 'max'> {
  return {
    rounds: values.length,
    median: median(values),
    min: Math.min(...values),
    max: Math.max(...values),
  };
}

function placesOf(samples: readonly Sample[], workloads: readonly WorkloadRecord[]): readonly Place[] {
  return worldsOf(samples).flatMap((inWorld) =>
    workloads.flatMap((workload) => placesOfWorkload(inWorld, workload)),
  );
}

/** The samples of each topology and families, in the order in which these first came up. */
function worldsOf(samples: readonly Sample[]): readonly (readonly Sample[])[] {
  const worlds = new Map<string, Sample[]>();
  for (const sample of samples) {
    const world = `${sample.topology} ${sample.families}`;
    const own = worlds.get(world);
    if (own === undefined) worlds.set(world, [sample]);
    else own.push(sample);
  }
  return [...worlds.values()];
}

function placesOfWorkload(inWorld: readonly Sample[], workload: WorkloadRecord): readonly Place[] {
  const own = inWorld.filter((sample) => sample.workload === workload.name);
  const [first] = own;
  if (first === undefined) return [];
  const { topology, families } = first;
  return workload.metrics.map((metric) => ({
    where: { topology, families, workload: workload.name, metric: metric.name },
    metric,
    rounds: roundsOf(own, metric.name),
  }));
}

/** A failed sample has no value even if it got as far as one. */
function roundsOf(samples: readonly Sample[], metric: string): ReadonlyMap<string, ByRound> {
  const rounds = new Map<string, Map<number, number>>();
  for (const { subject, round, values, error } of samples) {
    const value = values[metric];
    if (value === undefined || !Number.isFinite(value) || error !== undefined) continue;
    const own = rounds.get(subject) ?? new Map<number, number>();
    rounds.set(subject, own.set(round, value));
  }
  return rounds;
}
