/** What a reload changes, and what stays as it was at the start; on a real service of the portable engine. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { type Config, loadConfig } from '../../../src/config/load.ts';
import { parsePortSpec } from '../../../src/config/port-spec.ts';
import type { Flags } from '../../../src/config/sources.ts';
import { withinBounds } from '../../../src/docker/bounds.ts';
import { Reloader } from '../../../src/service/reloader.ts';
import { Service } from '../../../src/service/service.ts';
import { until } from '../../engine/harness.ts';

const needsRestart = 'these options take effect at the next start';
const started: Flags = { docker: true, engine: 'portable', admin: '127.0.0.1:9090', drainTimeout: '1s' };

/** A service that has started, and reloads of it. */
class World {
  flags: Flags = started;
  readonly reloader: Reloader;
  readonly service: Service;
  readonly #lines: Record<string, unknown>[] = [];

  constructor() {
    const log = pino({ base: null }, { write: (line) => this.#lines.push(JSON.parse(line)) });
    const load = (): Config => loadConfig({ flags: this.flags, env: {} });
    this.service = new Service(load(), log);
    this.reloader = new Reloader(this.service, load, load(), log);
  }

  async reload(flags: Flags): Promise<void> {
    const before = this.reloader.history.succeeded;
    this.flags = { ...started, ...flags };
    this.reloader.request();
    await until(() => this.reloader.history.succeeded > before, 'the reload');
  }

  /** Each time it was said, which options. */
  get told(): readonly unknown[] {
    return this.#lines.filter(({ msg }) => msg === needsRestart).map(({ options }) => options);
  }
}

function open(t: { after(close: () => Promise<void>): void }): World {
  const world = new World();
  t.after(() => world.service.stop(0, AbortSignal.abort()));
  return world;
}

test('what takes effect at the next start is as it was until then, and everything else is new', async (t) => {
  const world = open(t);
  await world.reload({ admin: '127.0.0.1:9191', threads: '2', drainTimeout: '3s', dockerPorts: '9000-9200' });
  const { config } = world.reloader;
  assert.deepEqual([config.admin, config.threads], [loadConfig({ flags: started, env: {} }).admin, 1]);
  assert.equal(config.drainTimeoutMs, 3000);
  assert.ok(Object.isFrozen(config));
});

test('a label gets no port of the admin address that listens, whatever is written for the next start', async (t) => {
  const world = open(t);
  const bounds = (port: number) => {
    const { labels, admin } = world.reloader.config;
    return withinBounds(portOf(port), labels, admin);
  };
  await world.reload({ admin: '127.0.0.1:9191' });
  assert.match(String(bounds(9090)), /^found host port 9090, which is that of --admin; /);
  assert.ok(Array.isArray(bounds(9191)), 'nobody listens there');
});

test('what needs a restart is told at each reload, for as long as it needs one', async (t) => {
  const world = open(t);
  await world.reload({ admin: '127.0.0.1:9191' });
  await world.reload({ admin: '127.0.0.1:9191', logLevel: 'warn' });
  assert.deepEqual(world.told, [['admin'], ['admin', 'logLevel']]);
  await world.reload({});
  assert.equal(world.told.length, 2, 'it runs as it is written again');
});

test('what needs a restart is named as it is written', async (t) => {
  const world = open(t);
  const changes: Flags = {
    ...{ pseudoV4: '241.0.0.0/8', pseudoV6: 'fd00::/96', pseudoUnit: '/56', stateDir: '/tmp/elsewhere' },
    ...{
      transparentSetup: true,
      transparentInterface: ['br0'],
      transparentTable: 'other',
      transparentMark: '1',
    },
    ...{
      transparentPriority: '70',
      transparentRouteTable: '25000',
      dockerProxySocket: '/tmp/elsewhere.sock',
    },
  };
  await world.reload(changes);
  assert.deepEqual(
    world.told.map((names) => [...(names as string[])].sort()),
    [Object.keys(changes).sort()],
  );
});

function portOf(port: number) {
  const [spec] = parsePortSpec(`${port}:80`);
  if (spec === undefined) throw new Error('a port');
  return spec;
}
