/** What a generator says: a line of JSON each. */
import { once } from 'node:events';
import type { Child } from '../../bench/processes.ts';

/** The n-th line that it prints, counted from 1. */
export async function spokenLine(child: Child, n: number, patienceMs: number): Promise<string> {
  const deadline = AbortSignal.timeout(patienceMs);
  for (;;) {
    const lines = child.stdout.split('\n');
    if (lines.length > n) return lines[n - 1] ?? '';
    if (!child.alive) throw new Error(child.lastWords);
    const spoken = once(child.process.stdout ?? child.process, 'data', { signal: deadline });
    await Promise.race([spoken, child.ended]).catch(() => {
      throw new Error(`${child.command} has said nothing for ${patienceMs / 1000} s`);
    });
  }
}

/** Its last whole line so far; undefined before the first. */
export function lastSpoken(child: Child): string | undefined {
  return child.stdout.split('\n').at(-2);
}
