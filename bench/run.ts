/**
 * A whole run: what is missing is found out first, then block after block, and whatever has been found is
 * written at the end, also if the end is Ctrl-C.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type RunContext, runBlock } from './block.ts';
import { cellsOf, ratiosOf } from './compare.ts';
import { describeMachine } from './machine.ts';
import { expectedSeconds, type Plan } from './plan.ts';
import { Processes } from './processes.ts';
import type { Progress } from './progress.ts';
import type {
  GateRecord,
  Machine,
  Results,
  Sample,
  SubjectRecord,
  TopologyRecord,
  WorkloadRecord,
} from './results.ts';
import type { Subject } from './subjects/subject.ts';
import { connectionsWithin } from './workloads/idle.ts';
import type { Workload } from './workloads/workload.ts';
import { ownName } from './world.ts';

export interface Findings {
  readonly topologies: Map<string, TopologyRecord>;
  readonly gates: GateRecord[];
  readonly samples: Sample[];
  readonly remarks: Set<string>;
}

export async function run(
  plan: Plan,
  words: readonly string[],
  remarks: readonly string[],
  progress: Progress,
  signal: AbortSignal,
): Promise<Results> {
  const startedAt = new Date();
  const findings: Findings = { topologies: new Map(), gates: [], samples: [], remarks: new Set(remarks) };
  const machine = describeMachine();
  const records = plan.subjects.map(describeSubject);
  for (const remark of missingTools(plan, machine)) findings.remarks.add(remark);
  const possible = withoutMissingTools(plan, machine);
  const complete = await runBlocks(possible, records, findings, startedAt, progress, signal);
  const workloads = [...new Set(plan.blocks.flatMap((block) => block.workloads))].map(describeWorkload);
  const { samples } = findings;
  return {
    schema: 1,
    plan: plan.name,
    arguments: words,
    startedAt: startedAt.toISOString(),
    finishedAt: new Date().toISOString(),
    complete,
    rounds: plan.rounds,
    remarks: [...findings.remarks],
    machine,
    topologies: [...findings.topologies.values()],
    subjects: records,
    workloads,
    gates: findings.gates,
    samples,
    cells: cellsOf(samples, workloads),
    ratios: ratiosOf(samples, workloads, records),
  };
}

/** Whether it came to its end. Nothing that was started is left, whichever way it ended. */
async function runBlocks(
  plan: Plan,
  records: readonly SubjectRecord[],
  findings: Findings,
  startedAt: Date,
  progress: Progress,
  signal: AbortSignal,
): Promise<boolean> {
  const processes = new Processes();
  const folder = mkdtempSync(join(tmpdir(), `${ownName}-`));
  const stop = () => processes.close();
  signal.addEventListener('abort', stop);
  const within = connectionsWithin(processes.openFileLimit);
  if (within < plan.idle) findings.remarks.add(fewerIdle(processes.openFileLimit, within));
  progress.expect(expectedSeconds(plan));
  const context = contextOf(plan, records, findings, processes, folder, startedAt, progress, signal);
  try {
    for (const block of plan.blocks) {
      if (!signal.aborted) await runBlock(block, context);
    }
  } catch (error) {
    // Ctrl-C shows as a failure of whatever was under way.
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', stop);
    await processes.close();
    rmSync(folder, { recursive: true, force: true });
    progress.end();
  }
  return !signal.aborted;
}

function contextOf(
  plan: Plan,
  records: readonly SubjectRecord[],
  findings: Findings,
  processes: Processes,
  folder: string,
  startedAt: Date,
  progress: Progress,
  signal: AbortSignal,
): RunContext {
  const seconds = () => Math.round(Date.now() - startedAt.getTime()) / 1000;
  return {
    plan,
    processes,
    subjects: plan.subjects.filter((_, i) => records[i]?.missing === undefined),
    signal,
    scratch: () => mkdtempSync(join(folder, 'subject-')),
    world: ({ record, remarks }) => {
      findings.topologies.set(record.name, record);
      for (const remark of remarks) findings.remarks.add(remark);
    },
    gate: (record) => {
      findings.gates.push(record);
      if (record.outcome === 'failed')
        progress.say(`${record.subject} fails (${record.protocol}): ${record.reason}`);
    },
    sample: (sample) => {
      findings.samples.push({ ...sample, at: seconds() });
      if (sample.error !== undefined)
        progress.say(`${sample.subject} failed at ${sample.workload}: ${sample.error}`);
    },
    remark: (text) => {
      findings.remarks.add(text);
      progress.say(text);
    },
    doing: (what) => progress.doing(what),
    done: (expected) => progress.done(expected),
  };
}

function fewerIdle(openFiles: number, within: number): string {
  return `The open file limit here is ${openFiles} and may not be raised, so there are ${within} idle connections instead of more.`;
}

function isMissing({ tools }: Machine, { tool }: Workload): boolean {
  return tool !== undefined && tools[tool] === undefined;
}

function missingTools({ blocks }: Plan, machine: Machine): readonly string[] {
  const without = blocks.flatMap(({ workloads }) =>
    workloads.filter((workload) => isMissing(machine, workload)),
  );
  return [...new Set(without.map(({ tool }) => tool))].map((tool) => {
    const names = new Set(without.filter((workload) => workload.tool === tool).map(({ name }) => name));
    return `${tool} is not installed (apt-get install ${tool}), so there are no figures for ${[...names].join(', ')}.`;
  });
}

function withoutMissingTools(plan: Plan, machine: Machine): Plan {
  const blocks = plan.blocks.map((block) => ({
    ...block,
    workloads: block.workloads.filter((workload) => !isMissing(machine, workload)),
  }));
  return { ...plan, blocks };
}

function describeSubject({ name, title, kind, settings, version }: Subject): SubjectRecord {
  try {
    return { name, title, kind, settings, version: version() };
  } catch (error) {
    return { name, title, kind, settings, version: '', missing: (error as Error).message };
  }
}

function describeWorkload({ name, title, method, group, metrics }: Workload): WorkloadRecord {
  return { name, title, method, group, metrics };
}
