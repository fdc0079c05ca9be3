/** `npm run bench`: argv → a run → a JSON file and a page. The only place that ends the process. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildLoad } from './load/programs.ts';
import { help, type Options, parseOptions, UsageError } from './options.ts';
import { makePlan } from './plan.ts';
import { Progress } from './progress.ts';
import { renderReport } from './report/report.ts';
import type { Results } from './results.ts';
import { run } from './run.ts';
import { shortfallsOf } from './smoke.ts';
import { allSubjects } from './subjects/all.ts';
import { summaryOf } from './summary.ts';
import { allWorkloads } from './workloads/all.ts';
import { mayMakeNamespaces } from './world.ts';

const notRoot =
  'Without root there are no network namespaces: only T1, on the loopback of this machine, is measured.';

const words = process.argv.slice(2);
try {
  process.exitCode = await main(parseOptions(words));
} catch (error) {
  process.stderr.write(`bench: ${(error as Error).message}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}

async function main(options: Options): Promise<number> {
  if (options.help) return print(help);
  if (options.list) return print(listing());
  // What cannot be written shall not be known after half an hour.
  mkdirSync(options.out, { recursive: true });
  buildLoad();
  const root = mayMakeNamespaces();
  const remarks = root ? [] : [notRoot];
  for (const remark of remarks) process.stderr.write(`${remark}\n`);
  const interrupt = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => interrupt.abort());
  const progress = new Progress(process.stderr);
  const results = await run(
    makePlan(options, root),
    withoutFolder(words),
    remarks,
    progress,
    interrupt.signal,
  );
  const path = write(results, options.out);
  print(`${summaryOf(results)}\n${path}.html\n${path}.json\n`);
  if (interrupt.signal.aborted) return 130;
  return options.plan === 'smoke' ? judge(results) : 0;
}

/** Where the files went is of no interest to who reads them. */
function withoutFolder(all: readonly string[]): readonly string[] {
  return all.filter((word, i) => !word.startsWith('--out') && all[i - 1] !== '--out');
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

function listing(): string {
  const of = (items: readonly { readonly name: string; readonly title: string }[]) =>
    items.map(({ name, title }) => `  ${name.padEnd(20)} ${title}\n`).join('');
  return `Workloads:\n${of(allWorkloads)}Subjects:\n${of(allSubjects)}`;
}

/** The path without its suffix. */
function write(results: Results, folder: string): string {
  const path = join(folder, results.startedAt.slice(0, 19).replaceAll(':', '-'));
  writeFileSync(`${path}.json`, `${JSON.stringify(results, undefined, 1)}\n`);
  writeFileSync(`${path}.html`, renderReport(results));
  return path;
}

function judge(results: Results): number {
  const shortfalls = shortfallsOf(results);
  for (const shortfall of shortfalls) process.stderr.write(`bench: ${shortfall}\n`);
  return shortfalls.length === 0 ? 0 : 1;
}
