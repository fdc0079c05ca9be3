/**
 * echo-server, the program behind everything that is measured: what it must not lose, and what it must not cost.
 */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { before, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildLoad, loadProgram } from '../../bench/load/programs.ts';
import { until } from '../engine/harness.ts';
import { here, Stage } from '../support/dualport.ts';
import { freeRange, Running } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const options = { skip: skipUnless('linux', 'gcc'), timeout: 20_000 };
const mebibyte = 2 ** 20;

before(() => {
  if (options.skip === false) buildLoad();
});

interface Echo {
  readonly server: Running;
  readonly host: string;
  readonly port: number;
}

async function startEcho(t: TestContext, ...more: readonly string[]): Promise<Echo> {
  const host = '127.0.0.1';
  const port = await freeRange(3);
  const server = new Stage(t).background(here, loadProgram('echo-server'), [host, `${port}`, '3', ...more]);
  await until(() => server.stdout === 'ready\n', `ready: ${server.stderr}`);
  return { server, host, port };
}

async function open(t: TestContext, { host, port }: Echo): Promise<net.Socket> {
  const socket = net.connect({ host, port, allowHalfOpen: true, noDelay: true });
  t.after(() => socket.destroy());
  await once(socket, 'connect');
  return socket;
}

function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function readAll(socket: net.Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Bytes of memory that are its own and in use. */
function memoryOf({ server }: Echo): number {
  const status = readFileSync(`/proc/${server.child.pid}/status`, 'utf8');
  return Number(/^RssAnon:\s+(\d+)/m.exec(status)?.[1]) * 1024;
}

test('16 MiB come back whole to a client that reads only after it has written all', options, async (t) => {
  const socket = await open(t, await startEcho(t));
  const bytes = randomBytes(16 * mebibyte);
  socket.pause();
  await new Promise((resolve) => socket.write(bytes, resolve));
  socket.end();
  assert.equal(hashOf(await readAll(socket)), hashOf(bytes));
});

test('the memory for a client that never reads is bounded, and given back', options, async (t) => {
  const echo = await startEcho(t);
  const socket = await open(t, echo);
  const before = memoryOf(echo);
  const bytes = randomBytes(96 * mebibyte);
  socket.pause();
  socket.end(bytes);
  await untilSteady(() => memoryOf(echo));
  assert.ok(memoryOf(echo) - before > 15 * mebibyte, 'it keeps what the kernel does not');
  assert.ok(memoryOf(echo) - before < 40 * mebibyte, `${memoryOf(echo)} bytes for one connection`);
  assert.ok(!socket.writableFinished, 'the client is held up');
  assert.equal(hashOf(await readAll(socket)), hashOf(bytes));
  await until(() => memoryOf(echo) - before < mebibyte, 'the memory given back');
});

async function untilSteady(value: () => number): Promise<void> {
  let [former, now] = [-1, value()];
  while (former !== now) {
    await sleep(150);
    [former, now] = [now, value()];
  }
}

test('a half-close is answered by one, behind the last byte', options, async (t) => {
  const echo = await startEcho(t);
  for (const size of [0, 1, 64, 65_536, 65_537, 3 * mebibyte]) {
    const socket = await open(t, echo);
    const bytes = randomBytes(size);
    socket.end(bytes);
    assert.equal(hashOf(await readAll(socket)), hashOf(bytes), `${size} bytes`);
  }
});

test('2000 idle connections cost no memory, and are all there', options, async (t) => {
  const echo = await startEcho(t);
  const exchange = async (socket: net.Socket) => {
    const bytes = randomBytes(64);
    socket.write(bytes);
    const [answer] = await once(socket, 'data');
    assert.deepEqual(answer, bytes);
  };
  await exchange(await open(t, echo));
  const before = memoryOf(echo);
  const sockets = await Promise.all(Array.from({ length: 2000 }, () => open(t, echo)));
  await Promise.all(sockets.map(exchange));
  const grown = memoryOf(echo) - before;
  assert.ok(grown <= 64 * 1024, `${grown} bytes`);
  await Promise.all(sockets.map(exchange));
});

test('clients that reset in the middle disturb nobody', options, async (t) => {
  const echo = await startEcho(t);
  const steady = await open(t, echo);
  for (let i = 0; i < 20; i++) {
    const socket = await open(t, echo);
    socket.on('error', () => {});
    socket.pause();
    socket.write(randomBytes(8 * mebibyte));
    await sleep(i % 4);
    socket.resetAndDestroy();
  }
  const bytes = randomBytes(mebibyte);
  steady.end(bytes);
  assert.equal(hashOf(await readAll(steady)), hashOf(bytes));
  assert.equal(echo.server.child.exitCode, null);
});

test('every port is served', options, async (t) => {
  const echo = await startEcho(t);
  for (const port of [0, 1, 2].map((i) => echo.port + i)) {
    const socket = await open(t, { ...echo, port });
    socket.end('to each port');
    assert.equal(String(await readAll(socket)), 'to each port');
  }
});

test('IPv6 is IPv6 only, so both families can be served beside each other', {
  ...options,
  skip: skipUnless('linux', 'gcc', 'ipv6'),
}, async (t) => {
  const { port } = await startEcho(t);
  const args = ['::', `${port}`, '3'];
  const other = new Stage(t).background(here, loadProgram('echo-server'), args);
  await until(() => other.stdout === 'ready\n', `ready: ${other.stderr}`);
  const socket = await open(t, { server: other, host: '::1', port });
  socket.end('over IPv6');
  assert.equal(String(await readAll(socket)), 'over IPv6');
});

test('SIGTERM ends it at once, connections or not', options, async (t) => {
  const echo = await startEcho(t);
  const socket = await open(t, echo);
  socket.on('error', () => {});
  const started = performance.now();
  echo.server.signal('SIGTERM');
  await echo.server.exit;
  assert.ok(performance.now() - started < 200);
  assert.equal(echo.server.child.signalCode, 'SIGTERM');
});

test('what cannot be served is said in one line', options, async (t) => {
  const { port } = await startEcho(t);
  const cases: readonly (readonly [args: readonly string[], code: number, text: string])[] = [
    [[], 2, '<address> is missing, a value must follow'],
    [['localhost', '80', '1'], 2, "<address> is 'localhost', allowed are numeric IPv4 and IPv6 addresses"],
    [['::1', '0', '1'], 2, "the port of <address> is '0', allowed are integers from 1 to 65535"],
    [['::1', '65535', '2'], 2, "<count> is '2', allowed are integers from 1 to 1"],
    [['::1', '8000', '1', '--tcp'], 2, "found '--tcp', allowed are <address> <first-port> <count>"],
    [['127.0.0.1', `${port - 1}`, '2'], 1, `127.0.0.1 port ${port}: Address already in use`],
  ];
  for (const [args, code, text] of cases) {
    const exit = await new Running(args, { command: [loadProgram('echo-server')] }).exit;
    assert.deepEqual(exit, { code, stdout: '', stderr: `echo-server: ${text}\n` });
  }
});
