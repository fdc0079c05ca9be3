/**
 * The rows as tests of one engine of the built program, in a network of their own. The last line says how many were
 * played, in a form that is the same in every release.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { skipUnless } from '../support/requirements.ts';
import { inOwnNetwork, moveToOwnNetwork, prepareNetwork } from './network.ts';
import { play, type Row } from './row.ts';
import { linux, portable } from './subjects/dualport.ts';

const skip = skipUnless('linux', 'root', 'netns', 'nft', 'perl', 'strace');

export async function faultSuite(engine: 'linux' | 'portable', rows: readonly Row[]): Promise<void> {
  if (skip === false && !inOwnNetwork()) await moveToOwnNetwork();
  const subject = engine === 'linux' ? linux : portable;
  let passed = 0;
  let skipped = 0;
  if (skip === false) prepareNetwork();
  for (const { id, promise, silent } of rows) {
    const excluded = silent?.[engine];
    if (excluded !== undefined) console.log(`excluded: ${engine}: ${id} ${promise}: ${excluded}`);
  }
  const wanted = rows.filter(({ silent }) => silent?.[engine] === undefined);
  for (const row of wanted) {
    test(`${row.id} ${row.promise}`, { skip, timeout: 90_000 }, async () => {
      const outcome = await play(row, subject);
      if (outcome.state === 'broken') throw outcome.error;
      assert.equal(outcome.state, 'kept', 'a row of dualport is never left out');
      passed++;
    });
    if (skip !== false) skipped++;
  }
  after(() => {
    const played = `${passed}/${wanted.length} passed`.padEnd(16);
    console.log(
      `fault rows   ${played}${skipped} skipped      engine ${engine}   node ${process.versions.node}`,
    );
  });
}
