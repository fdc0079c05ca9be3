/** How a row says what it has seen; its words stand in RELIABILITY.md. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '../engine/harness.ts';

/** The row says nothing about this subject, and why. */
export class NothingSaid extends Error {}

/** What was seen instead of what the row promises. */
export class Broken extends Error {}

/** @param otherwise what was seen */
export function holds(kept: boolean, otherwise: string): asserts kept {
  if (!kept) throw new Broken(otherwise);
}

/** Every one of them is one of these. */
export function allAre(words: readonly string[], wanted: string | readonly string[]): void {
  const expected = typeof wanted === 'string' ? [wanted] : wanted;
  const others = words.filter((word) => !expected.includes(word));
  holds(words.length > 0 && others.length === 0, tally(words));
}

/** How often each of them occurs. */
export function tally(words: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const word of words.map((errno) => wordFor[errno] ?? errno))
    counts.set(word, (counts.get(word) ?? 0) + 1);
  return [...counts].map(([word, count]) => `${word} ×${count}`).join(', ');
}

const wordFor: Readonly<Record<string, string | undefined>> = {
  ECONNRESET: 'reset',
  ECONNREFUSED: 'refused',
  EPIPE: 'reset',
  end: 'clean end',
  nothing: 'no end in time',
};

/** How a client's connection ended, or `nothing`. */
export async function endingWithin(client: Client, ms: number): Promise<string> {
  const timer = new AbortController();
  const tooLate = sleep(ms, 'nothing', { signal: timer.signal }).catch(() => 'nothing');
  const ending = await Promise.race([client.ending, tooLate]);
  timer.abort();
  return ending;
}

/** Waits for what the row promises. */
export async function sees(
  condition: () => boolean | Promise<boolean>,
  ms: number,
  otherwise: () => string,
): Promise<void> {
  const deadline = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Broken(otherwise());
    await sleep(10);
  }
}

export function lastLine(text: string): string {
  return text.trim().split('\n').at(-1) ?? '';
}
