/**
 * What every engine promises, as sentences. An engine that cannot keep one declares it as an exclusion with
 * the reason; exclusions are printed, are not skips, and must name a test that exists.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Engine } from '../../src/engine/engine.ts';
import { descriptorsSettled, openDescriptors } from '../support/fds.ts';
import { type Requirement, skipUnless } from '../support/requirements.ts';
import { Harness } from './harness.ts';

export interface Case {
  readonly title: string;
  readonly needs?: readonly Requirement[];
  /** The engine's limit of flows; small, so that a case can meet it. */
  readonly maxFlows?: number;
  readonly run: (harness: Harness) => Promise<void>;
}

export interface Exclusion {
  readonly title: string;
  readonly reason: string;
}

export function engineSuite(
  subject: string,
  makeEngine: (maxFlows: number) => Engine,
  cases: readonly Case[],
  exclusions: readonly Exclusion[] = [],
): void {
  describe(subject, () => {
    let descriptors = 0;
    before(() => {
      descriptors = openDescriptors();
    });
    after(async () => {
      assert.equal(await descriptorsSettled(descriptors), descriptors, 'every descriptor was given back');
    });
    for (const { title, needs, maxFlows = 20, run } of cases) {
      const exclusion = exclusions.find((excluded) => excluded.title === title);
      if (exclusion !== undefined) {
        console.log(`excluded: ${subject}: ${title}: ${exclusion.reason}`);
        continue;
      }
      test(title, { skip: skipUnless(...(needs ?? [])), timeout: 60_000 }, () =>
        withHarness(makeEngine(maxFlows), run),
      );
    }
    test('every exclusion names a promise of the suite', () => {
      const titles = new Set(cases.map(({ title }) => title));
      assert.deepEqual(
        exclusions.filter(({ title }) => !titles.has(title)),
        [],
      );
    });
  });
}

async function withHarness(engine: Engine, run: Case['run']): Promise<void> {
  const harness = new Harness(engine);
  try {
    await run(harness);
  } finally {
    await harness.close();
  }
}
