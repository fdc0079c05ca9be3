/**
 * `npm run bench:report -- <results.json> [<out.html>]`: the page of a run once more, such as after a change of
 * the page. Without a second word it is written beside the results.
 */
import { writeFileSync } from 'node:fs';
import { readResults } from './read-results.ts';
import { renderReport } from './report.ts';

const [results, out = results?.replace(/(?:\.json)?$/, '.html'), ...more] = process.argv.slice(2);
try {
  if (results === undefined || out === undefined || more.length > 0) {
    throw new Error('usage: npm run bench:report -- <results.json> [<out.html>]');
  }
  writeFileSync(out, renderReport(readResults(results)));
  console.log(out);
} catch (error) {
  console.error(`bench:report: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
