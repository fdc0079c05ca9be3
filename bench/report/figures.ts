/**
 * Which figures are drawn of a world's cells and samples, as records for the page's script. Every subject that
 * could run has its place in a chart of bars; where there is no bar, a word says why.
 */
import type { MetricRecord, Sample, SubjectRecord, WorkloadRecord } from '../results.ts';
import { median } from '../statistics.ts';
import type { Bar, Bars, Line, Lines } from './page/chart.ts';
import { betterText, counted, figure, metricText } from './wording.ts';
import { absenceOf, cellOf, type World } from './worlds.ts';

export function barsOf(
  world: World,
  subjects: readonly SubjectRecord[],
  workload: WorkloadRecord,
  metric: MetricRecord,
  small: boolean,
): Bars {
  const expected = Math.max(...world.cells.map(({ rounds }) => rounds));
  return {
    form: 'bars',
    label: `Bars: ${workload.title}, ${metricText(metric)}, by subject; ${betterText(metric)}`,
    small,
    rows: subjects.map((subject) => barOf(world, subject, workload, metric, expected)),
  };
}

/** A bar of fewer rounds than the others says so. */
function barOf(
  world: World,
  { name, kind, title }: SubjectRecord,
  workload: WorkloadRecord,
  metric: MetricRecord,
  expected: number,
): Bar {
  const cell = cellOf(world, workload.name, metric.name, name);
  if (cell === undefined) {
    const { word, reason } = absenceOf(world, workload, name);
    return { name, kind, text: word, tip: reason };
  }
  const few = cell.rounds < expected ? ` (${counted(cell.rounds, 'round')})` : '';
  return {
    name,
    kind,
    text: figure(cell.median) + few,
    tip: `${title}\n${figure(cell.median)} ${metric.unit}, lowest ${figure(cell.min)}, highest ${figure(cell.max)}\n${counted(cell.rounds, 'round')}`,
    value: cell.median,
    min: cell.min,
    max: cell.max,
  };
}

/** Latency by percentile, the median of the rounds at each; of workloads that took the whole curve. */
export function latencyCurves(
  world: World,
  subjects: readonly SubjectRecord[],
  workload: WorkloadRecord,
): Lines | undefined {
  const lines = subjects.flatMap((subject) => {
    const own = world.samples.filter(
      (sample) => sample.workload === workload.name && sample.subject === subject.name,
    );
    const points = medianCurve(own);
    return points.some(([percentile]) => percentile < 100) ? lineOf(subject, points) : [];
  });
  if (lines.length === 0) return undefined;
  return {
    form: 'lines',
    label: `Curves: ${workload.title}, latency in µs by percentile, a line a subject; lower is better`,
    x: { label: 'percentile', scale: 'nines', ticks: [0, 50, 90, 99, 99.9, 99.99, 99.999] },
    y: { label: 'µs' },
    lines,
  };
}

function medianCurve(samples: readonly Sample[]): Line['points'] {
  const byPercentile = new Map<number, number[]>();
  for (const { latency = [], error } of samples) {
    if (error !== undefined) continue;
    for (const [percentile, microseconds] of latency) {
      byPercentile.set(percentile, [...(byPercentile.get(percentile) ?? []), microseconds]);
    }
  }
  return [...byPercentile]
    .map(([percentile, values]) => [percentile, median(values)] as const)
    .sort(([a], [b]) => a - b);
}

/** What a metric of the start-up workloads costs as the published ports get more. */
export function portLines(
  world: World,
  subjects: readonly SubjectRecord[],
  metric: MetricRecord,
): Lines | undefined {
  const steps = world.workloads.flatMap(({ group, name }) => {
    const ports = Number(name.match(/-(\d+)$/)?.[1]);
    return group === 'start-up' && ports > 0 ? [{ ports, name }] : [];
  });
  const lines = subjects.flatMap((subject) => {
    const points = steps.flatMap(({ ports, name }) => {
      const cell = cellOf(world, name, metric.name, subject.name);
      return cell === undefined ? [] : [[ports, cell.median] as const];
    });
    return lineOf(
      subject,
      points.sort(([a], [b]) => a - b),
    );
  });
  if (steps.length < 2 || lines.length === 0) return undefined;
  return {
    form: 'lines',
    label: `Lines: ${metricText(metric)}, by number of published ports; ${betterText(metric)}`,
    x: { label: 'published ports', scale: 'log', ticks: steps.map(({ ports }) => ports) },
    y: { label: metric.unit },
    lines,
  };
}

/** Zero has no place on a logarithmic scale; a line of nothing else is left out. */
function lineOf({ name, kind }: SubjectRecord, points: Line['points']): readonly Line[] {
  return points.some(([, y]) => y > 0) ? [{ name, kind, points }] : [];
}
