/**
 * dualport itself, as built: one process for all ports, with one engine or the other, and with the ways in which the
 * program may see its clients.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import {
  bracketed,
  type Publication,
  type RunningSubject,
  type Stage,
  type Subject,
  startProgram,
} from './subject.ts';

const root = new URL('../../../', import.meta.url);
const program = [process.execPath, fileURLToPath(new URL('dist/src/main.js', root))];

const settings =
  'defaults, but one client and one port may have all flows, since all load is from one client';

export const dualportPortable: Subject = makeDualport('portable');
export const dualportLinux: Subject = makeDualport('linux');
export const dualportTransparent: Subject = makeShowing('transparent', ['--mismatch=pseudo']);
export const dualportPseudo: Subject = makeShowing('pseudo', []);

function makeDualport(engine: 'portable' | 'linux'): Subject {
  return {
    name: `dualport-${engine}`,
    title: `dualport, ${engine} engine`,
    kind: 'dualport',
    settings,
    version: () => versionOf(engine),
    start: (stage, publications) => startDualport(stage, publications, [`--engine=${engine}`]),
  };
}

/**
 * The program sees the client, or an address that stands for it. What the kernel needs for that is there only while
 * this is measured: every packet of the host would be looked at for the others, too.
 */
function makeShowing(source: 'transparent' | 'pseudo', words: readonly string[]): Subject {
  return {
    name: `dualport-${source}`,
    title: `dualport, linux engine, source ${source}`,
    kind: 'dualport',
    settings: `${settings}; the kernel's rules and routes for it are present only while it is measured`,
    version: () => versionOf('linux'),
    cannot: ({ topology }) =>
      topology === 'T1' ? 'client and program have the same addresses there' : undefined,
    start: async (stage, publications) => {
      const state = `--state-dir=${stage.scratch}/state`;
      const all = ['--engine=linux', `--source=${source}`, state, ...words];
      const running = await startDualport(stage, publications, all);
      return {
        ...running,
        enter: () => shell(stage, showingRules),
        leave: () => shell(stage, noShowingRules),
      };
    },
  };
}

const table = 'inet dualport_bench_divert';
const marked = 'fwmark 0x40000000/0x40000000';

/** Answers to transparent sockets, and what is for pseudo addresses, come to this host. */
const showingRules = `
nft 'table ${table} { chain answers { type filter hook prerouting priority mangle; \
  iifname "br0" meta l4proto { tcp, udp } socket transparent 1 meta mark set meta mark | 0x40000000; }; }'
for family in -4 -6; do ip $family rule add pref 9000 iif br0 ${marked} lookup 4200; done
ip route add local 0.0.0.0/0 dev lo table 4200
ip -6 route add local ::/0 dev lo table 4200
ip route add local 240.0.0.0/4 dev lo
ip -6 route add local fd5f:bf90:309::/96 dev lo`;

const noShowingRules = `
nft delete table ${table}
for family in -4 -6; do ip $family rule del pref 9000; ip $family route flush table 4200; done
ip route del local 240.0.0.0/4 dev lo
ip -6 route del local fd5f:bf90:309::/96 dev lo`;

async function shell({ processes, place }: Stage, script: string): Promise<void> {
  await processes.run(place, ['sh', '-ec', script]);
}

function versionOf(engine: string): string {
  // `check` refuses an engine that this build does not have, and says why.
  const { status, stderr } = spawnSync(program[0] ?? '', [
    ...program.slice(1),
    ...['check', '--engine', engine, '--publish', '127.0.0.1:1024:1024'],
  ]);
  if (status !== 0) throw new Error(`not built: ${stderr.toString().trim().split('\n')[0]}`);
  return JSON.parse(readFileSync(new URL('package.json', root), 'utf8')).version;
}

function startDualport(
  stage: Stage,
  publications: readonly Publication[],
  words: readonly string[],
): Promise<RunningSubject> {
  const upstreams = new Set(publications.map(({ container }) => container.address));
  const limit = mostFlows(stage.processes.openFileLimit);
  const all = [
    ...[`--max-flows-per-source=${limit}`, `--max-flows-per-rule=${limit}`],
    ...publications.map((publication) => `--publish=${portOf(publication)}`),
    ...[...upstreams].map((address) => `--to=${address}`),
  ];
  return startProgram(stage, [...program, 'serve', ...words, ...all], publications);
}

/** Three descriptors a flow is what dualport itself reckons with. */
function mostFlows(openFiles: number): number {
  return Math.min(65_536, Math.floor((openFiles - 600) / 3));
}

function portOf({ protocol, host, container }: Publication): string {
  return `${bracketed(host.address)}:${host.port}:${container.port}/${protocol}`;
}
