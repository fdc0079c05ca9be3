/** `npm run gates` and `npm run soak`: argv → gates → a report. The only place that ends the process. */
import { fileURLToPath } from 'node:url';
import { openFileLimit } from '../../bench/processes.ts';
import { isolatedFolder, runIsolated, whyNotIsolated } from './isolation.ts';
import { help, type Options, parseOptions, UsageError } from './options.ts';
import { buildGenerators } from './programs.ts';
import { allGates } from './promises/all.ts';
import { brokenLines, lostLines, reportOf, writeReport } from './report.ts';
import { type Outcome, runGates } from './run.ts';
import { type Find, findSeeds } from './seeded.ts';

const product = fileURLToPath(new URL('../../src/main.js', import.meta.url));

try {
  process.exitCode = await main(parseOptions(process.argv.slice(2)));
} catch (error) {
  process.stderr.write(`gates: ${(error as Error).message}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}

async function main(options: Options): Promise<number> {
  if (options.help) return print(help);
  if (isolatedFolder !== undefined) return judge(options, isolatedFolder);
  const why = whyNotIsolated();
  if (why !== undefined) throw new Error(`no namespaces can be made here (${why}); run it as root`);
  buildGenerators();
  return runIsolated();
}

async function judge(options: Options, folder: string): Promise<number> {
  const startedAt = new Date();
  const limit = openFileLimit();
  const { form, engines } = options;
  print(
    `gates        form ${form}   engines ${engines.join(',')}   node ${process.version}   open files ${limit}\n`,
  );
  const gates = allGates.filter(({ name }) => options.gates.includes(name));
  const settings = { engines, form, product, folder };
  const outcomes = options.seedsAlone ? [] : await runGates(gates, { ...settings, done: tellOutcome });
  const seeds = options.seedsAlone || form === 'soak';
  const finds = seeds ? await findSeeds(options.gates, settings, tellFind) : [];
  const report = reportOf(outcomes, finds, form, startedAt, limit);
  for (const line of report.lines) print(`${line}\n`);
  const complaints = [...brokenLines(outcomes), ...lostLines(finds)];
  for (const line of complaints) process.stderr.write(`gates: ${line}\n`);
  if (options.out !== undefined) print(`${writeReport(options.out, report)}\n`);
  return complaints.length > 0 ? 1 : 0;
}

function tellOutcome({ gate, engine, broken, seconds }: Outcome): void {
  const state = broken.length === 0 ? 'holds' : 'BROKEN';
  process.stderr.write(`  ${state}  ${gate.name} (${engine}), ${seconds.toFixed(0)} s\n`);
}

function tellFind({ seed, caught, said }: Find): void {
  process.stderr.write(
    `  ${caught ? 'caught' : 'LOST  '}  ${seed.fault} (${seed.gate}, ${seed.engine}): ${said}\n`,
  );
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}
