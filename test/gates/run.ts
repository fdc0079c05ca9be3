/**
 * Runs gates. Each is run for all engines at once, since most of the time one waits for what the other uses, and beside
 * those of other lanes.
 */
import { join } from 'node:path';
import { Arena } from './arena.ts';
import { type Figures, Findings } from './findings.ts';
import type { Gate } from './gate.ts';
import type { EngineName, Form } from './options.ts';

export interface Outcome {
  readonly gate: Gate;
  readonly engine: EngineName;
  readonly figures: Figures;
  /** What was expected and what was seen; empty when the gate holds. */
  readonly broken: readonly string[];
  readonly seconds: number;
}

export interface Task {
  readonly engines: readonly EngineName[];
  readonly form: Form;
  /** The main file of what is judged. */
  readonly product: string;
  readonly folder: string;
  readonly done: (outcome: Outcome) => void;
}

export async function runGates(gates: readonly Gate[], task: Task): Promise<readonly Outcome[]> {
  const lanes = [...new Set(gates.map(({ lane }) => lane))];
  const run = (lane: Gate['lane']) =>
    inTurn(
      gates.filter((gate) => gate.lane === lane),
      task,
    );
  const outcomes = (await Promise.all(lanes.map(run))).flat();
  return outcomes.sort((a, b) => gates.indexOf(a.gate) - gates.indexOf(b.gate));
}

async function inTurn(gates: readonly Gate[], task: Task): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const gate of gates)
    outcomes.push(...(await Promise.all(task.engines.map((engine) => runGate(gate, engine, task)))));
  return outcomes;
}

export async function runGate(gate: Gate, engine: EngineName, task: Task): Promise<Outcome> {
  const start = performance.now();
  const findings = new Findings();
  const folder = join(task.folder, `${gate.name}-${engine}`.replaceAll(' ', '-'));
  const arena = new Arena(engine, task.form, task.product, folder);
  try {
    await gate.run(arena, findings);
  } catch (error) {
    findings.broken.push(error instanceof Error ? error.message : String(error));
  }
  await arena.close();
  const { figures, broken } = findings;
  const outcome = { gate, engine, figures, broken, seconds: (performance.now() - start) / 1000 };
  task.done(outcome);
  return outcome;
}
