/**
 * Puts the launcher into dockerd's daemon.json, or takes it out again. Everything is checked before anything is written;
 * the old file is kept beside the new one, which takes its place whole or not at all.
 */
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  copyFileSync,
  existsSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { DualportError, errnoOf, messageOf } from '../errors.ts';
import { parseDaemonJson, proxyPathKey, refused, withoutProxyPath, withProxyPath } from './daemon-json.ts';
import {
  dockerdVersion,
  filesWithFlag,
  flagOf,
  type RunningDockerd,
  runningDockerds,
  usualDaemonJson,
} from './running-dockerd.ts';

/** A change of daemon.json that has been found to be possible. */
export interface PlannedChange {
  readonly path: string;
  readonly before: string;
  readonly after: string;
  /** What it was before, when it was another program. */
  readonly replaced: string | undefined;
  readonly version: string | undefined;
  readonly dockerd: RunningDockerd | undefined;
}

/** @throws DualportError DAEMON_JSON when it cannot be, or would keep dockerd from starting */
export function planInstall(daemonJson: string | undefined, launcher: string): PlannedChange {
  const program = usableLauncher(launcher);
  const { path, dockerd } = placeOf(daemonJson);
  refuseFlag(path, dockerd);
  const before = readDaemonJson(path);
  const config = parseDaemonJson(path, before);
  if (config['userland-proxy'] === false || flagOf(dockerd?.flags ?? [], 'userland-proxy') === 'false') {
    throw refused(
      path,
      'userland-proxy is false, with which dockerd starts no program for a port; set it to true first',
    );
  }
  const after = withProxyPath(path, before, program);
  const present = config[proxyPathKey];
  const replaced = typeof present === 'string' && !['', program].includes(present) ? present : undefined;
  if (after !== before) refuseUnwritable(path);
  return { path, before, after, replaced, version: dockerdVersion(dockerd), dockerd };
}

/** @throws DualportError DAEMON_JSON when it cannot be, or when what is in there is another's */
export function planUninstall(daemonJson: string | undefined, launcher: string): PlannedChange {
  const { path, dockerd } = placeOf(daemonJson);
  const before = readDaemonJson(path);
  const present = parseDaemonJson(path, before)[proxyPathKey];
  // The package may have been moved or removed since.
  if (
    present !== undefined &&
    present !== launcher &&
    !/\/dualport\b.*\/docker-proxy$/.test(String(present))
  ) {
    throw refused(
      path,
      `found ${proxyPathKey} ${JSON.stringify(present)}, which is not dualport's: take it out by hand`,
    );
  }
  if (present === undefined) {
    const places = placesOfFlag(path, dockerd);
    if (places.length > 0) {
      throw refused(
        path,
        `found the flag --${proxyPathKey} in ${places.join(' and ')}, and no such key here: take the flag out there, and ` +
          'restart dockerd',
      );
    }
  }
  const after = withoutProxyPath(path, before);
  if (after !== before) refuseUnwritable(path);
  return { path, before, after, replaced: undefined, version: dockerdVersion(dockerd), dockerd };
}

/**
 * Writes what was planned.
 *
 * @returns where the old file is kept, or undefined when there was none
 */
export function change({ path, before, after }: PlannedChange, now: Date = new Date()): string | undefined {
  const temporary = `${path}.new-${process.pid}`;
  const existed = existsSync(path);
  try {
    if (readDaemonJson(path) !== before)
      throw refused(path, 'it was changed by somebody else meanwhile: try again');
    const backup = existed ? `${path}.${now.toISOString().replaceAll(/[-:]|\.\d+/g, '')}.bak` : undefined;
    writeFileSync(temporary, after, { mode: 0o644, flag: 'wx', flush: true });
    if (backup !== undefined) {
      copyFileSync(path, backup, constants.COPYFILE_EXCL);
      const { mode, uid, gid } = statSync(path);
      chmodSync(temporary, mode & 0o7777);
      chownSync(temporary, uid, gid);
    }
    renameSync(temporary, path);
    return backup;
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error instanceof DualportError ? error : refused(path, `it cannot be written: ${messageOf(error)}`);
  }
}

/** The file that was named, or that the one dockerd of this host reads; and the dockerd that reads it. */
function placeOf(daemonJson: string | undefined): { path: string; dockerd: RunningDockerd | undefined } {
  const running = runningDockerds();
  const [only] = running.length === 1 ? running : [];
  // A link stays a link; what it leads to is changed.
  const path = resolved(daemonJson ?? only?.configFile ?? usualDaemonJson);
  return { path, dockerd: running.find(({ configFile }) => resolved(configFile) === path) };
}

function resolved(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** dockerd refuses to start with the same option in both places. */
function refuseFlag(path: string, dockerd: RunningDockerd | undefined): void {
  const places = placesOfFlag(path, dockerd);
  if (places.length === 0) return;
  throw refused(
    path,
    `found the flag --${proxyPathKey} in ${places.join(' and ')}: dockerd does not start with both the flag and the key; take ` +
      'the flag out, or give it the path of the launcher there',
  );
}

/** Where the dockerd that reads this file is told the path beside it. */
function placesOfFlag(path: string, dockerd: RunningDockerd | undefined): readonly string[] {
  return [
    ...(flagOf(dockerd?.flags ?? [], proxyPathKey) === undefined
      ? []
      : ['the command line of the running dockerd']),
    ...(path === usualDaemonJson ? filesWithFlag(proxyPathKey) : []),
  ];
}

function readDaemonJson(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return '';
    throw refused(path, `it cannot be read: ${messageOf(error)}`);
  }
}

function refuseUnwritable(path: string): void {
  const folder = dirname(path);
  if (!existsSync(folder))
    throw refused(path, `its folder ${folder} does not exist; is Docker installed here?`);
  for (const place of existsSync(path) ? [folder, path] : [folder]) {
    try {
      accessSync(place, constants.W_OK);
    } catch {
      throw refused(path, `this user may not write to ${place}; run it as root (sudo dualport ...)`);
    }
  }
}

/** dockerd runs it as root, so nobody else may be able to put another in its place. */
function usableLauncher(launcher: string): string {
  if (!existsSync(launcher)) {
    throw new DualportError(
      'DAEMON_JSON',
      `the launcher ${launcher} is not there; build it (make -C native launcher, with gcc and make), or name it with --launcher`,
    );
  }
  const path = realpathSync(launcher);
  try {
    accessSync(path, constants.X_OK);
    if (!statSync(path).isFile()) throw new Error('not a file');
  } catch {
    throw new DualportError('DAEMON_JSON', `the launcher ${path} is no program that can be run`);
  }
  return path;
}

/** Places on the way to the launcher that others than root may write to: they could have dockerd run anything. */
export function loosePlaces(launcher: string): readonly string[] {
  const places = [launcher];
  for (let folder = dirname(launcher); ; folder = dirname(folder)) {
    places.push(folder);
    if (folder === '/') break;
  }
  return places.filter((place) => {
    const { mode, uid } = statSync(place);
    const sticky = (mode & 0o1000) !== 0;
    return uid !== 0 || ((mode & 0o022) !== 0 && !sticky);
  });
}
