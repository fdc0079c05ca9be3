/**
 * The bench in the README: one table, made from a run's file and put between two marks. It shows the best
 * dualport subject, the last one that was measured, on the first metric of the first and the last workload of
 * each group, chosen by their place and not by their outcome; the page of the run shows all. Of a peer with several
 * configurations (`nginx`, `nginx-64k`) it shows the one that does best against dualport, so that nobody is beaten in a
 * bad set-up. Where dualport's own figure is 0, nothing was seen, which is no ratio: that row is left out.
 */
import type { MetricRecord, Ratio, Results, SubjectRecord, WorkloadRecord } from '../results.ts';
import { fewestRounds } from '../statistics.ts';
import {
  betterText,
  bytesText,
  counted,
  dateText,
  intervalName,
  intervalText,
  listed,
  ratioFigure,
} from './wording.ts';
import { type World, worldsOf } from './worlds.ts';

const begin = '<!-- bench:begin -->';
const end = '<!-- bench:end -->';

/** The text between the marks; undefined without both of them in order. */
export function benchPart(readme: string): string | undefined {
  const from = readme.indexOf(begin);
  const to = readme.indexOf(end, from);
  return from < 0 || to < 0 ? undefined : readme.slice(from + begin.length, to);
}

export function withBenchPart(readme: string, part: string): string {
  const before = benchPart(readme);
  if (before === undefined) throw new Error(`the README has no ${begin} … ${end}`);
  return readme.replace(begin + before + end, () => begin + part + end);
}

/** `file` is what the table links to, as seen from the README. */
export function readmePart(results: Results, file: string): string {
  const ours = bestOf(results);
  if (ours === undefined) throw new Error(`${file} has no samples of a dualport subject`);
  const columns = columnsOf(results);
  const world = worldShown(results);
  const shown =
    world === undefined ? [] : headlinesOf(world).filter((each) => !sawNothing(world, each, ours));
  const rows = world === undefined ? [] : shown.map((each) => rowOf(world, each, ours, columns));
  const head = [`${ours.name} ÷`, ...columns.map(([first]) => first?.name ?? '')];
  const lines = [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
  return `\n${lines.join('\n')}\n\n${conditions(results, ours, columns, file)}\n`;
}

function bestOf({ subjects, samples }: Results): SubjectRecord | undefined {
  const measured = new Set(samples.filter(({ error }) => error === undefined).map(({ subject }) => subject));
  return subjects.findLast(({ kind, name }) => kind === 'dualport' && measured.has(name));
}

/** Bounds and peers; a peer and its variants, whose names begin with its own, share a column. */
function columnsOf({ subjects }: Results): readonly (readonly SubjectRecord[])[] {
  const others = subjects.filter(({ kind, missing }) => kind !== 'dualport' && missing === undefined);
  const isVariant = (of: SubjectRecord) => (other: SubjectRecord) => other.name.startsWith(`${of.name}-`);
  return others
    .filter((subject) => !others.some((other) => isVariant(other)(subject)))
    .map((subject) => [subject, ...others.filter(isVariant(subject))]);
}

/** The last topology, from IPv4 to IPv4 if that was measured: a README is short, and the rest is a click away. */
function worldShown(results: Results): World | undefined {
  const worlds = worldsOf(results).filter(({ cells }) => cells.length > 0);
  const topology = results.topologies.findLast(({ name }) => worlds.some((world) => world.topology === name));
  const here = worlds.filter((world) => world.topology === topology?.name);
  return here.toSorted((a, b) => a.families.localeCompare(b.families))[0];
}

/** The lightest and the heaviest of each group as they are listed; across the families the first is enough. */
function headlinesOf({ workloads }: World): readonly WorkloadRecord[] {
  return workloads.filter(
    ({ group }, at) => workloads[at - 1]?.group !== group || workloads[at + 1]?.group !== group,
  );
}

/** As of memory that an earlier load has left to a relay, which grows by nothing then. */
function sawNothing(
  { cells }: World,
  { name, metrics: [metric] }: WorkloadRecord,
  ours: SubjectRecord,
): boolean {
  return cells.some(
    (cell) =>
      cell.workload === name &&
      cell.metric === metric?.name &&
      cell.subject === ours.name &&
      cell.median === 0,
  );
}

function rowOf(
  world: World,
  workload: WorkloadRecord,
  ours: SubjectRecord,
  columns: readonly (readonly SubjectRecord[])[],
): readonly string[] {
  const [metric] = workload.metrics;
  if (metric === undefined) return [];
  const ratios = world.ratios.filter(
    (ratio) =>
      ratio.workload === workload.name && ratio.metric === metric.name && ratio.subject === ours.name,
  );
  const cells = columns.map((variants) => {
    const own = ratios.filter(({ against }) => variants.some(({ name }) => name === against));
    return cellText(own.toSorted(hardestFirst(metric))[0]);
  });
  return [`${escaped(workload.title)}: ${escaped(metric.title)} (${betterText(metric)})`, ...cells];
}

/** A variant of too few rounds stands back, whatever it reached in these. */
function hardestFirst({ better }: MetricRecord): (a: Ratio, b: Ratio) => number {
  const isThin = ({ rounds }: Ratio) => Number(rounds < fewestRounds);
  const sign = better === 'higher' ? 1 : -1;
  return (a, b) => isThin(a) - isThin(b) || sign * (a.median - b.median);
}

function cellText(ratio: Ratio | undefined): string {
  if (ratio === undefined) return '–';
  const text = `${ratioFigure(ratio.median)} ${intervalText(ratio)}`;
  if (ratio.verdict === 'better') return `**${text}**`;
  return ratio.verdict === 'worse' ? `*${text}*` : text;
}

function conditions(
  results: Results,
  ours: SubjectRecord,
  columns: readonly (readonly SubjectRecord[])[],
  file: string,
): string {
  const { machine, plan, rounds, complete, startedAt, topologies } = results;
  const shown = worldShown(results)?.topology;
  const topology = topologies.find(({ name }) => name === shown);
  const versions = [ours, ...columns.flatMap(([first]) => (first?.kind === 'peer' ? [first] : []))];
  const variants = columns.filter(({ length }) => length > 1).map(([first]) => first?.name ?? '');
  return [
    `Median of the rounds' ratios [${intervalName(rounds)}]; **bold** is better, *italic* worse, plain no difference that`,
    ` ${counted(rounds, 'round')} could show. `,
    variants.length === 0
      ? ''
      : `Of ${escaped(listed(variants))} the configuration that does best against dualport. `,
    `${shown} (${escaped(topology?.title ?? '')}), ${plan} plan${complete ? '' : ', cut short'}, ${dateText(startedAt)}: ${escaped(machine.cpu)},`,
    ` ${counted(machine.cpus, 'CPU')}, ${bytesText(machine.memory)}, ${escaped(machine.hypervisor)}, Linux ${escaped(machine.kernel)}, Node ${escaped(machine.node)};`,
    ` ${escaped(listed(versions.map(({ name, version }) => `${name} ${version}`)))}.`,
    ` All figures: [${file}](${file}).`,
  ].join('');
}

/** What Markdown or HTML would take for markup. */
function escaped(text: string): string {
  return text.replace(/[\\`*_[\]<>|&]/g, '\\$&').replace(/\s+/g, ' ');
}
