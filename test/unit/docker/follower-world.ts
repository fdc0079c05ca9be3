/** A follower between an engine that is made up and a publisher that only keeps books. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { pino } from 'pino';
import { loadConfig } from '../../../src/config/load.ts';
import type { Rule } from '../../../src/config/rules.ts';
import type { Flags } from '../../../src/config/sources.ts';
import { formatUpstream } from '../../../src/config/target.ts';
import { DockerApi } from '../../../src/docker/api.ts';
import { Follower, type Periods, type Publisher } from '../../../src/docker/follower.ts';
import { DualportError } from '../../../src/errors.ts';
import { until } from '../../engine/harness.ts';
import { FakeEngine } from '../../support/fake-engine.ts';

/** A hundredth to a tenth of the usual ones. */
export const quick: Periods = {
  debounceMs: 10,
  relistMs: 120,
  retryMs: 10,
  maxRetryMs: 50,
  recheckMs: 30,
  settleMs: 250,
};
/** Keeps what is published, and what happened in which order. */
export class Books implements Publisher {
  readonly published = new Map<string, Rule>();
  readonly history: string[] = [];
  /** Names that are refused, as ports that another program holds. */
  readonly taken = new Set<string>();
  /** How long it takes to open one. */
  addMs = 0;

  async add(rule: Rule): Promise<void> {
    if (this.published.has(rule.name)) throw new Error(`${rule.name} was added twice`);
    if (this.addMs > 0) await sleep(this.addMs);
    if (this.taken.has(rule.name)) throw new DualportError('ADDRESS_IN_USE', `cannot listen on ${rule.name}`);
    this.published.set(rule.name, rule);
    this.history.push(`add ${this.text(rule)}`);
  }

  async change(rule: Rule): Promise<void> {
    if (!this.published.has(rule.name)) return;
    this.published.set(rule.name, rule);
    this.history.push(`change ${this.text(rule)}`);
  }

  async remove(name: string): Promise<void> {
    if (!this.published.delete(name)) throw new Error(`${name} was not there`);
    this.history.push(`remove ${name}`);
  }

  /** `8080:80/tcp → 172.17.0.2:80`. */
  text({ name, to, port }: Rule): string {
    return `${name} → ${to.map((target) => formatUpstream(target, port.containerPort)).join(' ')}`;
  }

  get texts(): readonly string[] {
    return [...this.published.values()].map((rule) => this.text(rule)).sort();
  }
}

export type Line = Readonly<Record<string, unknown>>;

export class World {
  readonly engine: FakeEngine;
  readonly books = new Books();
  readonly lines: Line[] = [];
  flags: Flags = {};
  readonly follower: Follower;
  readonly #directory: string;

  static async open(periods: Periods, answerMs: number): Promise<World> {
    const directory = mkdtempSync(join(tmpdir(), 'dualport-follower-'));
    const path = join(directory, 'docker.sock');
    return new World(directory, path, await DockerApi.open({ kind: 'socket', path }, answerMs), periods);
  }

  private constructor(directory: string, path: string, api: DockerApi, periods: Periods) {
    this.#directory = directory;
    this.engine = new FakeEngine(path);
    const log = pino({ level: 'debug', base: null }, { write: (line) => this.lines.push(JSON.parse(line)) });
    const facts = () => ({
      config: loadConfig({ flags: { docker: true, ...this.flags }, env: {} }),
      mostRules: 100,
    });
    this.follower = new Follower(api, this.books, facts, log, periods);
  }

  /** Follows an engine that is there. */
  async follow(): Promise<void> {
    await this.engine.open();
    this.follower.start();
    await this.connected();
  }

  connected(): Promise<void> {
    return until(
      () => this.follower.status.connected && this.engine.listeners === 1,
      'the engine to be followed',
    );
  }

  said(message: string): readonly Line[] {
    return this.lines.filter(({ msg }) => msg === message);
  }

  /** Until exactly this is published. */
  publishes(texts: readonly string[]): Promise<void> {
    return this.publishesOneOf([texts]);
  }

  /** Or one of several outcomes. */
  async publishesOneOf(outcomes: readonly (readonly string[])[], limitMs?: number): Promise<void> {
    const sorted = outcomes.map((texts) => [...texts].sort());
    const isThere = () => sorted.some((texts) => isDeepStrictEqual(this.books.texts, texts));
    await until(isThere, 'the rules', limitMs).catch(() => assert.deepEqual(this.books.texts, sorted[0]));
  }

  async close(): Promise<void> {
    await this.follower.close();
    await this.engine.close();
    rmSync(this.#directory, { recursive: true });
  }
}
