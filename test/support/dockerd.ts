/**
 * A real dockerd for one test, in a network namespace of the test's own:
 *
 *   setpriv (dies with this process) → unshare (pid and mount namespace) → sh, pid 1 of both
 *                                                       nsenter → dockerd → containerd → containers, proxies
 *
 * Killing pid 1 makes the kernel kill all of them and drop their mounts, whatever state they are in, so nothing is
 * searched for by name. What dockerd would leave in /etc, /opt and /run is written to a tmpfs of the mount namespace.
 * A process that was killed before it could tidy up leaves a directory, a cgroup and a network namespace, which the
 * next one removes.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, openSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from '../engine/harness.ts';
import { prefixOf, removeAbandoned, removeTraces } from './dockerd-traces.ts';
import type { Place, Stage } from './dualport.ts';
import type { Namespace } from './namespace.ts';
import { childrenOf, innerPid, isRunning, sleepSync, withDescendants } from './process-tree.ts';

/** dockerd's own side of its bridge, and the networks its containers get addresses from. */
export const bridge = {
  v4: '198.18.7.1',
  v6: 'fd00:7::1',
  v4Network: '198.18.7.0/24',
  v6Network: 'fd00:7::/64',
} as const;

export interface DockerdOptions {
  /** The program dockerd starts for each published port, instead of the docker-proxy in its PATH. */
  readonly proxyPath?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Flags behind the harness's own. */
  readonly args?: readonly string[];
  /** The default bridge has IPv6 too. */
  readonly ipv6?: boolean;
  /** What daemon.json says. */
  readonly config?: Readonly<Record<string, unknown>>;
}

/** One container's settings: words for `docker run` and for the program in it (see container-program.c). */
export interface RunOptions {
  /** As `-p`. */
  readonly publish?: readonly string[];
  /** `tcp 0.0.0.0 80`, one or more. */
  readonly listen?: readonly string[];
  /** Further words for `docker run`. */
  readonly args?: readonly string[];
  /** Instead of the program. */
  readonly command?: readonly string[];
}

const ownPrefix = prefixOf(process.pid);
let started = 0;

/** It takes 0.6 s on an idle machine. */
const startMs = 60_000;

export async function startDockerd(
  stage: Stage,
  host: Namespace,
  options: DockerdOptions = {},
): Promise<Dockerd> {
  removeAbandoned();
  const name = `${ownPrefix}${++started}`;
  const directory = join(tmpdir(), name);
  mkdirSync(directory, { mode: 0o700 });
  stage.undo(() => removeTraces(name));
  const dockerd = new Dockerd(name, directory, host, options);
  // The last closer to be added runs first: processes go before what they use.
  stage.undo(() => dockerd.kill());
  await dockerd.open();
  await dockerd.start();
  importImage(dockerd);
  return dockerd;
}

export class Dockerd {
  /** Of its API. */
  readonly socket: string;
  readonly directory: string;
  readonly host: Namespace;
  readonly #name: string;
  readonly #options: DockerdOptions;
  readonly #logFile: string;
  readonly #holder: ChildProcess;
  #daemon: ChildProcess | undefined;

  constructor(name: string, directory: string, host: Namespace, options: DockerdOptions) {
    this.#name = name;
    this.directory = directory;
    this.host = host;
    this.#options = options;
    this.socket = join(directory, 'docker.sock');
    this.#logFile = join(directory, 'dockerd.log');
    writeFileSync(this.configFile, JSON.stringify(options.config ?? {}));
    this.#holder = spawn('setpriv', [...holderWords, holderScript, 'sh', directory], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  }

  /** A fixed file for the tests that change it before a restart. */
  get configFile(): string {
    return join(this.directory, 'daemon.json');
  }

  get log(): string {
    return existsSync(this.#logFile) ? readFileSync(this.#logFile, 'utf8') : '';
  }

  /** Of dockerd, as seen from here. */
  get pid(): number {
    const [pid] = childrenOf(this.#daemon?.pid ?? 0);
    if (pid === undefined) throw new Error(`dockerd does not run: ${lastLines(this.log)}`);
    return pid;
  }

  /** Waits for the namespaces. */
  async open(): Promise<void> {
    const { stdout } = this.#holder;
    if (stdout === null) throw new Error('no pipe');
    const [said] = await Promise.race([once(stdout, 'data'), once(this.#holder, 'exit')]);
    if (String(said) !== 'open\n') throw new Error(`no namespaces: ${said}`);
  }

  /** Starts it, and waits until it answers, which is after it has started its --restart=always containers. */
  async start(): Promise<void> {
    const { init } = this;
    const namespaces = [`--pid=/proc/${init}/ns/pid`, `--mount=/proc/${init}/ns/mnt`];
    const enter = [`--net=/run/netns/${this.host.name}`, ...namespaces];
    const log = openSync(this.#logFile, 'a');
    const daemon = spawn('nsenter', [...enter, '--', 'dockerd', ...this.#flags()], {
      stdio: ['ignore', log, log],
      env: { PATH: process.env['PATH'], ...this.#options.env },
    });
    this.#daemon = daemon;
    await until(
      () => hasEnded(daemon) || this.#answers(),
      `dockerd to answer, see ${this.#logFile}`,
      startMs,
    );
    if (hasEnded(daemon)) throw new Error(`dockerd ended: ${lastLines(this.log)}`);
  }

  /** As a service manager does it. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const daemon = this.#daemon;
    if (daemon === undefined) return;
    process.kill(this.pid, signal);
    if (!hasEnded(daemon)) await once(daemon, 'exit');
    this.#daemon = undefined;
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** Runs the command line client and gives what it printed. */
  async docker(...args: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.tryDocker(...args);
    if (status !== 0) throw new Error(`docker ${args.join(' ')}: ${stderr}\n${lastLines(this.log)}`);
    return stdout.trimEnd();
  }

  /** The same for a command that may be refused. */
  async tryDocker(
    ...args: readonly string[]
  ): Promise<{ status: number | null; stdout: string; stderr: string }> {
    const child = spawn('docker', ['-H', `unix://${this.socket}`, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      // Nobody's settings, and none left behind.
      env: { PATH: process.env['PATH'], DOCKER_CONFIG: join(this.directory, 'client') },
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk) => (stdout += chunk));
    child.stderr.on('data', (chunk) => (stderr += chunk));
    const [status] = await once(child, 'close');
    return { status, stdout, stderr };
  }

  /** Starts a container, whose host name is its name, and waits until what is in it listens. */
  async run(name: string, options: RunOptions = {}): Promise<Container> {
    await this.docker(...runWords(name, options));
    const container = new Container(this, name);
    if (options.command === undefined) await container.ready();
    return container;
  }

  /** Command lines of the proxies that run now, the program's path left out, sorted. */
  get proxies(): readonly string[] {
    const words = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(1, -1);
    return this.proxyPids.map((pid) => words(pid).join(' ')).sort();
  }

  /** A proxy is a direct child of dockerd, by whatever name. */
  get proxyPids(): readonly number[] {
    return childrenOf(this.pid).filter((pid) => isProxy(pid));
  }

  /** What a pid that dockerd tells is outside of its pid namespace. */
  pidHere(inner: number): number {
    const pid = withDescendants(this.init).find((outer) => innerPid(outer) === inner);
    if (pid === undefined) throw new Error(`no process is ${inner} there`);
    return pid;
  }

  /** Everything it started goes with it. */
  kill(): void {
    const { pid } = this.#holder;
    if (pid === undefined) return;
    const processes = childrenOf(pid).flatMap(withDescendants);
    this.#holder.kill('SIGKILL');
    this.#daemon?.kill('SIGKILL');
    // The directory is busy until the last has gone; these are sleeping calls, because a Stage's undo is synchronous.
    for (let tries = 0; tries < 500 && processes.some(isRunning); tries++) sleepSync(10);
  }

  /** Pid 1 of its namespaces, as seen from here. */
  get init(): number {
    const [pid] = childrenOf(this.#holder.pid ?? 0);
    if (pid === undefined) throw new Error('there is no pid 1');
    return pid;
  }

  #answers(): boolean {
    if (!existsSync(this.socket)) return false;
    const args = [
      '-s',
      '-o',
      '/dev/null',
      '--max-time',
      '1',
      '--unix-socket',
      this.socket,
      'http://docker/_ping',
    ];
    return spawnSync('curl', args).status === 0;
  }

  #flags(): readonly string[] {
    const { directory } = this;
    const ipv6 = ['--ipv6', '--fixed-cidr-v6', bridge.v6Network];
    const proxy = this.#options.proxyPath;
    return [
      ...['--data-root', join(directory, 'data'), '--exec-root', join(directory, 'exec')],
      ...['--pidfile', join(directory, 'pid'), '-H', `unix://${this.socket}`],
      ...['--config-file', this.configFile, '--cgroup-parent', `/${this.#name}`],
      ...['--bip', `${bridge.v4}/24`, ...((this.#options.ipv6 ?? true) ? ipv6 : [])],
      ...(proxy === undefined ? [] : [`--userland-proxy-path=${proxy}`]),
      ...(this.#options.args ?? []),
    ];
  }
}

/** A container by its name, over restarts. */
export class Container {
  readonly name: string;
  readonly #dockerd: Dockerd;

  constructor(dockerd: Dockerd, name: string) {
    this.#dockerd = dockerd;
    this.name = name;
  }

  /** Its addresses now, on the default bridge unless told otherwise. */
  async addresses(network = 'bridge'): Promise<{ v4: string; v6: string }> {
    const text = await this.#dockerd.docker('inspect', '-f', '{{json .NetworkSettings.Networks}}', this.name);
    const { IPAddress: v4, GlobalIPv6Address: v6 } = JSON.parse(text)[network];
    return { v4, v6 };
  }

  /** Waits until its program listens: again, after each restart. */
  async ready(): Promise<void> {
    const pid = await this.#pid();
    await until(() => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'listening\n', `${this.name} to listen`);
  }

  /** Where a program runs that is to share its network with it. */
  async inside(): Promise<Place> {
    return { prefix: ['nsenter', `--net=/proc/${await this.#pid()}/ns/net`, '--'] };
  }

  /** Of its pid 1, as seen from here. */
  async #pid(): Promise<number> {
    const inner = await this.#dockerd.docker('inspect', '-f', '{{.State.Pid}}', this.name);
    return this.#dockerd.pidHere(Number(inner));
  }

  async remove(): Promise<void> {
    await this.#dockerd.docker('rm', '-f', this.name);
  }
}

/** The words of `docker run`, for those who start many. */
export function runWords(name: string, options: RunOptions): readonly string[] {
  const { publish = [], listen = [], args = [] } = options;
  const command = options.command ?? ['/program', ...listen.flatMap((words) => words.split(' '))];
  const published = publish.flatMap((port) => ['-p', port]);
  return ['run', '-d', '--name', name, '--hostname', name, ...published, ...args, image, ...command];
}

/** Ends when this process does, however that happens. */
const holderWords = [
  ...['--pdeathsig', 'KILL', 'unshare', '--pid', '--fork', '--kill-child', '--mount', '--mount-proc'],
  ...['sh', '-c'],
];

/** The shell reaps what dockerd and containerd leave to it while it waits. */
const holderScript = `
set -e
mkdir "$1/over"
mount -t tmpfs tmpfs "$1/over"
for place in /etc /opt; do
  mkdir -p "$1/over/new$place" "$1/over/work$place"
  mount -t overlay overlay -o "lowerdir=$place,upperdir=$1/over/new$place,workdir=$1/over/work$place" "$place"
done
mount -t tmpfs tmpfs /run
echo open
while :; do sleep 3600 & wait; done
`;

const image = 'dualport-test';
const program = fileURLToPath(new URL('../../../test/support/container-program.c', import.meta.url));

/** busybox with the programs it stands for, and the program of container-program.c. */
function importImage(dockerd: Dockerd): void {
  const root = join(dockerd.directory, 'image');
  mkdirSync(join(root, 'bin'), { recursive: true });
  mkdirSync(join(root, 'tmp'));
  mustRun('cp', ['/bin/busybox', join(root, 'bin/busybox')]);
  for (const name of ['sh', 'nc', 'sleep', 'wget', 'ip', 'cat'])
    symlinkSync('busybox', join(root, 'bin', name));
  mustRun('gcc', ['-static', '-O1', '-Wall', '-Wextra', '-Werror', '-o', join(root, 'program'), program]);
  mustRun('tar', ['-C', root, '-cf', join(dockerd.directory, 'image.tar'), '.']);
  mustRun('docker', [
    '-H',
    `unix://${dockerd.socket}`,
    'import',
    join(dockerd.directory, 'image.tar'),
    image,
  ]);
}

function lastLines(log: string): string {
  return log.split('\n').slice(-10).join('\n');
}

function mustRun(command: string, args: readonly string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`);
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

function isProxy(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('\0-container-ip\0');
  } catch {
    return false;
  }
}
