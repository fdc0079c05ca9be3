/**
 * SIGHUP: reads the configuration again and applies it, one at a time. A storm of signals is one reload after
 * the one that runs. Whatever is wrong with the new configuration, the old one stays in force as a whole.
 */
import type { Config } from '../config/load.ts';
import { DualportError, messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { ReloadHistory } from './metrics.ts';
import type { Service } from './service.ts';

/** What is made once when the process starts, and is as it was then until the process ends. */
const atStartOnly = [
  'engine',
  'threads',
  'maxFlows',
  'admin',
  'docker',
  'launchers',
  'logLevel',
  'logFormat',
  'pseudo',
  'transparent',
] as const;

/** The same by the options that say it. */
function optionsAtStart(config: Config): Readonly<Record<string, unknown>> {
  const { engine, threads, maxFlows, admin, docker, launchers, logLevel, logFormat, pseudo, transparent } =
    config;
  return {
    ...{ engine, threads, maxFlows, admin, docker, logLevel, logFormat },
    dockerProxySocket: launchers,
    ...{ pseudoV4: pseudo.v4, pseudoV6: pseudo.v6, pseudoUnit: pseudo.unitBits, stateDir: pseudo.stateDir },
    transparentSetup: transparent.setup,
    transparentInterface: transparent.interfaces,
    transparentTable: transparent.table,
    transparentMark: transparent.mark,
    transparentPriority: transparent.priority,
    transparentRouteTable: transparent.routeTable,
  };
}

export class Reloader {
  readonly #service: Service;
  readonly #load: () => Config;
  readonly #log: Log;
  readonly #applied: () => void;
  #config: Config;
  #history: ReloadHistory = { succeeded: 0, failed: 0, lastSuccessMs: Date.now() };
  #running = false;
  #again = false;

  /** @param applied called when another configuration is in force */
  constructor(
    service: Service,
    load: () => Config,
    config: Config,
    log: Log,
    applied: () => void = () => {},
  ) {
    this.#service = service;
    this.#load = load;
    this.#config = config;
    this.#log = log;
    this.#applied = applied;
  }

  /** The configuration in force. */
  get config(): Config {
    return this.#config;
  }

  get history(): ReloadHistory {
    return this.#history;
  }

  request(): void {
    if (this.#service.draining) return;
    if (this.#running) this.#again = true;
    else void this.#run();
  }

  async #run(): Promise<void> {
    this.#running = true;
    do {
      this.#again = false;
      await this.#reload();
    } while (this.#again && !this.#service.draining);
    this.#running = false;
  }

  async #reload(): Promise<void> {
    try {
      const written = this.#load();
      const config = this.#asStarted(written);
      await this.#service.apply(config);
      this.#sayWhatNeedsRestart(written);
      this.#config = config;
      this.#history = { ...this.#history, succeeded: this.#history.succeeded + 1, lastSuccessMs: Date.now() };
      this.#log.info({ rules: config.rules.length }, 'configuration reloaded');
      this.#applied();
    } catch (error) {
      this.#history = { ...this.#history, failed: this.#history.failed + 1 };
      const code = error instanceof DualportError ? error.code : undefined;
      this.#log.error(
        { code, reason: messageOf(error) },
        'configuration not reloaded: the old one stays in force',
      );
    }
  }

  /** With what runs in the place of what will at the next start: bounds are judged by the admin that listens. */
  #asStarted(config: Config): Config {
    const running = Object.fromEntries(atStartOnly.map((key) => [key, this.#config[key]]));
    return Object.freeze({ ...config, ...(running as Pick<Config, (typeof atStartOnly)[number]>) });
  }

  /** At each reload, for as long as they are other than what runs. */
  #sayWhatNeedsRestart(config: Config): void {
    const running = optionsAtStart(this.#config);
    const changed = Object.entries(optionsAtStart(config))
      .filter(([option, value]) => JSON.stringify(value) !== JSON.stringify(running[option]))
      .map(([option]) => option);
    if (changed.length > 0)
      this.#log.warn({ options: changed }, 'these options take effect at the next start');
  }
}
