/**
 * Reading a run from its file. The whole shape is checked, so that what shows it may rely on every field: a
 * file that was cut off, edited or written by another version is refused with the place that is wrong.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import type { Results } from '../results.ts';

const text = v.string();
const number = v.pipe(v.number(), v.finite());
const texts = v.array(text);
const date = v.pipe(text, v.isoTimestamp());
const better = v.picklist(['higher', 'lower']);
const topology = v.picklist(['T1', 'T2']);
const families = v.picklist(['4to4', '6to6', '6to4']);
const world = { topology, families };
const where = { ...world, workload: text, metric: text };
const spread = { rounds: number, median: number, min: number, max: number };

const schema: v.GenericSchema<unknown, Results> = v.object({
  schema: v.literal(1),
  plan: v.picklist(['full', 'quick', 'smoke']),
  arguments: texts,
  startedAt: date,
  finishedAt: date,
  complete: v.boolean(),
  rounds: number,
  remarks: texts,
  machine: v.object({
    kernel: text,
    cpu: text,
    cpus: number,
    memory: number,
    hypervisor: text,
    node: text,
    tools: v.record(text, text),
  }),
  topologies: v.array(
    v.object({
      name: topology,
      title: text,
      congestionControl: text,
      settings: v.record(text, text),
      offloads: texts,
    }),
  ),
  subjects: v.array(
    v.object({
      name: text,
      title: text,
      kind: v.picklist(['bound', 'peer', 'dualport']),
      version: text,
      settings: text,
      missing: v.exactOptional(text),
    }),
  ),
  workloads: v.array(
    v.object({
      name: text,
      title: text,
      method: text,
      group: v.picklist(['bulk', 'requests', 'latency', 'connections', 'udp', 'memory', 'start-up']),
      metrics: v.array(v.object({ name: text, title: text, unit: text, better })),
    }),
  ),
  gates: v.array(
    v.object({
      ...world,
      subject: text,
      protocol: v.picklist(['tcp', 'udp']),
      outcome: v.picklist(['passed', 'failed', 'not applicable']),
      reason: v.exactOptional(text),
    }),
  ),
  samples: v.array(
    v.object({
      ...world,
      workload: text,
      subject: text,
      round: number,
      values: v.record(text, number),
      latency: v.exactOptional(v.array(v.tuple([number, number]))),
      error: v.exactOptional(text),
      steal: number,
      at: number,
    }),
  ),
  cells: v.array(v.object({ ...where, subject: text, ...spread })),
  ratios: v.array(
    v.object({
      ...where,
      subject: text,
      against: text,
      ...spread,
      low: number,
      high: number,
      verdict: v.picklist(['better', 'worse', 'no difference']),
    }),
  ),
});

/** Throws an Error whose message names the file and what is wrong with it. */
export function readResults(path: string): Results {
  const value = parsed(path);
  if (isObject(value) && 'schema' in value && value.schema !== 1) {
    throw new Error(`${path} has schema ${JSON.stringify(value.schema)}; this version reads schema 1`);
  }
  const checked = v.safeParse(schema, value, { abortEarly: true });
  if (checked.success) return checked.output;
  const [issue] = checked.issues;
  throw new Error(
    `${path} is not a run of the bench: ${v.getDotPath(issue) ?? 'the whole'}: ${issue.message}`,
  );
}

/** The run that was started last among a folder's JSON files, if there are any. */
export function newestResults(folder: string): { path: string; results: Results } | undefined {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .map((name) => join(folder, name))
    .map((path) => ({ path, results: readResults(path) }))
    .sort((a, b) => Date.parse(a.results.startedAt) - Date.parse(b.results.startedAt))
    .at(-1);
}

function parsed(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Error(`cannot read ${path}: ${error instanceof Error ? error.message : error}`);
  }
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
