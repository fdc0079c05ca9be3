/** Rules that come and go one by one, beside those of the configuration; on real sockets of the portable engine. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { type Config, loadConfig } from '../../../src/config/load.ts';
import type { Rule } from '../../../src/config/rules.ts';
import { DualportError } from '../../../src/errors.ts';
import { formatEndpoint } from '../../../src/net/address.ts';
import { Service, type Surround } from '../../../src/service/service.ts';

const open: (() => unknown)[] = [];
let service: Service;
/** Programs that say who they are: one port, two addresses, for a rule's name has the port of its program. */
const first = await program('first', '127.0.0.1', 0);
const second = await program('second', '127.0.0.2', portOf(first));

beforeEach(async () => {
  await closeAll();
  service = new Service(configOf([await freePort()], first), pino({ level: 'silent' }));
  open.push(() => service.stop(0, AbortSignal.abort()));
});

after(async () => {
  await closeAll();
  first.close();
  second.close();
});

test('an added rule serves beside those of the configuration', async () => {
  const [configured, added] = [await freePort(), await freePort()];
  await service.apply(configOf([configured], first));
  await service.add(ruleOf(added, second));
  assert.equal(await said(configured), 'first');
  assert.equal(await said(added), 'second');
});

test('a name is taken once, whoever had it first', async () => {
  const [configured, added] = [await freePort(), await freePort()];
  await service.apply(configOf([configured], first));
  await service.add(ruleOf(added, first));
  await refused(service.add(ruleOf(added, second)), 'PORT_CONFLICT');
  await refused(service.add(ruleOf(configured, second)), 'PORT_CONFLICT');
  assert.equal(await said(added), 'first');
  assert.equal(await said(configured), 'first');
});

test('a port that somebody else has leaves nothing behind', async () => {
  const port = await freePort();
  const somebody = createServer().listen(port, '127.0.0.1');
  await once(somebody, 'listening');
  await refused(service.add(ruleOf(port, first)), 'ADDRESS_IN_USE');
  assert.deepEqual(service.rules, []);
  somebody.close();
  await once(somebody, 'close');
  await service.apply(configOf([port], first));
  assert.equal(await said(port), 'first');
});

test('whoever added a rule hears of a flow of it that reached nobody, and of no other flow', async () => {
  const [configured, added, answered] = [await freePort(), await freePort(), await freePort()];
  const nobody = '127.0.0.3';
  const unreached: string[] = [];
  const told = new Service(configOf([configured], first, nobody), pino({ level: 'silent' }), (rule) =>
    unreached.push(rule),
  );
  open.push(() => told.stop(0, AbortSignal.abort()));
  await told.apply(configOf([configured], first, nobody));
  const rule = ruleOf(added, first, nobody);
  await told.add(rule);
  await told.add(ruleOf(answered, first));
  await said(configured).catch(() => {});
  assert.equal(await said(answered), 'first');
  assert.deepEqual(unreached, []);
  await said(added).catch(() => {});
  assert.deepEqual(unreached, [rule.name]);
  await told.change(ruleOf(added, first));
  assert.equal(await said(added), 'first');
  assert.deepEqual(unreached, [rule.name]);
});

test('a UDP rule has half of the flows beside rules of TCP, and half of that beside another of UDP', async (t) => {
  const echo = createSocket('udp4', (data, { port, address }) => echo.send(data, port, address));
  t.after(() => echo.close());
  await once(echo.bind(0, '127.0.0.1'), 'listening');
  const rule = `127.0.0.1:${await freePort()}:${echo.address().port}`;
  const other = `127.0.0.1:${await freePort()}:${echo.address().port}/udp`;
  const config = (...publish: string[]) =>
    loadConfig({
      flags: { publish, to: ['127.0.0.1'], engine: 'portable', maxFlows: '8', maxFlowsPerSource: '8' },
      env: {},
    });
  const answered = async (added: readonly Rule[]) => {
    const one = new Service(config(rule, `${rule}/udp`), pino({ level: 'silent' }));
    t.after(() => one.stop(0, AbortSignal.abort()));
    await one.apply(config(rule, `${rule}/udp`));
    for (const each of added) await one.add(each);
    const count = await clientsAnswered(6, Number(rule.split(':')[1]));
    await one.stop(0, AbortSignal.abort());
    return count;
  };
  assert.equal(await answered([]), 4);
  assert.equal(await answered(config(other).rules), 2);
});

test('a reload leaves added rules alone', async () => {
  const [before, afterwards, added] = [await freePort(), await freePort(), await freePort()];
  await service.apply(configOf([before], first));
  await service.add(ruleOf(added, second));
  await service.apply(configOf([afterwards], first));
  assert.equal(await said(added), 'second');
  assert.equal(await said(afterwards), 'first');
  await assert.rejects(said(before), { code: 'ECONNREFUSED' });
});

test('a reload that wants the port of an added rule changes nothing', async () => {
  const [before, afterwards, added] = [await freePort(), await freePort(), await freePort()];
  await service.apply(configOf([before], first));
  await service.add(ruleOf(added, second));
  await refused(service.apply(configOf([afterwards, added], first)), 'PORT_CONFLICT');
  assert.equal(await said(before), 'first');
  assert.equal(await said(added), 'second');
  await assert.rejects(said(afterwards), { code: 'ECONNREFUSED' });
});

test('a reload that wants the port a range has got names the range, and changes nothing', async () => {
  const port = await freePort();
  const range = `127.0.0.1:${port}-${port + 20}:${portOf(first)}`;
  const withOneMore = (text: string) => configFrom([range, text], '127.0.0.2');
  await service.apply(configFrom([range], '127.0.0.1'));
  for (const text of [`127.0.0.1:${port}:9`, `0.0.0.0:${port}:9`, `${port}:9`]) {
    await assert.rejects(service.apply(withOneMore(text)), {
      code: 'ADDRESS_IN_USE',
      message:
        `cannot listen on tcp port ${port}: "${range}/tcp" of this dualport has it, and keeps it while it runs; ` +
        'publish another port, or restart dualport',
    });
  }
  assert.equal(await said(port), 'first');
  const somebody = createServer().listen(0, '127.0.0.1');
  await once(somebody, 'listening');
  const theirs = service.apply(withOneMore(`127.0.0.1:${portOf(somebody)}:9`));
  await assert.rejects(theirs, /another program holds this port/);
  somebody.close();
});

test('a removed rule gives its port up, and its flows go on', async () => {
  const port = await freePort();
  await service.add(ruleOf(port, first));
  const client = await greeted(port);
  await service.remove(ruleOf(port, first).name);
  await assert.rejects(said(port), { code: 'ECONNREFUSED' });
  client.write('still there?');
  assert.equal(String((await once(client, 'data'))[0]), 'still there?');
  client.destroy();
  await service.add(ruleOf(port, second));
  assert.equal(await said(port), 'second');
});

test('only added rules are removed and changed from outside', async () => {
  const configured = await freePort();
  await service.apply(configOf([configured], first));
  await service.change(ruleOf(configured, second));
  await service.remove(ruleOf(configured, first).name);
  assert.equal(await said(configured), 'first');
});

test('a changed rule keeps its socket and sends new flows elsewhere', async () => {
  const port = await freePort();
  await service.add(ruleOf(port, first));
  const listeners = service.rules[0]?.listeners;
  await service.change(ruleOf(port, second));
  assert.equal(await said(port), 'second');
  assert.equal(service.rules[0]?.listeners, listeners);
});

test('changes that come at once are made one after the other', async () => {
  const port = await freePort();
  const rule = ruleOf(port, first);
  await Promise.all([service.add(rule), service.remove(rule.name), service.add(ruleOf(port, second))]);
  assert.equal(await said(port), 'second');
});

test('nothing is added once the service stops', async () => {
  await service.stop(0, AbortSignal.abort());
  await assert.rejects(service.add(ruleOf(await freePort(), first)), /stopping/);
});

/** A service, and what it has others make around its rules: their names and upstreams at each call. */
function surrounded(refuse: () => boolean): { readonly one: Service; readonly calls: string[] } {
  const calls: string[] = [];
  const surround: Surround = async (rules) => {
    calls.push(`begins with ${one.rules.length} open`);
    await sleep(20);
    calls.push(
      rules()
        .map(({ rule, upstreams }) => `${rule.source} ${upstreams.map(formatEndpoint)}`)
        .join(),
    );
    if (refuse()) throw new DualportError('SETUP', 'no room');
  };
  const one = new Service(shown([1], 'none'), pino({ level: 'silent' }), undefined, surround);
  open.push(() => one.stop(0, AbortSignal.abort()));
  return { one, calls };
}

const stateDir = mkdtempSync(join(tmpdir(), 'dualport-test-'));
after(() => rmSync(stateDir, { recursive: true }));

function shown(ports: readonly number[], source: string): Config {
  const publish = ports.map((port) => `127.0.0.1:${port}:${portOf(first)}`);
  return loadConfig({ flags: { publish, to: ['127.0.0.1'], engine: 'portable', source, stateDir }, env: {} });
}

function shownRule(port: number, source: string): Rule {
  const [rule] = shown([port], source).rules;
  assert.ok(rule);
  return rule;
}

test('what is around rules that show clients is made before they run, and follows when they go', async () => {
  const { one, calls } = surrounded(() => false);
  const [configured, added, other] = [await freePort(), await freePort(), await freePort()];
  const to = `127.0.0.1:${portOf(first)}`;
  await one.apply(shown([configured], 'pseudo'));
  assert.deepEqual(calls.splice(0, 2), ['begins with 0 open', `pseudo ${to}`]);
  await one.add(ruleOf(other, first));
  await sleep(100);
  assert.equal(calls.splice(0).at(-1), `pseudo ${to},none ${to}`, 'and once more after a change');
  await one.add(shownRule(added, 'pseudo'));
  assert.deepEqual(calls.splice(0), ['begins with 2 open', `pseudo ${to},none ${to},pseudo ${to}`]);
  await one.remove(ruleOf(other, first).name);
  assert.deepEqual(calls, [], 'nobody is asked for what needs nothing');
  await one.remove(shownRule(added, 'pseudo').name);
  await sleep(100);
  assert.deepEqual(calls.splice(0), ['begins with 1 open', `pseudo ${to}`]);
});

test('a rule does not run where what it needs around it cannot be made, and others do', async () => {
  let full = false;
  const { one } = surrounded(() => full);
  const [configured, added] = [await freePort(), await freePort()];
  await one.apply(shown([configured], 'pseudo'));
  full = true;
  await refused(one.add(shownRule(added, 'pseudo')), 'SETUP');
  await refused(one.apply(shown([added], 'pseudo')), 'SETUP');
  assert.equal(one.rules.length, 1);
  await assert.rejects(said(added), { code: 'ECONNREFUSED' });
  await one.add(ruleOf(added, first));
  assert.equal(await said(added), 'first');
});

function configOf(
  ports: readonly number[],
  upstream: Server,
  address: string = addressOf(upstream).address,
): Config {
  return configFrom(
    ports.map((port) => `127.0.0.1:${port}:${portOf(upstream)}`),
    address,
  );
}

function configFrom(publish: readonly string[], address: string): Config {
  return loadConfig({ flags: { publish, to: [address], engine: 'portable' }, env: {} });
}

function ruleOf(port: number, upstream: Server, address?: string): Rule {
  const [rule] = configOf([port], upstream, address).rules;
  assert.ok(rule);
  return rule;
}

async function program(name: string, host: string, port: number): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.write(name);
    socket.pipe(socket);
  });
  server.listen(port, host);
  await once(server, 'listening');
  return server;
}

async function greeted(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  open.push(() => socket.destroy());
  await once(socket, 'data');
  return socket;
}

async function said(port: number): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  const [data] = await once(socket, 'data');
  socket.destroy();
  return String(data);
}

/** How many of so many clients at once hear from a program behind a UDP port. */
async function clientsAnswered(clients: number, port: number): Promise<number> {
  let answers = 0;
  const sockets = Array.from({ length: clients }, () => createSocket('udp4', () => answers++));
  open.push(...sockets.map((socket) => () => socket.close()));
  for (const socket of sockets) {
    socket.send('?', port, '127.0.0.1');
    await sleep(50);
  }
  return answers;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const port = portOf(server);
  server.close();
  await once(server, 'close');
  return port;
}

function addressOf(server: Server): AddressInfo {
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  return address;
}

function portOf(server: Server): number {
  return addressOf(server).port;
}

async function refused(done: Promise<unknown>, code: string): Promise<void> {
  await assert.rejects(done, (error) => error instanceof DualportError && error.code === code);
}

async function closeAll(): Promise<void> {
  for (const close of open.splice(0)) await close();
}
