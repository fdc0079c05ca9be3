/** Builds the generators: the bench's, and those of the gates. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { buildLoad } from '../../bench/load/programs.ts';

const folder = fileURLToPath(new URL('../../../test/gates/load/', import.meta.url));

export function buildGenerators(): void {
  buildLoad();
  const { status, stderr, error } = spawnSync('make', ['-s', '-C', folder], { encoding: 'utf8' });
  if (error !== undefined) throw new Error('the generators need make and gcc (apt-get install make gcc)');
  if (status !== 0) throw new Error(`the generators cannot be built: ${stderr.trim()}`);
}

export function generator(name: string): string {
  return `${folder}build/${name}`;
}
