/**
 * SIGHUP: reads the configuration again and applies it, one at a time. A storm of signals is one reload after
 * the one that runs. Whatever is wrong with the new configuration, the old one stays in force as a whole.
 */
import type { Config, PseudoConfig, TransparentConfig } from '../config/load.ts';
import type { OptionKey } from '../config/options.ts';
import { DualportError, messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { ReloadHistory } from './metrics.ts';
import type { Service } from './service.ts';

type Names<T> = Readonly<Record<keyof T, OptionKey>>;

/** What is made once when the process starts, and is as it was then until the process ends; and the options that say it. */
const atStartOnly = {
  engine: 'engine',
  threads: 'threads',
  maxFlows: 'maxFlows',
  admin: 'admin',
  docker: 'docker',
  launchers: 'dockerProxySocket',
  logLevel: 'logLevel',
  logFormat: 'logFormat',
  pseudo: {
    v4: 'pseudoV4',
    v6: 'pseudoV6',
    unitBits: 'pseudoUnit',
    stateDir: 'stateDir',
  } satisfies Names<PseudoConfig>,
  transparent: {
    setup: 'transparentSetup',
    interfaces: 'transparentInterface',
    table: 'transparentTable',
    mark: 'transparentMark',
    priority: 'transparentPriority',
    routeTable: 'transparentRouteTable',
  } satisfies Names<TransparentConfig>,
} as const satisfies Partial<Record<keyof Config, OptionKey | Readonly<Record<string, OptionKey>>>>;

type AtStart = keyof typeof atStartOnly;
const startKeys = Object.keys(atStartOnly) as AtStart[];

/** The options by which two configurations differ in what is made at start. */
function differing(one: Config, other: Config): readonly OptionKey[] {
  const differ = (a: unknown, b: unknown) => JSON.stringify(a) !== JSON.stringify(b);
  return startKeys.flatMap((key) => {
    const names: OptionKey | Readonly<Record<string, OptionKey>> = atStartOnly[key];
    if (typeof names === 'string') return differ(one[key], other[key]) ? [names] : [];
    const [a, b] = [one[key], other[key]] as readonly Record<string, unknown>[];
    return Object.entries(names).flatMap(([part, name]) => (differ(a?.[part], b?.[part]) ? [name] : []));
  });
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
    const running = Object.fromEntries(startKeys.map((key) => [key, this.#config[key]]));
    return Object.freeze({ ...config, ...(running as Pick<Config, AtStart>) });
  }

  /** At each reload, for as long as they are other than what runs. */
  #sayWhatNeedsRestart(config: Config): void {
    const changed = differing(config, this.#config);
    if (changed.length > 0)
      this.#log.warn({ options: changed }, 'these options take effect at the next start');
  }
}
