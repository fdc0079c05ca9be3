/** The service on several threads, in this process: rules that others add, and what the main thread hears. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { after, afterEach, before, test as nodeTest } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { type Config, loadConfig } from '../../../src/config/load.ts';
import type { Rule } from '../../../src/config/rules.ts';
import { readCounter } from '../../../src/flow/counters.ts';
import { Service } from '../../../src/service/service.ts';
import { threadsOf } from '../../../src/service/status.ts';
import { until } from '../../engine/harness.ts';
import { skipWithoutCore } from '../../support/requirements.ts';

const skip = skipWithoutCore();
const test = (title: string, run: () => Promise<void>) => nodeTest(title, { skip }, run);

const threads = 3;
const programs: Server[] = [];
let service: Service | undefined;

before(async () => {
  programs.push(await program('first', '127.0.0.1', 0));
  programs.push(await program('second', '127.0.0.2', portOf(first())));
});
afterEach(() => service?.stop(0, AbortSignal.abort()));
after(() => {
  for (const server of programs) server.close();
});

test('an added rule is on every thread, as are its changes and its end', async () => {
  const [configured, added] = [await freePort(), await freePort()];
  const config = configOf([configured], '127.0.0.1', portOf(first()));
  const started = make(config);
  await started.apply(config);
  await started.add(ruleOf(added, '127.0.0.1', portOf(first())));
  assert.deepEqual(await answers(added), new Set(['first']));
  for (const { flows } of threadsOf(started)) assert.ok(flows > 0);
  await started.change(ruleOf(added, '127.0.0.2', portOf(first())));
  assert.deepEqual(await answers(added), new Set(['second']));
  await started.remove(ruleOf(added, '127.0.0.1', portOf(first())).name);
  assert.deepEqual(await answers(added), new Set(['ECONNREFUSED']));
  assert.deepEqual(await answers(configured), new Set(['first']));
});

test('whoever added a rule hears from every thread that a flow has reached nobody', async () => {
  const [configured, added, closed] = [await freePort(), await freePort(), await freePort()];
  const config = configOf([configured], '127.0.0.1', closed);
  const heard: string[] = [];
  const started = make(config, (rule) => heard.push(rule));
  await started.apply(config);
  assert.deepEqual(await answers(configured), new Set(['ECONNRESET']));
  assert.deepEqual(heard, [], 'nobody added this one');
  const rule = ruleOf(added, '127.0.0.1', closed);
  await started.add(rule);
  assert.deepEqual(await answers(added), new Set(['ECONNRESET']));
  const running = started.rules.find(({ rule: { name } }) => name === rule.name);
  const failed = running?.counters.map((block) => readCounter(block, 'connectRefused')) ?? [];
  assert.ok(failed.length === threads && failed.every((count) => count > 0), String(failed));
  // Here of every flow, from elsewhere of one of those that fail at about the same time.
  const [here = 0] = failed;
  await until(() => heard.length >= here + 2, `${heard.length} calls, with ${failed} flows`);
  await sleep(200);
  assert.ok(heard.length < 30, String(heard.length));
  assert.deepEqual(new Set(heard), new Set([rule.name]));
});

test('the service ends with its threads, also while they begin', async () => {
  const config = configOf([await freePort()], '127.0.0.1', 9);
  const started = make(config);
  const applied = started.apply(config);
  await started.stop(0, AbortSignal.abort());
  await applied.catch(() => {});
  assert.equal(await started.engine.busyFlows(), 0);
});

function make(config: Config, unreached?: (rule: string) => void): Service {
  service = new Service(config, pino({ level: 'silent' }), unreached);
  assert.equal(service.engine.count, threads);
  return service;
}

function configOf(ports: readonly number[], host: string, upstreamPort: number): Config {
  const publish = ports.map((port) => `127.0.0.1:${port}:${upstreamPort}`);
  return loadConfig({ flags: { publish, to: [host], threads: String(threads) }, env: {} });
}

function ruleOf(port: number, host: string, upstreamPort: number): Rule {
  const [rule] = configOf([port], host, upstreamPort).rules;
  assert.ok(rule);
  return rule;
}

function first(): Server {
  const [server] = programs;
  assert.ok(server);
  return server;
}

/** What some clients hear, or how they end; enough of them for every thread to have one. */
async function answers(port: number): Promise<ReadonlySet<string>> {
  return new Set(await Promise.all(Array.from({ length: 30 }, () => answer(port))));
}

async function answer(port: number): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  try {
    const [data] = await once(socket, 'data');
    return String(data);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'error';
  } finally {
    socket.destroy();
  }
}

async function program(name: string, host: string, port: number): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.end(name);
  });
  server.listen(port, host);
  await once(server, 'listening');
  return server;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const port = portOf(server);
  server.close();
  await once(server, 'close');
  return port;
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}
