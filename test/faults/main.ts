/**
 * `npm run faults`: every row against every subject, and RELIABILITY.md, where they stand side by side.
 *
 *   npm run faults -- [--out FILE] [--rows A1,C14] [--subjects linux,nginx]
 *
 * Two subjects are played at a time, each in a network of its own. Less than everything is printed and not written.
 * Status 0: dualport keeps every row; what others do has no influence. 2: wrong usage. Where something is missing that rows or other
 * programs need, that is said and is no failure; in CI it is.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { skipUnless } from '../support/requirements.ts';
import type { Played } from './lane.ts';
import { type Cell, describeMachine, render, type Table, tally } from './report.ts';
import { rows } from './rows/all.ts';
import type { Subject } from './subject.ts';
import { subjects } from './subjects/all.ts';

const lanes = 2;
const lane = fileURLToPath(new URL('lane.js', import.meta.url));
const root = fileURLToPath(new URL('../../..', import.meta.url));

const values = parsed();
const chosenRows = chosen(rows, values.rows, ({ id }) => id, 'rows');
const chosenSubjects = chosen(subjects, values.subjects, ({ name }) => name, 'subjects');

const running = new Set<ChildProcess>();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    for (const child of running) child.kill('SIGTERM');
    process.exitCode = 1;
  });
}

function parsed() {
  try {
    return parseArgs({
      options: {
        out: { type: 'string', default: `${root}RELIABILITY.md` },
        rows: { type: 'string' },
        subjects: { type: 'string' },
      },
    }).values;
  } catch (error) {
    return refuse(
      `${(error as Error).message}; allowed: --out <file>, --rows A1,C14, --subjects linux,nginx`,
    );
  }
}

function refuse(why: string): never {
  process.stderr.write(`faults: ${why}\n`);
  process.exit(2);
}

function chosen<T>(all: readonly T[], wish: string | undefined, nameOf: (one: T) => string, what: string) {
  if (wish === undefined) return all;
  const names = wish.split(',');
  const unknown = names.filter((name) => !all.some((one) => nameOf(one) === name));
  if (unknown.length > 0) refuse(`--${what}: found ${unknown}; allowed: ${all.map(nameOf).join(', ')}`);
  return all.filter((one) => names.includes(nameOf(one)));
}

const table: Table = {
  rows: chosenRows,
  columns: chosenSubjects.map((subject) => ({ subject, version: '', cells: new Map<string, Cell>() })),
  startedAt: new Date(),
  machine: describeMachine(),
};

const missing = skipUnless('linux', 'root', 'netns', 'nft', 'perl', 'strace');
if (missing !== false) {
  process.stdout.write(`${tally(table).line}\n`);
  process.stderr.write(`faults: every row is skipped: ${missing}\n`);
  process.exit(0);
}

/** The longest first. */
const waiting = [...table.columns];
const start = performance.now();
await Promise.all(
  Array.from({ length: lanes }, async () => {
    for (let column = waiting.shift(); column !== undefined; column = waiting.shift()) await fill(column);
  }),
);

async function fill(column: Table['columns'][number]): Promise<void> {
  const { subject, cells } = column;
  try {
    column.version = subject.version();
  } catch (error) {
    column.version = `not here: ${(error as Error).message}`;
    return;
  }
  const ids = chosenRows.map(({ id }) => id);
  const child = spawn(process.execPath, [lane, subject.name, ...ids], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  running.add(child);
  const ended = once(child, 'close');
  for await (const line of createInterface({ input: child.stdout })) hear(subject, cells, JSON.parse(line));
  await ended;
  running.delete(child);
}

function hear(subject: Subject, cells: Map<string, Cell>, { row, ms, outcome }: Played): void {
  cells.set(row, outcome);
  const said = saidOf(outcome);
  const promise = rows.find(({ id }) => id === row)?.promise;
  const what = `${row.padEnd(5)}${subject.name.padEnd(14)}${String(ms).padStart(6)} ms  ${outcome.state}`;
  process.stderr.write(`${what}: ${promise}${said === '' ? '' : `: ${said}`}\n`);
}

function saidOf(cell: Cell): string {
  if (cell.state === 'kept') return cell.figure;
  return cell.state === 'broken' ? cell.seen : cell.reason;
}

const { line, failures, absent } = tally(table);
for (const failure of [...failures, ...absent]) process.stderr.write(`faults: ${failure}\n`);
process.stdout.write(`${line}\n`);
process.stderr.write(`${Math.round((performance.now() - start) / 1000)} s\n`);
const whole = chosenRows.length === rows.length && chosenSubjects.length === subjects.length;
if (whole && process.exitCode === undefined) writeFileSync(values.out, render(table));
else process.stderr.write('RELIABILITY.md was not written: not everything was played\n');
if (failures.length > 0 || (absent.length > 0 && process.env['CI'] === 'true')) process.exitCode = 1;
