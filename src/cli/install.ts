/** `dualport install docker-proxy` and `uninstall`: has dockerd start the launcher, or its own docker-proxy again. */
import { existsSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defaultLauncherSocket } from '../config/launcher-socket.ts';
import { difference, proxyPathKey } from '../docker/daemon-json.ts';
import { change, loosePlaces, type PlannedChange, planInstall, planUninstall } from '../docker/install.ts';
import { whatVersionDoes } from '../docker/running-dockerd.ts';
import { exitStatus } from '../errors.ts';
import { print } from './print.ts';

export interface InstallFlags {
  readonly dryRun?: boolean;
  readonly daemonJson?: string;
  readonly launcher?: string;
}

/** From dist/src/cli/ to the package. */
const native = fileURLToPath(new URL('../../../native/', import.meta.url));
const builtLauncher = join(native, 'build', 'docker-proxy');
/** A package has one for each machine; it is static, and asks no libc. */
const packedLauncher = join(native, 'prebuilds', `linux-${process.arch}-musl`, 'docker-proxy');
const ownLauncher = !existsSync(builtLauncher) && existsSync(packedLauncher) ? packedLauncher : builtLauncher;

export async function install(flags: InstallFlags): Promise<number> {
  const launcher = flags.launcher ?? ownLauncher;
  const planned = planInstall(flags.daemonJson, launcher);
  await say([
    ...carriedOut(planned, flags),
    ...(planned.replaced === undefined ? [] : [`It stood at ${planned.replaced} before.`]),
    `${whatVersionDoes(planned.version)}.`,
    ...warnings(realpathSync(launcher)),
    ...(planned.before === planned.after ? leftBefore : leftToDo),
  ]);
  return exitStatus.done;
}

export async function uninstall(flags: InstallFlags): Promise<number> {
  const planned = planUninstall(flags.daemonJson, flags.launcher ?? ownLauncher);
  if (planned.before === planned.after) {
    await say([
      `${planned.path} has no ${proxyPathKey}; nothing was changed.`,
      'dockerd has to be restarted only if it has not been since the key was taken out.',
    ]);
    return exitStatus.done;
  }
  await say([
    ...carriedOut(planned, flags),
    '',
    'What is left to do:',
    `1. Restart dockerd: ${restart}. A reload does not do; until then the launchers go on.`,
    '2. Stop dualport, or run it without --docker-proxy-socket: not before, or the ports of launchers wait for it.',
  ]);
  return exitStatus.done;
}

const restart = 'systemctl restart docker';

const leftToDo = [
  '',
  'What is left to do:',
  `1. Run dualport with --docker-proxy-socket (${defaultLauncherSocket}), started before dockerd.`,
  `2. Restart dockerd: ${restart}. A reload does not do. Containers end and start as with any restart of`,
  '   dockerd; from then on their ports are served by dualport, and by docker-proxy as before while it does not run.',
];

const leftBefore = ['dockerd has to be restarted only if it has not been since the key was put in.'];

function carriedOut(planned: PlannedChange, { dryRun = false }: InstallFlags): readonly string[] {
  const { path, before, after } = planned;
  if (before === after) return [`${path} is as it should be; nothing was changed.`];
  const lines = [path, ...difference(before, after), ''];
  if (dryRun) return [...lines, 'This is what would be changed; nothing was (--dry-run).'];
  const backup = change(planned);
  return [
    ...lines,
    backup === undefined ? 'There was no such file before.' : `The old file is kept as ${backup}.`,
  ];
}

function warnings(launcher: string): readonly string[] {
  const loose = loosePlaces(launcher);
  if (loose.length === 0) return [];
  return [
    `WARNING: dockerd runs the launcher as root, and others than root may change ${loose.join(', ')}: install dualport`,
    'where only root can write, such as with npm install --global as root.',
  ];
}

function say(lines: readonly string[]): Promise<void> {
  return print(`${lines.join('\n')}\n`);
}
