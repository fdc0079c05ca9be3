#!/usr/bin/env node
/** argv → command → exit status. The only place that ends the process. */
import { DualportError } from './errors.ts';

// Before the program is loaded, which takes a moment: without handlers Node answers SIGUSR1 by opening its
// inspector, and a SIGHUP would end the process, which has read nothing yet that it could read again.
const tooEarly = () => {};
process.on('SIGUSR1', tooEarly).on('SIGHUP', tooEarly);
// The reader of our output may leave early, as in `dualport check | head -1`.
process.stdout.on('error', () => {});

try {
  const { run } = await import('./cli/program.ts');
  process.exit(await run(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof DualportError)) throw error;
  process.stderr.write(`dualport: ${error.message}\n`);
  process.exit(error.exitStatus);
}
