/**
 * dockerd's launchers: each hands a bound socket over and has one rule for as long as it is there.
 *
 *   handed ─► rule ─► "ok" ─► the container is learned in the background ─► the rule has its other address, its labels
 *      └── cannot be served ─► "refused": the launcher starts the stock docker-proxy
 *   back (dockerd stops it, or it has died) ─► no rule ─► the socket is closed here ─► the launcher ends
 *
 * dockerd holds locks while it waits for a launcher, and answers nothing at all while it boots. So nobody waits for
 * Docker but a flow that would be turned away without its answer: one whose only upstream has failed, and that for a
 * second at most.
 */
import { mkdirSync, statSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { defaultLauncherSocket } from '../config/launcher-socket.ts';
import type { RuleOptionValues } from '../config/options.ts';
import type { Protocol } from '../config/port-spec.ts';
import type { SourceMode } from '../config/rules.ts';
import type { Giver, Handover, Listener } from '../engine/engine.ts';
import { type EngineName, makeHandover } from '../engine/select.ts';
import { DualportError, errnoOf, messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import { type Address, type Endpoint, formatAddress } from '../net/address.ts';
import type { RulePlan } from './plan.ts';
import { nameOf, type Registration, readRegistration, ruleOf } from './registration.ts';
import type { Service } from './service.ts';
import { socketTrouble } from './socket-trouble.ts';
import { isStaleSocket } from './stale-socket.ts';

/** What is to be known of the container behind a port. */
export interface FoundContainer {
  readonly name: string;
  /** Its addresses of the other family than the one that was asked for. */
  readonly otherAddresses: readonly Address[];
  /** How it wants to learn of its clients, if it says so. */
  readonly source?: SourceMode | undefined;
}

export interface ContainerLookup {
  /** Asks Docker as it is now, not as it was. Undefined: no container has that address, or Docker does not say. */
  find(address: Address, port: number, protocol: Protocol): Promise<FoundContainer | undefined>;
}

/** A container that is being started is not in the list yet; one that never appears is nobody's. */
const retriesMs = [100, 200, 300, 500, 1000, 3000, 10_000, 30_000];
/** Most that a flow waits for what is not known yet, and how often it asks meanwhile. */
const lateMs = 1000;
const lateRetryMs = 250;
/** For so long what is known of a container is believed when its address refuses. */
const freshMs = 10_000;

export class Launchers {
  readonly #service: Service;
  readonly #log: Log;
  readonly #lookup: ContainerLookup;
  readonly #values: () => RuleOptionValues;
  readonly #present = new Set<Launcher>();
  #handover: Handover | undefined;
  #path = '';
  /** Of the socket file: by the time it is to be removed another dualport may have put its own there. */
  #inode = 0;

  /** @param values what holds for rules that are not written in the configuration, as it is now */
  constructor(service: Service, log: Log, lookup: ContainerLookup, values: () => RuleOptionValues) {
    this.#service = service;
    this.#log = log;
    this.#lookup = lookup;
    this.#values = values;
  }

  /**
   * From now on launchers may come.
   *
   * @param most of them at once
   * @throws DualportError ENGINE when that engine takes no sockets, LISTEN when nobody could come
   */
  async open(engine: EngineName, path: string, most: number): Promise<void> {
    const heard = (giver: Giver) => this.#heard(giver);
    try {
      makeDefaultFolder(path);
      this.#handover = await replacingStale(path, () => makeHandover(engine, path, most, heard));
      this.#inode = statSync(path).ino;
    } catch (error) {
      throw error instanceof DualportError ? error : cannotServe(path, error);
    }
    this.#path = path;
    this.#log.info({ path, most }, 'serving launchers');
  }

  /** The configuration in force is another. */
  configured(): void {
    for (const launcher of this.#present) launcher.configured();
  }

  /** Nobody new: whoever comes now starts the stock docker-proxy. */
  stop(): void {
    if (this.#handover === undefined) return;
    this.#handover.stop();
    if (inodeOf(this.#path) === this.#inode) unlinkSync(this.#path);
  }

  /** Those who are here keep their sockets, and look for the next dualport. */
  close(): void {
    for (const launcher of this.#present) launcher.forget();
    this.#present.clear();
    this.#handover?.close();
    this.#handover = undefined;
  }

  #heard(giver: Giver): void {
    try {
      const registration = readRegistration(giver.text);
      const launcher = new Launcher(
        giver,
        registration,
        this.#service,
        this.#log,
        this.#lookup,
        this.#values,
      );
      this.#present.add(launcher);
      void launcher.serve().then(() => this.#present.delete(launcher));
    } catch (error) {
      if (!(error instanceof DualportError)) throw error;
      refuse(giver, error, this.#log);
    }
  }
}

/** One launcher, from the record it sends until it wants its socket back. */
class Launcher {
  readonly #giver: Giver;
  readonly #registration: Registration;
  readonly #service: Service;
  readonly #log: Log;
  readonly #lookup: ContainerLookup;
  readonly #values: () => RuleOptionValues;
  readonly #over = new AbortController();
  readonly #back: Promise<void>;
  #known: FoundContainer | undefined;
  #knownSinceMs = Number.NEGATIVE_INFINITY;
  #asking: Promise<void> | undefined;

  constructor(
    giver: Giver,
    registration: Registration,
    service: Service,
    log: Log,
    lookup: ContainerLookup,
    values: () => RuleOptionValues,
  ) {
    this.#giver = giver;
    this.#registration = registration;
    this.#service = service;
    this.#log = log.child({ rule: nameOf(registration), launcher: giver.pid });
    this.#lookup = lookup;
    this.#values = values;
    this.#back = new Promise((resolve) => giver.onBack(resolve));
  }

  /** Resolves when nothing of its socket is left here. */
  async serve(): Promise<void> {
    try {
      const rule = ruleOf(this.#registration, this.#values());
      await this.#service.add(rule, { open: (plan) => this.#adopt(plan), late: () => this.#late() });
    } catch (error) {
      return refuse(this.#giver, error, this.#log);
    }
    this.#giver.answer('ok');
    void this.#learn();
    await this.#back;
    this.forget();
    await this.#service.remove(nameOf(this.#registration));
    this.#giver.close();
  }

  /** What the container may be told is perhaps another. */
  configured(): void {
    void this.#change();
    if (this.#known !== undefined) void this.#ask();
  }

  /** Nothing more is found out. */
  forget(): void {
    this.#over.abort();
  }

  async #adopt(plan: RulePlan): Promise<readonly Listener<RulePlan>[]> {
    const { engine } = this.#service;
    if (engine.adopt === undefined) throw new Error(`the ${engine.name} engine adopts no sockets`);
    return [await engine.adopt(this.#registration.port.protocol, this.#giver.take(), plan)];
  }

  /** In the background; a flow that needs it sooner asks by itself. */
  async #learn(): Promise<void> {
    const { signal } = this.#over;
    for (const ms of retriesMs) {
      await sleep(ms, undefined, { ref: false, signal }).catch(() => {});
      if (signal.aborted || this.#known !== undefined) return;
      await this.#ask();
    }
    if (!signal.aborted && this.#known === undefined) this.#log.debug('no container has this address');
  }

  async #late(): Promise<readonly Endpoint[]> {
    const isFresh = performance.now() - this.#knownSinceMs < freshMs;
    if (!isFresh) await Promise.race([this.#askUntilKnown(), pause(lateMs)]);
    const { port } = this.#registration.container;
    return (this.#known?.otherAddresses ?? []).map((address) => ({ address, zone: '', port }));
  }

  async #askUntilKnown(): Promise<void> {
    const end = performance.now() + lateMs;
    await this.#ask();
    while (this.#known === undefined && performance.now() < end && !this.#over.signal.aborted) {
      await pause(lateRetryMs);
      await this.#ask();
    }
  }

  /** Whoever asks while an answer is due waits for that one. */
  #ask(): Promise<void> {
    this.#asking ??= this.#askNow().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  async #askNow(): Promise<void> {
    const { container, port } = this.#registration;
    const found = await this.#lookup.find(container.address, container.port, port.protocol);
    if (found === undefined || this.#over.signal.aborted) return;
    this.#knownSinceMs = performance.now();
    const isNews = this.#known === undefined || textOf(found) !== textOf(this.#known);
    this.#known = found;
    if (isNews) await this.#change();
  }

  async #change(): Promise<void> {
    const { otherAddresses = [], source, name } = this.#known ?? {};
    const values = this.#values();
    try {
      await this.#service.change(ruleOf(this.#registration, values, otherAddresses, source));
      const to = otherAddresses.map(formatAddress);
      if (name !== undefined) this.#log.debug({ container: name, fallback: to, source }, 'container known');
    } catch (error) {
      this.#log.warn(
        { container: name, reason: messageOf(error) },
        'what the container asks for cannot be done',
      );
    }
  }
}

/** Keeps no process from ending. */
function pause(ms: number): Promise<void> {
  return sleep(ms, undefined, { ref: false });
}

function textOf({ name, otherAddresses, source }: FoundContainer): string {
  return [name, source, ...otherAddresses.map(formatAddress)].join(' ');
}

function refuse(giver: Giver, error: unknown, log: Log): void {
  const reason = messageOf(error);
  log.warn(
    { pid: giver.pid, reason },
    'a launcher was refused: its port is served by the stock docker-proxy',
  );
  giver.refuse(`refused ${reason}`.slice(0, 400));
}

/** A system's folder for sockets that programs make themselves, as they are started. */
function makeDefaultFolder(path: string): void {
  if (path !== defaultLauncherSocket) return;
  try {
    mkdirSync(dirname(path), { mode: 0o755 });
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  }
}

async function replacingStale(path: string, bind: () => Handover): Promise<Handover> {
  try {
    return bind();
  } catch (error) {
    if (errnoOf(error) !== 'EADDRINUSE' || !(await isStaleSocket(path))) throw error;
    unlinkSync(path);
    return bind();
  }
}

function inodeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino;
}

function cannotServe(path: string, error: unknown): DualportError {
  const why = socketTrouble(path, error);
  return new DualportError('LISTEN', `cannot serve launchers on ${path}: ${why}`, { cause: error });
}
