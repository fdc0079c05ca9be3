/** Run as a program: starts a dockerd with a container and waits to be told to end. */
import { fileURLToPath } from 'node:url';
import { startDockerd } from './dockerd.ts';
import { Stage } from './dualport.ts';
import { openWorld } from './namespace.ts';

export const dockerdProcess: string = fileURLToPath(import.meta.url);

if (process.argv[1] === dockerdProcess) {
  const stage = new Stage({ after: () => {} });
  const dockerd = await startDockerd(stage, openWorld(stage).host);
  await dockerd.run('web', { publish: ['8080:80'], listen: ['tcp 0.0.0.0 80'] });
  process.stdout.write(`open ${dockerd.pid}\n`);
  setInterval(() => {}, 60_000);
}
