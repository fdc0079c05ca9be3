/** `npm run bench:readme [-- <results.json>]`: renews the README's table, from the newest run in docs/bench/. */
import { readFileSync, writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { newestResults, readResults } from './read-results.ts';
import { readmePart, withBenchPart } from './readme-table.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));

function run([path, ...more]: readonly string[]): void {
  if (more.length > 0) throw new Error('usage: npm run bench:readme [-- <results.json>]');
  const run = path === undefined ? newestResults(`${root}docs/bench`) : { path, results: readResults(path) };
  if (run === undefined) throw new Error('there is no docs/bench/*.json; name a file');
  const readme = `${root}README.md`;
  const part = readmePart(run.results, relative(root, run.path));
  writeFileSync(readme, withBenchPart(readFileSync(readme, 'utf8'), part));
  console.log(`README.md: ${relative(root, run.path)}`);
}

try {
  run(process.argv.slice(2));
} catch (error) {
  console.error(`bench:readme: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
