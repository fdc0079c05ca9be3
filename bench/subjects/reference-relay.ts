/** The Linux engine's core with the least of callers, in C: what dualport could reach if TypeScript cost nothing. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Subject, startProgram } from './subject.ts';

const root = new URL('../../../', import.meta.url);
const program = fileURLToPath(new URL('native/build/reference-relay', root));

export const referenceRelay: Subject = {
  name: 'c-relay',
  title: 'the same core without TypeScript',
  kind: 'bound',
  settings: 'one thread; no limits, access rules, timeouts, log or metrics',
  version: () => {
    if (!existsSync(program)) throw new Error('not built: make -C native reference');
    return JSON.parse(readFileSync(new URL('package.json', root), 'utf8')).version;
  },
  cannot: ({ protocol }) => (protocol === 'udp' ? 'it relays TCP only' : undefined),
  start: (stage, publications) => {
    const words = publications.flatMap(({ host, container }) => [
      ...[host.address, `${host.port}`],
      ...[container.address, `${container.port}`],
    ]);
    return startProgram(stage, [program, ...words], publications);
  },
};
