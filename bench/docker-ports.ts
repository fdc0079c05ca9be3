/**
 * What it costs to publish ports of a container through dockerd itself: the time until `docker run` returns, and the
 * memory of what serves them, with dualport's launchers and with docker-proxy.
 *
 *   npm run bench:docker -- [--rounds 3] [ports ...]      100 and 1000 ports unless told otherwise
 *
 * Each sample is a fresh dockerd in namespaces of its own, as the tests start it; both kinds take turns, whoever begins.
 * dockerd starts two processes a port, one for each family. Memory is PSS, which counts what processes share once: of
 * all of them together, and of dualport. Bounds are those of the project; a run that exceeds one ends with status 1.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { launcherPath } from '../test/support/docker-player.ts';
import { type Dockerd, runWords, startDockerd } from '../test/support/dockerd.ts';
import { Stage } from '../test/support/dualport.ts';
import { openWorld } from '../test/support/namespace.ts';
import { main, type Running } from '../test/support/process.ts';
import { median } from './statistics.ts';

const kinds = ['docker-proxy', 'dualport'] as const;
type Kind = (typeof kinds)[number];

interface Sample {
  readonly seconds: number;
  readonly removeSeconds: number;
  readonly mebibytes: number;
  readonly processes: number;
}

/** Of dualport to docker-proxy. */
interface Bounds {
  readonly memory: number;
  readonly time: number;
}

function boundsOf(ports: number): Bounds {
  return { memory: ports >= 1000 ? 0.2 : 0.5, time: 1.2 };
}

async function sample(kind: Kind, ports: number): Promise<Sample> {
  const stage = new Stage({ after: () => {} });
  try {
    const { host } = openWorld(stage);
    const socket = join(stage.directory(), 'launchers.sock');
    const env = { DUALPORT_DOCKER_PROXY_SOCKET: socket };
    const dockerd = await startDockerd(
      stage,
      host,
      kind === 'dualport' ? { proxyPath: launcherPath, env } : {},
    );
    const words = [main, '--docker-proxy-socket', socket, '--log-level', 'warn'];
    const place = { prefix: [...host.prefix, 'env', `DOCKER_HOST=unix://${dockerd.socket}`] };
    const dualport = kind === 'dualport' ? stage.start(place, process.execPath, words) : undefined;
    // What is only done once is not what is asked.
    await dockerd.run('warm', { publish: ['19999:80'], command: ['sleep', '1000'] });
    await dockerd.docker('rm', '-f', 'warm');
    return await measure(dockerd, dualport, ports);
  } finally {
    await stage.close();
  }
}

async function measure(dockerd: Dockerd, dualport: Running | undefined, ports: number): Promise<Sample> {
  const range = `20000-${20000 + ports - 1}`;
  const options = { publish: [`${range}:${range}`], command: ['sleep', '100000'] };
  const seconds = await timed(() => dockerd.docker(...runWords('many', options)));
  // Until whatever is done behind its back is done, too.
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const proxies = dockerd.proxyPids;
  if (proxies.length !== 2 * ports)
    throw new Error(`${proxies.length} processes for ${ports} ports of two families`);
  const pids = [...proxies, ...(dualport?.child.pid === undefined ? [] : [dualport.child.pid])];
  const mebibytes = pids.reduce((sum, pid) => sum + pssOf(pid), 0) / 1024;
  const removeSeconds = await timed(() => dockerd.docker('rm', '-f', 'many'));
  return { seconds, removeSeconds, mebibytes, processes: pids.length };
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/** In KiB. */
function pssOf(pid: number): number {
  return Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function compare(ports: number, rounds: number): Promise<boolean> {
  const samples: Record<Kind, Sample[]> = { 'docker-proxy': [], dualport: [] };
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? kinds : [...kinds].reverse();
    for (const kind of order) samples[kind].push(await sample(kind, ports));
  }
  const of = (kind: Kind, key: keyof Sample) => median(samples[kind].map((one) => one[key]));
  const ratio = (key: keyof Sample) => of('dualport', key) / of('docker-proxy', key);
  const bounds = boundsOf(ports);
  const row = (title: string, key: keyof Sample, digits: number, bound?: number) => {
    const [theirs, ours] = [of('docker-proxy', key).toFixed(digits), of('dualport', key).toFixed(digits)];
    const allowed = bound === undefined ? '' : `at most ${bound}`;
    say(`| ${ports} | ${title} | ${theirs} | ${ours} | ${ratio(key).toFixed(2)} | ${allowed} |`);
  };
  row('seconds until docker run returns', 'seconds', 2, bounds.time);
  row('MiB (PSS) of all that serves the ports', 'mebibytes', 1, bounds.memory);
  row('seconds until docker rm -f returns', 'removeSeconds', 2);
  row('processes', 'processes', 0);
  return ratio('seconds') <= bounds.time && ratio('mebibytes') <= bounds.memory;
}

const { values, positionals } = parseArgs({
  options: { rounds: { type: 'string', default: '3' } },
  allowPositionals: true,
});
say('| ports | | docker-proxy | dualport | ratio | bound |');
say('|---|---|---|---|---|---|');
let held = true;
for (const ports of positionals.length > 0 ? positionals.map(Number) : [100, 1000]) {
  if (!(await compare(ports, Number(values.rounds)))) held = false;
}
process.exit(held ? 0 : 1);
