/** Plays rows against one subject, in a network of its own; a line of JSON for each. */
import { inOwnNetwork, moveToOwnNetwork, prepareNetwork } from './network.ts';
import type { Cell } from './report.ts';
import { play } from './row.ts';
import { rows } from './rows/all.ts';
import { subjects } from './subjects/all.ts';

/** What a lane says of a row. */
export interface Played {
  readonly row: string;
  readonly ms: number;
  readonly outcome: Cell;
}

if (!inOwnNetwork()) await moveToOwnNetwork();
prepareNetwork();
const [whom = '', ...which] = process.argv.slice(2);
const subject = subjects.find(({ name }) => name === whom);
if (subject === undefined) throw new Error(`no subject is called ${whom}`);
for (const row of rows.filter(({ id }) => which.includes(id))) {
  const start = performance.now();
  const { error, ...outcome } = { error: undefined, ...(await play(row, subject)) };
  const played: Played = { row: row.id, ms: Math.round(performance.now() - start), outcome };
  process.stdout.write(`${JSON.stringify(played)}\n`);
  if (error !== undefined && /^(linux|portable)$/.test(whom)) console.error(`${row.id} ${whom}:`, error);
}
process.exit(0);
