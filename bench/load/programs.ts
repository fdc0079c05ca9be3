/**
 * Where the load generators are, and how they come about. They are built from the checkout, which is two
 * levels above the compiled file.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../../../bench/load/', import.meta.url));

export function loadProgram(name: string): string {
  return `${folder}build/${name}`;
}

/** Builds all that are older than their source; `more` are programs that only tests need. */
export function buildLoad(...more: readonly string[]): void {
  const targets = ['all', ...more.map((name) => `build/${name}`)];
  const { status, stderr, error } = spawnSync('make', ['-s', '-C', folder, ...targets], { encoding: 'utf8' });
  if (error !== undefined)
    throw new Error('the load generators need make and gcc (apt-get install make gcc)');
  if (status !== 0) throw new Error(`the load generators cannot be built: ${stderr.trim()}`);
}
