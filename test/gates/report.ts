/**
 * What came of the gates: a line each, whose words are fixed so that two releases can be compared; what is broken; and
 * all figures as JSON.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { figuresOf } from './gate.ts';
import type { Form } from './options.ts';
import type { Outcome } from './run.ts';
import type { Find } from './seeded.ts';

export interface Report {
  readonly startedAt: string;
  readonly form: Form;
  readonly node: string;
  readonly kernel: string;
  readonly cpus: number;
  readonly openFiles: number;
  readonly lines: readonly string[];
  readonly gates: readonly {
    readonly gate: string;
    readonly promise: string;
    readonly engine: string;
    readonly figures: Outcome['figures'];
    readonly broken: readonly string[];
    readonly seconds: number;
  }[];
  readonly seeds: readonly {
    readonly fault: string;
    readonly gate: string;
    readonly engine: string;
    readonly caught: boolean;
    readonly said: string;
  }[];
}

const nameWidth = 13;

export function reportOf(
  outcomes: readonly Outcome[],
  finds: readonly Find[],
  form: Form,
  startedAt: Date,
  openFiles: number,
): Report {
  return {
    startedAt: startedAt.toISOString(),
    form,
    node: process.version,
    kernel: release(),
    cpus: cpus().length,
    openFiles,
    lines: [...linesOf(outcomes), ...seedLines(finds)],
    gates: outcomes.map(({ gate, engine, figures, broken, seconds }) => ({
      gate: gate.name,
      promise: gate.promise,
      engine,
      figures,
      broken,
      seconds: Math.round(seconds * 10) / 10,
    })),
    seeds: finds.map(({ seed, caught, said }) => ({
      ...{ fault: seed.fault, gate: seed.gate, engine: seed.engine },
      ...{ caught, said },
    })),
  };
}

/** A figure that a broken gate did not get to has a dash. */
function linesOf(outcomes: readonly Outcome[]): readonly string[] {
  const gates = [...new Set(outcomes.map(({ gate }) => gate))];
  return gates.map((gate) => {
    const own = outcomes.filter((outcome) => outcome.gate === gate);
    const figures = figuresOf(new Map(own.map((outcome) => [outcome.engine, outcome.figures])));
    const holds = own.every(({ broken }) => broken.length === 0);
    return `${gate.name.padEnd(nameWidth)}${gate.line(figures).replaceAll('NaN', '–')}${holds ? '' : '   BROKEN'}`;
  });
}

function seedLines(finds: readonly Find[]): readonly string[] {
  if (finds.length === 0) return [];
  const caught = finds.filter((find) => find.caught).length;
  return [
    `${'seeded bugs'.padEnd(nameWidth)}${caught}/${finds.length} caught${caught < finds.length ? '   BROKEN' : ''}`,
  ];
}

export function lostLines(finds: readonly Find[]): readonly string[] {
  const all = finds.filter(({ caught }) => !caught);
  return all.map(
    ({ seed, said }) => `seeded bug not caught: ${seed.fault} (${seed.gate}, ${seed.engine}): ${said}`,
  );
}

export function brokenLines(outcomes: readonly Outcome[]): readonly string[] {
  return outcomes.flatMap(({ gate, engine, broken }) =>
    broken.map((text) => `${gate.name} (${engine}): ${text}`),
  );
}

export function writeReport(folder: string, report: Report): string {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, 'gates.json');
  writeFileSync(path, `${JSON.stringify(report, undefined, 1)}\n`);
  return path;
}
