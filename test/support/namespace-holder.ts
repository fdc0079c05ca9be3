/** Run as a program: opens a world and waits to be told to end, with a test of its own hardly begun. */
import { fileURLToPath } from 'node:url';
import { Stage } from './dualport.ts';
import { openWorld } from './namespace.ts';

export const worldProcess: string = fileURLToPath(import.meta.url);

if (process.argv[1] === worldProcess) {
  openWorld(new Stage({ after: () => {} }));
  process.stdout.write('open\n');
  setInterval(() => {}, 60_000);
}
