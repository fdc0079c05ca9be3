/** The dockerd of this host, as /proc and its unit show it: which file it reads, and what it was told beside it. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';

export const usualDaemonJson = '/etc/docker/daemon.json';

export interface RunningDockerd {
  readonly pid: number;
  readonly configFile: string;
  readonly flags: readonly string[];
}

/** Those that this process may look at. */
export function runningDockerds(): readonly RunningDockerd[] {
  if (!existsSync('/proc/self/cmdline')) return [];
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && readText(`/proc/${name}/comm`) === 'dockerd\n')
    .map((name) => {
      const flags = readText(`/proc/${name}/cmdline`).split('\0').slice(1, -1);
      return {
        pid: Number(name),
        configFile: resolve(flagOf(flags, 'config-file') ?? usualDaemonJson),
        flags,
      };
    });
}

/** The value of a flag that has one; the last counts. */
export function flagOf(flags: readonly string[], name: string): string | undefined {
  const values = flags.flatMap((flag, i) => {
    if (flag === `--${name}`) return [flags[i + 1] ?? ''];
    return flag.startsWith(`--${name}=`) ? [flag.slice(name.length + 3)] : [];
  });
  return values.at(-1);
}

/** Where Debian and systemd keep the flags of a dockerd that reads the usual file. */
const places = [
  '/etc/default/docker',
  '/etc/systemd/system/docker.service',
  '/etc/systemd/system/docker.service.d',
  '/usr/lib/systemd/system/docker.service',
  '/lib/systemd/system/docker.service',
];

/** The files among them that give dockerd this flag. */
export function filesWithFlag(name: string): readonly string[] {
  return places.flatMap(filesOf).filter((path) => {
    const lines = readText(path).split('\n');
    return lines.some((line) => !/^\s*[#;]/.test(line) && new RegExp(`--${name}(?![\\w-])`).test(line));
  });
}

function filesOf(path: string): readonly string[] {
  try {
    return readdirSync(path).map((name) => `${path}/${name}`);
  } catch {
    return [path];
  }
}

/**
 * @param dockerd whose program is asked; the one in the PATH where none runs
 * @returns such as 20.10.24, or undefined when nobody can say
 */
export function dockerdVersion(dockerd: RunningDockerd | undefined): string | undefined {
  const program = dockerd === undefined ? 'dockerd' : `/proc/${dockerd.pid}/exe`;
  const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8', timeout: 5000 });
  return /version (\d+\.\d+\.\d+)/.exec(stdout ?? '')?.[1];
}

/** What that version does with the path, in a sentence. */
export function whatVersionDoes(version: string | undefined): string {
  const major = Number(version?.split('.')[0] ?? Number.NaN);
  const who = version === undefined ? 'dockerd (its version is not known here)' : `dockerd ${version}`;
  if (Number.isNaN(major)) {
    return `${who}: 25 and later check the path when they start and refuse to if nothing can be run there; older ones find out when a container is started`;
  }
  if (major < 25) {
    return `${who} takes the path as it is: if nothing can be run there, it is docker run -p that fails`;
  }
  const starts = `${who} checks the path when it starts, and refuses to start if nothing can be run there`;
  return major < 28 ? starts : `${starts}; it binds the ports itself and hands them to the program`;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
