/**
 * Brings the kernel to a plan, all of it or nothing: the first command that fails has those before it undone,
 * latest first. A removal goes on instead, because less of what is to go is better than all of it.
 */
import { DualportError, messageOf } from '../errors.ts';
import { type Step, stepsTo } from './change.ts';
import { emptyPlan, type Plan } from './plan.ts';
import { type PlaceNames, readPresent } from './present.ts';
import { type Command, must, type Run } from './system.ts';

/**
 * The kernel deletes the first rule that has the words of the one to go, and that can be another with more words;
 * then it is made again in the next round.
 */
const mostRounds = 4;

/** Told of every command that was run, also of those that undo. */
export type Told = (command: Command) => void;

/**
 * @param stop when it is aborted, what has begun is undone
 * @returns whether anything had to be done
 * @throws DualportError SETUP_FOREIGN, PRIVILEGE, SETUP or SETUP_TOOL; then everything is as it was
 */
export async function applyPlan(
  start: Run,
  plan: Plan,
  names: PlaceNames,
  told: Told = () => {},
  stop?: AbortSignal,
): Promise<boolean> {
  const done: Step[] = [];
  try {
    for (let round = 0; round < mostRounds; round++) {
      const present = await readPresent(start, names, plan);
      if (present.foreign.length > 0) throw foreignError(present.foreign);
      const steps = stepsTo(plan, present, names);
      if (steps.length === 0) return round > 0;
      for (const step of steps) {
        if (stop?.aborted) throw new DualportError('SETUP', 'the set-up was interrupted');
        await must(start, step.command);
        done.push(step);
        told(step.command);
      }
    }
    throw new DualportError('SETUP', 'somebody else changes the same rules at the same time');
  } catch (error) {
    await undo(start, done, error, told);
    throw error;
  }
}

async function undo(start: Run, done: readonly Step[], reason: unknown, told: Told): Promise<void> {
  const left: string[] = [];
  for (const { undo: command } of [...done].reverse()) {
    await must(start, command).then(
      () => told(command),
      (error: unknown) => left.push(messageOf(error)),
    );
  }
  if (left.length === 0) return;
  throw new DualportError(
    'SETUP',
    `${messageOf(reason)}; and not everything could be undone (${left.join('; ')}): run dualport transparent down`,
    { cause: reason },
  );
}

export interface Removal {
  readonly changed: boolean;
  /** What of others stands in our place, and was left. */
  readonly foreign: readonly string[];
}

/** @throws DualportError when something of ours is left */
export async function removeAll(start: Run, names: PlaceNames, told: Told = () => {}): Promise<Removal> {
  let changed = false;
  for (let round = 0; ; round++) {
    const present = await readPresent(start, names, emptyPlan);
    const steps = stepsTo(emptyPlan, present, names);
    if (steps.length === 0) return { changed, foreign: present.foreign };
    const failures: unknown[] = [];
    for (const { command } of steps) {
      await must(start, command).then(
        () => {
          changed = true;
          told(command);
        },
        (error: unknown) => failures.push(error),
      );
    }
    if (round === mostRounds - 1) failures.push(new DualportError('SETUP', 'somebody makes them again'));
    if (failures.length >= steps.length || round === mostRounds - 1) throw removalError(failures);
  }
}

function removalError(failures: readonly unknown[]): DualportError {
  const [first] = failures;
  const code = first instanceof DualportError ? first.code : 'SETUP';
  const more = failures.length > 1 ? ` (and ${failures.length - 1} more)` : '';
  return new DualportError(code, `not everything could be removed: ${messageOf(first)}${more}`, {
    cause: first,
  });
}

/** Nothing is done where somebody else is. */
export function foreignError(foreign: readonly string[]): DualportError {
  return new DualportError(
    'SETUP_FOREIGN',
    `${foreign.join('; ')}. Remove it, or give dualport other places: --transparent-priority, --transparent-route-table, ` +
      '--transparent-table',
  );
}
