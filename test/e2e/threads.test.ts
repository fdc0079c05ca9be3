/** Several threads that serve the same ports: who gets which client, and what must hold for all of them together. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test as nodeTest } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Status } from '../../src/service/status.ts';
import { until } from '../engine/harness.ts';
import { freePort, freeRange, main, Running, runToEnd } from '../support/process.ts';
import { skipUnless, skipWithoutCore } from '../support/requirements.ts';

const skip = skipWithoutCore();
const test = (title: string, run: () => Promise<void>, also: typeof skip = false) =>
  nodeTest(title, { skip: skip || also }, run);

const directory = mkdtempSync(join(tmpdir(), 'dualport-threads-'));
const running: Running[] = [];
const open: (() => void)[] = [];
let echo: net.Server;
let echoPort = 0;
const threads = 3;

before(async () => {
  echo = net.createServer({ allowHalfOpen: true }, (socket) => socket.on('error', () => {}).pipe(socket));
  echo.listen(0, '127.0.0.1');
  await once(echo, 'listening');
  echoPort = (echo.address() as net.AddressInfo).port;
});
afterEach(async () => {
  for (const close of open.splice(0)) close();
  for (const process of running.splice(0)) await process.end();
});
after(() => {
  echo.close();
  rmSync(directory, { recursive: true });
});

function start(args: readonly string[], options?: ConstructorParameters<typeof Running>[1]): Running {
  const process = new Running([...args, '--threads', String(threads)], options);
  running.push(process);
  return process;
}

async function ready(
  args: readonly string[],
  options?: ConstructorParameters<typeof Running>[1],
): Promise<Running> {
  const process = start(args, options);
  assert.equal((await process.says('ready'))['threads'], threads);
  return process;
}

/** To the upstream that sends everything back. */
const publish = (port: number, protocol = 'tcp', upstream = echoPort) =>
  ['-p', `${port}:${upstream}/${protocol}`, '-t', '127.0.0.1'] as const;

async function statusOf(socketPath: string): Promise<Status> {
  const text = await page(socketPath, '/status');
  return JSON.parse(text) as Status;
}

function page(socketPath: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.request({ agent: false, socketPath, path }, (response) => {
      let body = '';
      response.on('data', (chunk) => (body += chunk));
      response.on('end', () => resolve(body));
    });
    request.on('error', reject).end();
  });
}

/** A connection that has had its first answer, so that it is relayed. */
async function connected(port: number, localAddress?: string): Promise<net.Socket> {
  const socket = net.connect({
    port,
    host: '127.0.0.1',
    ...(localAddress === undefined ? {} : { localAddress }),
  });
  open.push(() => socket.destroy());
  socket.write('hello');
  await once(socket, 'data');
  return socket;
}

const connectedTo = (port: number, count: number) =>
  Promise.all(Array.from({ length: count }, () => connected(port)));

/** One exchange over a new connection; rejects when it is refused or reset. */
async function exchange(
  port: number,
  host = '127.0.0.1',
  says: Uint8Array = Buffer.from('ping'),
): Promise<Buffer> {
  const socket = net.connect({ port, host });
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  socket.end(says);
  await once(socket, 'close');
  return Buffer.concat(chunks);
}

/** Enough of them for every thread to have its turn; how each ended. */
async function attempts(port: number, count = 30): Promise<ReadonlySet<string>> {
  const endings = Array.from({ length: count }, () =>
    exchange(port).then(String, (error: NodeJS.ErrnoException) => error.code ?? 'error'),
  );
  return new Set(await Promise.all(endings));
}

const hashOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

test('connections are spread over all threads, and every byte passes both ways', async () => {
  const port = await freePort();
  const socketPath = join(directory, 'spread.sock');
  await ready([...publish(port), '--admin', socketPath]);
  const count = 60;
  let bytes = 0;
  const sizes = Array.from({ length: count }, (_, i) => (i % 10 === 0 ? 2 ** 20 : 1000 * i) + i);
  await Promise.all(
    sizes.map(async (size, i) => {
      const says = randomBytes(size);
      bytes += size;
      const answer = await exchange(port, i % 2 === 0 ? '127.0.0.1' : '::1', says);
      assert.equal(hashOf(answer), hashOf(says));
    }),
  );
  const status = await statusOf(socketPath);
  assert.equal(status.threads.length, threads);
  for (const { flows } of status.threads) assert.ok(flows > 0, JSON.stringify(status.threads));
  assert.equal(sum(status.threads.map(({ flows }) => flows)), count);
  const [rule] = status.rules;
  assert.deepEqual([rule?.flows, rule?.flowsActive, rule?.bytes], [count, 0, [bytes, bytes]]);
});

test('metrics, the status of SIGUSR1 and the access log are of all threads', async () => {
  const [port, closed] = [await freePort(), await freePort()];
  const socketPath = join(directory, 'sums.sock');
  const path = join(directory, 'sums.yaml');
  writeConfig(path, [`${port}:${echoPort}`, `${closed}:${await freePort()}`]);
  const process = await ready(['-c', path, '--admin', socketPath, '--access-log']);
  const held = await connectedTo(port, 24);
  assert.deepEqual(await attempts(port, 40), new Set(['ping']));
  assert.deepEqual(await attempts(closed, 20), new Set(['ECONNRESET']));
  await process.says('flow ended', 40);
  await process.says('flow failed', 20);
  const metrics = await page(socketPath, '/metrics');
  const rule = `rule="${port}:${echoPort}/tcp"`;
  assert.ok(metrics.includes(`dualport_flows_total{${rule},protocol="tcp"} 64\n`), metrics);
  assert.ok(metrics.includes(`dualport_flows_active{${rule},protocol="tcp"} 24\n`), metrics);
  assert.ok(metrics.includes(`dualport_bytes_total{${rule},from="client"} ${24 * 5 + 40 * 4}\n`), metrics);
  assert.match(metrics, /^dualport_upstream_connect_failures_total\{[^}]+,reason="refused"\} 20$/m);
  const spread = [...metrics.matchAll(/^dualport_thread_flows_active\{thread="(\d)"\} (\d+)$/gm)];
  assert.deepEqual(
    spread.map(([, thread]) => thread),
    ['1', '2', '3'],
  );
  assert.equal(sum(spread.map(([, , flows]) => Number(flows))), held.length);
  process.signal('SIGUSR1');
  const { status } = (await process.says('status')) as unknown as { status: Status };
  assert.equal(status.rules[0]?.flowsActive, held.length);
  assert.deepEqual([process.said('flow ended').length, process.said('flow failed').length], [40, 20]);
});

test('failures of all threads share one budget of log lines', async () => {
  const port = await freePort();
  const process = await ready(publish(port, 'tcp', await freePort()));
  for (let i = 0; i < 5; i++) await attempts(port, 10);
  process.signal('SIGTERM');
  assert.equal((await process.exit).code, 0);
  assert.equal(process.said('flow failed').length, 10);
  const suppressed = process.said('similar messages suppressed');
  assert.deepEqual(
    suppressed.map((line) => [line['kind'], line['suppressed']]),
    [['connect-refused', 40]],
  );
});

/** Sends back what it gets, and remembers from how many ports each client's datagrams came. */
async function udpEcho(): Promise<{ port: number; portsOf: ReadonlyMap<string, ReadonlySet<number>> }> {
  const socket = dgram.createSocket('udp4');
  const portsOf = new Map<string, Set<number>>();
  socket.on('message', (data, from) => {
    const [client = ''] = String(data).split(' ');
    portsOf.set(client, (portsOf.get(client) ?? new Set()).add(from.port));
    socket.send(data, from.port, from.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  open.push(() => socket.close());
  return { port: socket.address().port, portsOf };
}

/**
 * Numbered datagrams, each of which has to come back to the one who sent it; as many on their way at a time as the
 * upstream's buffer has room for, when all clients speak at once.
 */
async function converse(name: string, port: number, host: string, datagrams: number): Promise<void> {
  const socket = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4');
  open.push(() => socket.close());
  const back: string[] = [];
  socket.on('message', (data) => back.push(String(data)));
  const sent = Array.from({ length: datagrams }, (_, i) => `${name} ${i}`);
  for (let i = 0; i < datagrams; i += atOnce) {
    for (const text of sent.slice(i, i + atOnce)) socket.send(text, port, host);
    await until(() => back.length >= Math.min(i + atOnce, datagrams), `${name}, datagram ${i}`);
  }
  assert.deepEqual(back, sent);
}

test('a UDP client stays on its thread: no datagram is lost, out of order or somebody else’s', async () => {
  const upstream = await udpEcho();
  const port = await freePort();
  const socketPath = join(directory, 'udp.sock');
  await ready([...publish(port, 'udp', upstream.port), '--admin', socketPath]);
  const names = Array.from({ length: 40 }, (_, i) => `client-${i}`);
  await Promise.all(names.map((name, i) => converse(name, port, i % 2 === 0 ? '127.0.0.1' : '::1', 200)));
  const ports = names.map((name) => upstream.portsOf.get(name)?.size);
  assert.deepEqual(
    ports,
    names.map(() => 1),
    'one flow a client',
  );
  const { threads: spread, rules } = await statusOf(socketPath);
  for (const { flows } of spread) assert.ok(flows > 0, JSON.stringify(spread));
  assert.deepEqual([rules[0]?.flows, sum(spread.map(({ flows }) => flows))], [names.length, names.length]);
});

test('clients that send while dualport starts have one flow each', async () => {
  const upstream = await udpEcho();
  const port = await freePort();
  const clients = Array.from({ length: 50 }, (_, i) => {
    const socket = dgram.createSocket('udp4').on('error', () => {});
    open.push(() => socket.close());
    return { name: `early-${i}`, socket };
  });
  const storm = setInterval(() => {
    for (const { name, socket } of clients) socket.send(`${name} x`, port, '127.0.0.1');
  }, 1);
  open.push(() => clearInterval(storm));
  await ready(publish(port, 'udp', upstream.port));
  await until(() => upstream.portsOf.size === clients.length, 'everybody to be heard');
  await sleep(100);
  for (const { name } of clients) assert.equal(upstream.portsOf.get(name)?.size, 1, name);
});

function writeConfig(path: string, ports: readonly string[], more = ''): void {
  const list = ports.map((port) => JSON.stringify(port)).join(', ');
  writeFileSync(`${path}.new`, `publish:\n  - ports: [${list}]\n    to: [127.0.0.1]\n${more}`);
  renameSync(`${path}.new`, path);
}

const atOnce = 4;

const refusal = new Set(['ECONNREFUSED']);

test('a reload adds, removes and changes rules on every thread, and flows go on', async () => {
  const [kept, old, fresh] = [await freePort(), await freePort(), await freePort()];
  const path = join(directory, 'reload.yaml');
  writeConfig(path, [`${kept}:${echoPort}`, `${old}:${echoPort}`]);
  const process = await ready(['-c', path]);
  const flows = [...(await connectedTo(kept, 12)), ...(await connectedTo(old, 12))];
  writeConfig(path, [`${kept}:${echoPort}`, `${fresh}:${echoPort}`], '    deny: [127.0.0.0/8]\n');
  process.signal('SIGHUP');
  await process.says('configuration reloaded');
  assert.deepEqual(await attempts(old), refusal);
  assert.deepEqual(await attempts(kept), new Set(['ECONNRESET']));
  assert.deepEqual(await attempts(fresh), new Set(['ECONNRESET']));
  for (const flow of flows) {
    flow.write('still');
    assert.equal(String((await once(flow, 'data'))[0]), 'still');
  }
  writeConfig(path, [`${kept}:${echoPort}`, `${fresh}:${echoPort}`]);
  process.signal('SIGHUP');
  await process.says('configuration reloaded', 2);
  assert.deepEqual(await attempts(kept), new Set(['ping']));
  assert.deepEqual(await attempts(fresh), new Set(['ping']));
});

test('a reload that is refused leaves every thread as it was, and nothing half bound', async () => {
  const [port, other, busy] = [await freePort(), await freePort(), await freePort()];
  const blocker = net.createServer().listen(busy, '127.0.0.1');
  await once(blocker, 'listening');
  open.push(() => blocker.close());
  const path = join(directory, 'refused.yaml');
  writeConfig(path, [`${port}:${echoPort}`]);
  const process = await ready(['-c', path]);
  // The last opens a port, closes the running one for it, and has to open that again.
  for (const [i, ports] of [[`${other}:${echoPort}`, `${busy}:${echoPort}`], ['broken']].entries()) {
    writeConfig(path, ports);
    process.signal('SIGHUP');
    await process.says('configuration not reloaded: the old one stays in force', i + 1);
    assert.deepEqual(await attempts(port), new Set(['ping']));
    assert.deepEqual(await attempts(other, 5), refusal);
  }
});

test('rules that come and go leave no socket behind', async () => {
  const [kept, other] = [await freePort(), await freePort()];
  const path = join(directory, 'leak.yaml');
  writeConfig(path, [`${kept}:${echoPort}`]);
  const process = await ready(['-c', path]);
  const descriptors = () => readdirSync(`/proc/${process.child.pid}/fd`).length;
  const before = descriptors();
  for (let i = 1; i <= 10; i++) {
    writeConfig(path, [`${kept}:${echoPort}`, `${other}:${echoPort}`, `${other}:${echoPort}/udp`]);
    process.signal('SIGHUP');
    await process.says('configuration reloaded', 2 * i - 1);
    assert.equal(descriptors(), before + 4 * threads);
    writeConfig(path, [`${kept}:${echoPort}`]);
    process.signal('SIGHUP');
    await process.says('configuration reloaded', 2 * i);
    assert.equal(descriptors(), before);
  }
});

test('a port that another dualport has is refused, and nothing of the others stays bound', async () => {
  const first = await freeRange(3);
  for (const protocol of ['tcp', 'udp']) {
    const holder = await ready(['-p', `${first + 1}:${echoPort}/${protocol}`, '-t', '127.0.0.1']);
    for (const count of ['1', String(threads)]) {
      const range = `${first}-${first + 2}:${echoPort}-${echoPort + 2}/${protocol}`;
      const { code, stderr } = await runToEnd(['-p', range, '-t', '127.0.0.2', '--threads', count]);
      assert.equal(code, 69, stderr);
      assert.match(
        stderr,
        new RegExp(`${protocol} 0\\.0\\.0\\.0:${first + 1}: another program holds this port`),
      );
    }
    if (protocol === 'tcp') assert.deepEqual(await attempts(first + 1), new Set(['ping']));
    await holder.end();
  }
});

test('of two that start at once one gets the port', async () => {
  for (const protocol of ['tcp', 'udp', 'tcp', 'udp']) {
    const port = await freePort();
    const both = [0, 1].map(() => start(publish(port, protocol)));
    await until(
      () =>
        both.some((one) => one.child.exitCode !== null) && both.some((one) => one.said('ready').length > 0),
      'one to be ready and one to end',
      30_000,
    );
    assert.deepEqual(both.map((one) => one.child.exitCode).sort(), [69, null].sort());
  }
});

test('SIGTERM closes the ports of every thread and lets all flows end', async () => {
  const port = await freePort();
  const process = await ready(publish(port));
  const flows = await connectedTo(port, 24);
  process.signal('SIGTERM');
  await process.says('stopping');
  await until(() => !listens(process, port), 'the closed listeners');
  assert.deepEqual(await attempts(port), refusal);
  await sleep(200);
  for (const flow of flows) {
    flow.end('bye');
    assert.equal(String((await once(flow, 'data'))[0]), 'bye');
  }
  assert.equal((await process.exit).code, 0);
  assert.equal(process.said('flows were cut at the end of the drain').length, 0);
});

const listens = (process: Running, port: number) => listeningSockets(process, port) > 0;

function listeningSockets(process: Running, port: number): number {
  const { stdout } = spawnSync('ss', ['-Hlntp', `sport = :${port}`], { encoding: 'utf8' });
  return stdout.split('\n').filter((line) => line.includes(`pid=${process.child.pid},`)).length;
}

for (const [title, drainTimeout, second] of [
  ['at the end of the drain', '300ms', false],
  ['at a second signal', '30s', true],
] as const) {
  test(`${title} the flows of every thread are reset`, async () => {
    const port = await freePort();
    const process = await ready([...publish(port), '--drain-timeout', drainTimeout]);
    const flows = await connectedTo(port, 24);
    const endings = Promise.all(flows.map((flow) => once(flow, 'error').then(([error]) => error.code)));
    process.signal('SIGTERM');
    await process.says('stopping');
    if (second) process.signal('SIGTERM');
    const startMs = performance.now();
    assert.equal((await process.exit).code, 0);
    assert.ok(performance.now() - startMs < 3000);
    assert.deepEqual(new Set(await endings), new Set(['ECONNRESET']));
    assert.equal(process.said('flows were cut at the end of the drain')[0]?.['flows'], flows.length);
  });
}

test('the limits of a rule and of a source hold for all threads together', async () => {
  const port = await freePort();
  const limits = ['--max-flows-per-source', '6', '--max-flows-per-rule', '10'];
  await ready([...publish(port), ...limits]);
  const mine = await Promise.all(Array.from({ length: 6 }, () => connected(port, '127.0.0.2')));
  await assert.rejects(connected(port, '127.0.0.2'));
  for (let i = 0; i < 20; i++) {
    mine.shift()?.resetAndDestroy();
    await eventually(
      async () => mine.push(await connected(port, '127.0.0.2')),
      'the place that has become free',
    );
    await assert.rejects(connected(port, '127.0.0.2'), 'a seventh');
  }
  for (let i = 0; i < 4; i++) await connected(port, `127.0.0.${3 + i}`);
  await assert.rejects(connected(port, '127.0.0.9'), 'an eleventh');
});

/** Tries until it is done: how soon a reset reaches its thread is not known. */
async function eventually(attempt: () => Promise<unknown>, what: string): Promise<void> {
  const deadline = performance.now() + 5000;
  for (;;) {
    try {
      await attempt();
      return;
    } catch (error) {
      if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`, { cause: error });
      await sleep(5);
    }
  }
}

test(
  'a rule that shows its clients as they are is on every thread, and what that comes to is said once',
  async () => {
    const port = await freePort();
    const process = await ready([...publish(port), '--source', 'transparent', '--mismatch', 'refuse']);
    assert.equal((await process.says('listening'))['threads'], threads);
    // The address of these is the upstream's own, so they go without.
    assert.deepEqual(await attempts(port), new Set(['ping']));
    const said = /^the upstream saw dualport and not this client/;
    const lines = () => process.lines.filter(({ msg }) => said.test(String(msg)));
    await until(() => lines().length > 0, 'the reason');
    process.signal('SIGTERM');
    await process.exit;
    assert.deepEqual(
      lines().map(({ reason }) => reason),
      ['upstream-itself'],
    );
  },
  skipUnless('root'),
);

test('a rule with pseudo addresses is served by the main thread alone, also when it becomes one', async () => {
  const port = await freePort();
  const socketPath = join(directory, 'pseudo.sock');
  const path = join(directory, 'pseudo.yaml');
  const rule = (source: string) => writeConfig(path, [`${port}:${echoPort}`], `    source: ${source}\n`);
  const reload = async (source: string, times: number) => {
    rule(source);
    process.signal('SIGHUP');
    await process.says('configuration reloaded', times);
  };
  rule('none');
  const process = await ready(['-c', path, '--admin', socketPath, '--state-dir', directory]);
  const sockets = () => listeningSockets(process, port);
  assert.equal(sockets(), 2 * threads);
  const flows = await connectedTo(port, 12);
  await reload('pseudo', 1);
  assert.equal(sockets(), 2);
  const before = await statusOf(socketPath);
  // No route keeps packets to such addresses here, so none can be used.
  assert.deepEqual(await attempts(port), new Set(['ECONNRESET']));
  const after = await statusOf(socketPath);
  const more = after.threads.map(({ flows }, i) => flows - (before.threads[i]?.flows ?? 0));
  assert.deepEqual(more, [30, 0, 0]);
  await reload('none', 2);
  assert.deepEqual(await attempts(port), new Set(['ping']));
  for (const flow of flows) {
    flow.write('still');
    assert.equal(String((await once(flow, 'data'))[0]), 'still');
  }
});

test('a thread that dies takes the process with it, and says so', async () => {
  const port = await freePort();
  const fuse = join(directory, 'fuse');
  const bomb = join(directory, 'bomb.cjs');
  // Loaded by Node before the program, on each of its threads: an error nobody expects, in the midst of work.
  writeFileSync(
    bomb,
    `const { isMainThread, threadId } = require('node:worker_threads');
    if (!isMainThread && threadId === 2) setInterval(() => {
      if (require('node:fs').existsSync(${JSON.stringify(fuse)})) throw new Error('boom');
    }, 10);`,
  );
  const process = await ready(publish(port), {
    command: [globalThis.process.execPath, '--require', bomb, main],
  });
  const flows = await connectedTo(port, 24);
  const closed = (flow: net.Socket) =>
    new Promise((resolve) => flow.on('error', () => {}).once('close', resolve));
  const endings = Promise.all(flows.map(closed));
  writeFileSync(fuse, '');
  const { code, stderr } = await process.exit;
  assert.equal(code, 1);
  assert.match(stderr, /Error: thread 3 has died: boom/);
  assert.match(
    String((await process.says('dualport ends: its ports would be served in part'))['reason']),
    /boom/,
  );
  await endings;
  assert.deepEqual(await attempts(port), refusal);
});

test('threads that cannot be had are refused with the reason', async () => {
  const some = ['-p', '8080:80', '-t', '198.18.0.1'];
  const refused: readonly (readonly [readonly string[], number, RegExp])[] = [
    [['--threads', '0'], 2, /--threads: found "0"; allowed: a whole number from 1 to 64/],
    [['--threads', '65'], 2, /--threads: found "65"/],
    [
      ['--threads', '2', '--engine', 'portable'],
      78,
      /portable engine runs on one thread, and 2 are asked for/,
    ],
    [['--threads', '3', '--max-flows', '2'], 2, /found 3 threads, and at most 2 flows/],
  ];
  for (const [args, status, message] of refused) {
    for (const command of [[], ['check']]) {
      const { code, stderr } = await runToEnd([...command, ...some, ...args]);
      assert.match(stderr, message);
      assert.equal(code, status);
    }
  }
  const { stdout } = await runToEnd(['check', '--json', ...some], { DUALPORT_THREADS: '4' });
  assert.equal(JSON.parse(stdout).threads, 4);
});

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
