/** HAProxy in the foreground with a configuration of its own; it logs to stdout. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { listening, type Place, type SocketTable, type Stage } from './dualport.ts';
import type { Running } from './process.ts';

const common = `
global
  log stdout format raw local0
defaults
  log global
  timeout connect 5s
  timeout client 10s
  timeout server 10s
  timeout check 5s
`;

/** @param sections `frontend`, `backend` and `listen` sections */
export async function startHaproxy(
  stage: Stage,
  place: Place,
  sections: string,
  listeners: readonly [SocketTable, number][],
): Promise<Running> {
  const file = join(stage.directory(), 'haproxy.cfg');
  writeFileSync(file, `${common}${sections}\n`);
  const running = stage.start(place, 'haproxy', ['-db', '-f', file]);
  for (const [table, port] of listeners) await listening(running, table, port);
  return running;
}
