/** dualport itself, as built: one process for all ports, with one engine or the other. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { bracketed, type Publication, type Subject, startProgram } from './subject.ts';

const root = new URL('../../../', import.meta.url);
const program = [process.execPath, fileURLToPath(new URL('dist/src/main.js', root))];

export const dualportPortable: Subject = makeDualport('portable');
export const dualportLinux: Subject = makeDualport('linux');

function makeDualport(engine: 'portable' | 'linux'): Subject {
  return {
    name: `dualport-${engine}`,
    title: `dualport, ${engine} engine`,
    kind: 'dualport',
    settings: 'defaults, but one client and one port may have all flows, since all load is from one client',
    version: () => {
      // `check` refuses an engine that this build does not have, and says why.
      const { status, stderr } = spawnSync(program[0] ?? '', [
        ...program.slice(1),
        ...['check', '--engine', engine, '--publish', '127.0.0.1:1024:1024'],
      ]);
      if (status !== 0) throw new Error(`not built: ${stderr.toString().trim().split('\n')[0]}`);
      return JSON.parse(readFileSync(new URL('package.json', root), 'utf8')).version;
    },
    start: (stage, publications) => {
      const upstreams = new Set(publications.map(({ container }) => container.address));
      const limit = mostFlows(stage.processes.openFileLimit);
      const words = [
        ...[`--max-flows-per-source=${limit}`, `--max-flows-per-rule=${limit}`],
        ...publications.map((publication) => `--publish=${portOf(publication)}`),
        ...[...upstreams].map((address) => `--to=${address}`),
      ];
      return startProgram(stage, [...program, 'serve', `--engine=${engine}`, ...words], publications);
    },
  };
}

/** Three descriptors a flow is what dualport itself reckons with. */
function mostFlows(openFiles: number): number {
  return Math.min(65_536, Math.floor((openFiles - 600) / 3));
}

function portOf({ protocol, host, container }: Publication): string {
  return `${bracketed(host.address)}:${host.port}:${container.port}/${protocol}`;
}
