#!/usr/bin/env node
/** argv → command → exit status. The only place that ends the process. */
import { run } from './cli/program.ts';
import { DualportError } from './errors.ts';

// Before anything else: without a handler Node answers SIGUSR1 by opening its inspector.
process.on('SIGUSR1', () => {});
// The reader of our output may leave early, as in `dualport check | head -1`.
process.stdout.on('error', () => {});

try {
  process.exit(await run(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof DualportError)) throw error;
  process.stderr.write(`dualport: ${error.message}\n`);
  process.exit(error.exitStatus);
}
