/** Garbage collection on demand, without a flag on the command line, for tests that measure memory. */
import { setTimeout } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

export function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
}

/** The bytes of all buffers once garbage is gone; on a busy machine that may take more than one collection. */
export async function heldBytes(expected: number): Promise<number> {
  collectGarbage();
  for (let i = 0; i < 40 && process.memoryUsage().arrayBuffers > expected; i++) {
    await setTimeout(50);
    collectGarbage();
  }
  return process.memoryUsage().arrayBuffers;
}
