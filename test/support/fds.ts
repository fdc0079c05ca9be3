/** Counts this process's open descriptors, to see that a suite gave everything back. */
import { readdirSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Waits up to two seconds for the count to come back to `expected`; returns the last count. */
export async function descriptorsSettled(expected: number): Promise<number> {
  for (let i = 0; i < 40 && openDescriptors() > expected; i++) await setTimeout(50);
  return openDescriptors();
}
