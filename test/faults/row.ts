/**
 * A row: a fault or an abuse, and what a relay promises in spite of it. Rows are data, so that the same ones are tests
 * of dualport's engines and questions to other relays.
 */
import { Stage } from '../support/dualport.ts';
import { Scene } from './scene.ts';
import type { Subject, SubjectName } from './subject.ts';
import { Broken, NothingSaid } from './verdict.ts';

export interface Row {
  /** Its group's letter and a number, which it keeps. */
  readonly id: string;
  /** What is promised, as a sentence. */
  readonly promise: string;
  /** Why it says nothing about these, by nature or by a decision that is documented. */
  readonly silent?: Partial<Record<SubjectName, string>>;
  /** Returns a figure for the table, as text, if there is one worth it. */
  readonly play: (scene: Scene) => Promise<unknown>;
}

export type Outcome =
  | { readonly state: 'kept'; readonly figure: string }
  | { readonly state: 'broken'; readonly seen: string; readonly error: unknown }
  | { readonly state: 'silent'; readonly reason: string };

/** Why a row says nothing about everything that is not dualport. */
export function onlyDualport(reason: string): NonNullable<Row['silent']> {
  return { haproxy: reason, nginx: reason, 'docker-proxy': reason };
}

/** A row that never ends has to end. */
const limitMs = 90_000;

export async function play(row: Row, subject: Subject): Promise<Outcome> {
  const reason = row.silent?.[subject.name];
  if (reason !== undefined) return { state: 'silent', reason };
  const scene = new Scene(subject, new Stage({ after: () => {} }));
  try {
    return await withinLimit(playThrough(row, scene));
  } catch (error) {
    if (error instanceof NothingSaid) return { state: 'silent', reason: error.message };
    return { state: 'broken', seen: seenIn(error), error };
  } finally {
    await scene.clear();
  }
}

async function playThrough(row: Row, scene: Scene): Promise<Outcome> {
  const figure = await row.play(scene);
  await scene.end();
  return { state: 'kept', figure: typeof figure === 'string' ? figure : '' };
}

function seenIn(error: unknown): string {
  if (error instanceof Broken) return error.message;
  return error instanceof Error ? (error.message.split('\n')[0] ?? error.name) : String(error);
}

async function withinLimit<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const tooLong = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Broken(`nothing to be seen within ${limitMs / 1000} s`)), limitMs);
  });
  try {
    return await Promise.race([work, tooLong]);
  } finally {
    clearTimeout(timer);
  }
}
