/**
 * `dualport serve`: runs the service until a signal ends it.
 *
 *   SIGTERM, SIGINT  no new flows, drain, exit 0; a second one ends the drain at once
 *   SIGHUP           reads the configuration again; a bad one changes nothing
 *   SIGUSR1          logs the status (and keeps Node from opening its inspector)
 */
import { type Config, loadConfig } from '../config/load.ts';
import type { Flags } from '../config/sources.ts';
import type { DockerStatus, Follower } from '../docker/follower.ts';
import { exitStatus } from '../errors.ts';
import { type Log, makeLog } from '../log.ts';
import { type Admin, serveAdmin } from '../service/admin.ts';
import { openFileLimit, readHostFacts } from '../service/host.ts';
import type { Launchers } from '../service/launchers.ts';
import { mostLaunchers } from '../service/limits.ts';
import { metricsText } from '../service/metrics.ts';
import { Reloader } from '../service/reloader.ts';
import { Service } from '../service/service.ts';
import { type Status, statusOf } from '../service/status.ts';
import { TransparentSetup } from '../transparent/setup.ts';
import { containerMetrics, makeFollower } from './containers.ts';
import { makeLaunchers } from './launchers.ts';
import { version } from './version.ts';

export async function serve(flags: Flags): Promise<number> {
  const load = () => loadConfig({ flags, env: process.env });
  const config = load();
  const log = makeLog({ level: config.logLevel, format: config.logFormat });
  const signals = listenToSignals();
  await serveUntil(signals, config, load, log);
  return exitStatus.done;
}

/**
 * Runs a configuration until it is told to stop.
 *
 * @param load reads the configuration again
 * @param ready called once everything listens
 */
export async function serveUntil(
  signals: Signals,
  config: Config,
  load: () => Config,
  log: Log,
  ready: () => void = () => {},
): Promise<void> {
  // Removed when the last flow has ended, whichever way that comes about.
  const setup = config.transparent.setup ? await TransparentSetup.open(config, log) : undefined;
  try {
    await relayUntil(signals, config, load, log, setup, ready);
  } finally {
    await setup?.close();
  }
}

async function relayUntil(
  signals: Signals,
  config: Config,
  load: () => Config,
  log: Log,
  setup: TransparentSetup | undefined,
  ready: () => void,
): Promise<void> {
  let follower: Follower | undefined;
  const unreached = (rule: string) => follower?.unreached(rule);
  const service = new Service(config, log, unreached, setup && ((rules) => setup.follow(rules)));
  const reloader = new Reloader(service, load, config, log, () => {
    follower?.configured();
    launchers?.configured();
  });
  let admin: Admin | undefined;
  let launchers: Launchers | undefined;
  try {
    launchers = makeLaunchers(service, () => reloader.config, log);
    if (config.docker !== undefined)
      follower = await makeFollower(config.docker, service, () => reloader.config, log);
    admin = await openAdmin(config, service, reloader, follower);
    const applied = service.apply(config).then(() => true);
    // A name server that does not answer must not keep a stop waiting.
    if (!(await Promise.race([applied, signals.stop.then(() => false)]))) {
      applied.catch(() => {});
      admin?.close();
      return await service.stop(0, signals.now);
    }
    if (config.launchers !== undefined) {
      await launchers?.open(config.engine, config.launchers.socket, mostLaunchers(openFileLimit()));
    }
  } catch (error) {
    admin?.close();
    launchers?.close();
    await service.stop(0, AbortSignal.abort());
    throw error;
  }
  log.info(
    {
      version,
      engine: service.engine.name,
      threads: service.engine.count,
      rules: config.rules.length,
      maxFlows: service.maxFlows,
    },
    'ready',
  );
  follower?.start();
  ready();
  signals.onReload(() => reloader.request());
  signals.onStatus(() => log.info({ status: fullStatus(service, follower) }, 'status'));
  await signals.stop;
  const drainMs = reloader.config.drainTimeoutMs;
  log.info({ drainMs }, 'stopping');
  launchers?.stop();
  await follower?.close();
  await service.stop(drainMs, signals.now);
  launchers?.close();
  admin?.close();
  log.info('stopped');
}

async function openAdmin(
  config: Config,
  service: Service,
  reloader: Reloader,
  follower: Follower | undefined,
): Promise<Admin | undefined> {
  if (config.admin === undefined) return undefined;
  const followed = () => (follower === undefined ? '' : containerMetrics(follower.status));
  const pages = {
    metrics: () => metricsText(service, version, reloader.history) + followed(),
    status: () => fullStatus(service, follower),
    // Without a rule there is nothing to be ready for, but that no container asks for one and no launcher has come.
    ready: () =>
      !service.draining &&
      (service.rules.length > 0 || follower?.status.connected === true || config.launchers !== undefined),
  };
  return serveAdmin(config.admin, pages, await readHostFacts());
}

/** What runs, and what is followed. */
export interface FullStatus extends Status {
  readonly docker?: DockerStatus;
}

function fullStatus(service: Service, follower: Follower | undefined): FullStatus {
  const status = statusOf(service, version);
  return follower === undefined ? status : { ...status, docker: follower.status };
}

export interface Signals {
  /** Resolves at the first SIGTERM or SIGINT. */
  readonly stop: Promise<void>;
  /** Aborted at the second one. */
  readonly now: AbortSignal;
  onReload(reload: () => void): void;
  onStatus(show: () => void): void;
}

/**
 * Handlers are in place before anything is bound: PID 1 has no default ones. A SIGHUP or SIGUSR1 that comes too
 * early is remembered until there is somebody to act on it.
 *
 * @param hangup what SIGHUP means: a daemon reads its configuration again, a program on a terminal ends
 */
export function listenToSignals(hangup: 'reload' | 'stop' = 'reload'): Signals {
  const second = new AbortController();
  const reload = remembered('SIGHUP', hangup === 'reload');
  const show = remembered('SIGUSR1', true);
  const stop = new Promise<void>((resolve) => {
    let stopping = false;
    const onStop = () => {
      if (stopping) second.abort();
      stopping = true;
      resolve();
    };
    process.on('SIGTERM', onStop).on('SIGINT', onStop);
    if (hangup === 'stop') process.on('SIGHUP', onStop);
  });
  return {
    stop,
    now: second.signal,
    onReload: reload,
    onStatus: show,
  };
}

/** Takes the handler of a signal later, and calls it at once for what has come before. */
function remembered(signal: 'SIGHUP' | 'SIGUSR1', listen: boolean): (handler: () => void) => void {
  let early = false;
  let act = () => {
    early = true;
  };
  if (listen) process.on(signal, () => act());
  return (handler) => {
    act = handler;
    if (early) handler();
  };
}
