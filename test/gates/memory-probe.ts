/**
 * Loaded into a dualport beside its own files, for what no figure from outside tells: how much memory is in use once
 * garbage is gone. V8 and malloc leave garbage lying for as long as they like, so resident memory alone wavers by more
 * than a leak of one object a flow would show. Asked by SIGUSR2, it collects and writes what is left into a file.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export interface MemoryInUse {
  readonly rss: number;
  readonly heapUsed: number;
  readonly external: number;
}

export const probeFile: string = fileURLToPath(import.meta.url);

/** The environment of a probed program: where the file is, and a malloc that gives back what it can. */
export function probeEnvironment(path: string): NodeJS.ProcessEnv {
  const malloc = { MALLOC_ARENA_MAX: '1', MALLOC_MMAP_THRESHOLD_: '8192', MALLOC_TRIM_THRESHOLD_: '0' };
  return { [pathVariable]: path, ...malloc };
}

/** New objects in a space that is as small from the start as it can be, for V8 grows it under load and keeps it. */
export const probeOptions: readonly string[] = [
  ...['--expose-gc', '--min-semi-space-size=1', '--max-semi-space-size=1'],
  ...['--import', probeFile],
];

const pathVariable = 'GATES_PROBE';
const path = process.env[pathVariable];
const collect = (globalThis as { gc?: () => void }).gc;
if (path !== undefined && collect !== undefined) process.on('SIGUSR2', () => void answer(path, collect));

/** What finalizers free is garbage of the next collection. */
async function answer(to: string, collectGarbage: () => void): Promise<void> {
  for (let i = 0; i < 3; i++) {
    collectGarbage();
    await sleep(20);
  }
  const { rss, heapUsed, external } = process.memoryUsage();
  const inUse: MemoryInUse = { rss, heapUsed, external };
  // Never half of it.
  writeFileSync(`${to}.new`, JSON.stringify(inUse));
  renameSync(`${to}.new`, to);
}
