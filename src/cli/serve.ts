/**
 * `dualport serve`: runs the service until a signal ends it.
 *
 *   SIGTERM, SIGINT  no new flows, drain, exit 0; a second one ends the drain at once
 *   SIGHUP           reads the configuration again; a bad one changes nothing
 *   SIGUSR1          logs the status (and keeps Node from opening its inspector)
 */
import { type Config, loadConfig } from '../config/load.ts';
import type { Flags } from '../config/sources.ts';
import { exitStatus } from '../errors.ts';
import { type Log, makeLog } from '../log.ts';
import { type Admin, serveAdmin } from '../service/admin.ts';
import { readHostFacts } from '../service/host.ts';
import { metricsText } from '../service/metrics.ts';
import { Reloader } from '../service/reloader.ts';
import { Service } from '../service/service.ts';
import { statusOf } from '../service/status.ts';
import { version } from './version.ts';

export async function serve(flags: Flags): Promise<number> {
  const load = () => loadConfig({ flags, env: process.env });
  const config = load();
  const log = makeLog({ level: config.logLevel, format: config.logFormat });
  const signals = listenToSignals();
  await serveUntil(signals, config, load, log);
  await new Promise<void>((resolve) => log.flush(() => resolve()));
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
  const service = new Service(config, log);
  const reloader = new Reloader(service, load, config, log);
  let admin: Admin | undefined;
  try {
    admin = await openAdmin(config, service, reloader);
    await service.apply(config);
  } catch (error) {
    admin?.close();
    await service.stop(0, AbortSignal.abort());
    throw error;
  }
  log.info(
    { version, engine: service.engine.name, rules: config.rules.length, maxFlows: service.maxFlows },
    'ready',
  );
  ready();
  signals.onReload(() => reloader.request());
  signals.onStatus(() => log.info({ status: statusOf(service, version) }, 'status'));
  await signals.stop;
  log.info({ drainMs: config.drainTimeoutMs }, 'stopping');
  await service.stop(config.drainTimeoutMs, signals.now);
  admin?.close();
  log.info('stopped');
}

async function openAdmin(config: Config, service: Service, reloader: Reloader): Promise<Admin | undefined> {
  if (config.admin === undefined) return undefined;
  const { lowPort } = await readHostFacts();
  const pages = {
    metrics: () => metricsText(service, version, reloader.history),
    status: () => statusOf(service, version),
    ready: () => service.rules.length > 0 && !service.draining,
  };
  return serveAdmin(config.admin, pages, lowPort);
}

export interface Signals {
  /** Resolves at the first SIGTERM or SIGINT. */
  readonly stop: Promise<void>;
  /** Aborted at the second one. */
  readonly now: AbortSignal;
  onReload(reload: () => void): void;
  onStatus(show: () => void): void;
}

/** Handlers are in place before anything is bound: PID 1 has no default ones, and no signal may be lost. */
export function listenToSignals(): Signals {
  const second = new AbortController();
  let reload = () => {};
  let show = () => {};
  process.on('SIGHUP', () => reload());
  process.on('SIGUSR1', () => show());
  const stop = new Promise<void>((resolve) => {
    let stopping = false;
    const onStop = () => {
      if (stopping) second.abort();
      stopping = true;
      resolve();
    };
    process.on('SIGTERM', onStop).on('SIGINT', onStop);
  });
  return {
    stop,
    now: second.signal,
    onReload: (handler) => {
      reload = handler;
    },
    onStatus: (handler) => {
      show = handler;
    },
  };
}
