/** The first look at a run, in a terminal: medians of the main metric, a row a workload, a column a subject. */
import type { Cell, Results, WorkloadRecord } from './results.ts';

export function summaryOf(results: Results): string {
  const pairs = new Set(results.cells.map(({ topology, families }) => `${topology} ${families}`));
  return [...pairs].map((pair) => tableOf(results, pair)).join('\n\n');
}

function tableOf({ cells, subjects, workloads }: Results, pair: string): string {
  const here = cells.filter(({ topology, families }) => `${topology} ${families}` === pair);
  const columns = subjects.filter(({ name }) => here.some(({ subject }) => subject === name));
  const rows = workloads
    .filter(({ name }) => here.some(({ workload }) => workload === name))
    .map((workload) => [
      `${workload.name}, ${workload.metrics[0]?.unit}`,
      ...columns.map(({ name }) => figure(here, workload, name)),
    ]);
  return aligned([[pair, ...columns.map(({ name }) => name)], ...rows]);
}

function figure(cells: readonly Cell[], { name, metrics }: WorkloadRecord, subject: string): string {
  const cell = cells.find(
    (each) => each.workload === name && each.metric === metrics[0]?.name && each.subject === subject,
  );
  return cell === undefined ? '–' : short(cell.median);
}

/** Three digits are more than a virtual machine can promise. */
function short(value: number): string {
  if (value >= 100_000) return `${Math.round(value / 1000)}k`;
  return value >= 100 ? `${Math.round(value)}` : value.toPrecision(3);
}

function aligned(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
        .join('  '),
    )
    .join('\n');
}
