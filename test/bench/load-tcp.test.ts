/**
 * tcp-load, held against servers whose every delay, error and reset is known.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { before, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildLoad, loadProgram } from '../../bench/load/programs.ts';
import { until } from '../engine/harness.ts';
import { here, Stage } from '../support/dualport.ts';
import { freePort, Running } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const options = { skip: skipUnless('linux', 'gcc'), timeout: 20_000 };

before(() => {
  if (options.skip === false) buildLoad();
});

/** What a server does with each piece that arrives; `total` are the bytes before it on that connection. */
type Behaviour = (socket: net.Socket, piece: Buffer, total: number) => void;

const echo: Behaviour = (socket, piece) => socket.write(piece);

interface Server {
  readonly port: number;
  readonly sockets: readonly net.Socket[];
  /** Codes of the errors that connections ended with. */
  readonly errors: readonly string[];
}

async function serve(t: TestContext, behave: Behaviour, host = '127.0.0.1'): Promise<Server> {
  const sockets: net.Socket[] = [];
  const errors: string[] = [];
  const server = net.createServer({ noDelay: true }, (socket) => {
    let total = 0;
    sockets.push(socket);
    socket.on('data', (piece) => {
      behave(socket, piece, total);
      total += piece.length;
    });
    socket.on('error', (error: NodeJS.ErrnoException) => errors.push(error.code ?? ''));
  });
  server.listen({ port: 0, host, backlog: 1024 });
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as net.AddressInfo).port, sockets, errors };
}

function start(t: TestContext, ...args: readonly string[]): Running {
  return new Stage(t).background(here, loadProgram('tcp-load'), args);
}

/** An open loop, each option as it stands on the command line. */
async function openLoop(t: TestContext, port: number, words: string, host = '127.0.0.1') {
  const { code, stdout, stderr } = await start(t, 'open', host, `${port}`, ...words.split(' ')).exit;
  assert.equal(stderr, '');
  assert.equal(code, 0);
  assert.equal(stdout.indexOf('\n'), stdout.length - 1, 'one line');
  return JSON.parse(stdout);
}

test('each message of an open loop is sent, answered and timed', options, async (t) => {
  const { port } = await serve(t, echo);
  const seen = await openLoop(t, port, '--connections 3 --rate 1000 --seconds 0.3');
  assert.deepEqual([seen.sent, seen.received, seen.failed], [300, 300, 0]);
  assert.deepEqual(Object.keys(seen), [
    'sent',
    'received',
    'failed',
    'late',
    'p50',
    'p99',
    'p99.9',
    'max',
    'percentiles',
  ]);
  const values = seen.percentiles.map(([, value]: [number, number]) => value);
  assert.deepEqual(
    values,
    values.toSorted((a: number, b: number) => a - b),
  );
  assert.ok(seen.p50 > 5, 'no exchange takes less than some µs');
  // A message that was sent late was also answered late.
  assert.ok(seen.late > 0 && seen.max >= seen.late, `late ${seen.late}, max ${seen.max}`);
});

/** From 0.3 s after the first message on it keeps everything for 0.2 s. */
function stalling(): Behaviour {
  const kept: (() => void)[] = [];
  let begun: number | undefined;
  const release = () => {
    for (const write of kept.splice(0)) write();
  };
  return (socket, piece, total) => {
    if (total === 0) return void socket.write(piece);
    begun ??= performance.now();
    const at = performance.now() - begun;
    if (kept.length > 0) return void kept.push(() => socket.write(piece));
    if (at < 300 || at >= 500) return void socket.write(piece);
    kept.push(() => socket.write(piece));
    setTimeout(release, 500 - at);
  };
}

test('a stall of 200 ms is felt by all messages that were due during it', options, async (t) => {
  const { port } = await serve(t, stalling());
  const seen = await openLoop(t, port, '--connections 4 --rate 1000 --seconds 0.8');
  assert.deepEqual([seen.received, seen.failed], [800, 0]);
  const at = new Map<number, number>(seen.percentiles.map(([p, us]: [number, number]) => [p, us / 1000]));
  const isAbout = (percentile: number, ms: number) => {
    const value = at.get(percentile) ?? Number.NaN;
    assert.ok(Math.abs(value - ms) <= 35, `${percentile} % are ${value} ms and not about ${ms}`);
  };
  // 200 of 800 messages waited, the first for 200 ms, the last for 1: a quarter, evenly spread.
  isAbout(50, 0);
  isAbout(90, 120);
  isAbout(95, 160);
  isAbout(99, 192);
  isAbout(100, 200);
});

test(
  'a generator that was itself held up says so, and times from when messages were due',
  options,
  async (t) => {
    const { port } = await serve(t, echo);
    const words = ['--connections', '4', '--rate', '1000', '--seconds', '0.6'];
    const program = start(t, 'open', '127.0.0.1', `${port}`, ...words);
    await sleep(250);
    program.signal('SIGSTOP');
    await sleep(200);
    program.signal('SIGCONT');
    const seen = JSON.parse((await program.exit).stdout);
    assert.equal(seen.received, 600);
    assert.ok(seen.late > 180_000 && seen.max >= seen.late, `late ${seen.late}, max ${seen.max}`);
    // A third of all were due meanwhile, so the latest tenth waited for 140 ms and more.
    assert.ok(seen.percentiles[2][1] > 110_000, `90 % are ${seen.percentiles[2][1]} µs`);
  },
);

test('latency is that of the echo, not of the way there', options, async (t) => {
  const { port } = await serve(t, (socket, piece) => {
    setTimeout(() => socket.write(piece), 20);
  });
  const seen = await openLoop(t, port, '--connections 10 --rate 500 --seconds 0.4');
  assert.equal(seen.received, 200);
  assert.ok(seen.p50 >= 19_000 && seen.p50 < 100_000, `${seen.p50} µs`);
});

test('a server that is slow for the first exchange alone leaves no trace', options, async (t) => {
  const { port } = await serve(t, (socket, piece, total) => {
    if (total === 0) setTimeout(() => socket.write(piece), 150);
    else socket.write(piece);
  });
  const seen = await openLoop(t, port, '--connections 10 --rate 500 --seconds 0.3');
  assert.equal(seen.received, 150);
  assert.ok(seen.max < 100_000, `${seen.max} µs`);
});

test('large messages that are broken up on the way are put together', options, async (t) => {
  const { port } = await serve(t, (socket, piece) => {
    for (let at = 0; at < piece.length; at += 999) socket.write(piece.subarray(at, at + 999));
  });
  for (const size of [8, 9, 1000, 4096]) {
    const seen = await openLoop(t, port, `--connections 2 --rate 500 --seconds 0.1 --size ${size}`);
    assert.deepEqual([seen.received, seen.failed], [50, 0], `${size} bytes`);
  }
});

test('what the socket does not take is sent later, and its time runs', options, async (t) => {
  let paused = false;
  const { port } = await serve(t, (socket, piece, total) => {
    socket.write(piece);
    if (total < 65_536 || paused) return;
    paused = true;
    socket.pause();
    setTimeout(() => socket.resume(), 300);
  });
  const seen = await openLoop(t, port, '--connections 1 --rate 800 --seconds 0.3 --size 65536');
  assert.deepEqual([seen.sent, seen.received], [240, 240]);
  assert.ok(seen.max > 200_000, `${seen.max} µs`);
  assert.ok(seen.late < 150_000, `to send was tried in time: ${seen.late} µs`);
});

test('messages that are never answered have failed', options, async (t) => {
  const { port } = await serve(t, (socket, piece, total) => {
    if (total === 0) socket.write(piece);
  });
  const started = performance.now();
  const seen = await openLoop(t, port, '--connections 2 --rate 100 --seconds 0.1');
  assert.ok(performance.now() - started > 2000, 'they were waited for');
  const { late, ...others } = seen;
  assert.ok(late > 0);
  const nothing = { p50: null, p99: null, 'p99.9': null, max: null, percentiles: [] };
  assert.deepEqual(others, { sent: 10, received: 0, failed: 10, ...nothing });
});

test('an answer that comes within 2 s after the end counts', options, async (t) => {
  const { port } = await serve(t, (socket, piece, total) => {
    if (total === 0) socket.write(piece);
    else setTimeout(() => socket.write(piece), 1000);
  });
  const seen = await openLoop(t, port, '--connections 2 --rate 100 --seconds 0.1');
  assert.deepEqual([seen.received, seen.failed], [10, 0]);
  assert.ok(seen.p50 > 990_000 && seen.p50 < 1_100_000, `${seen.p50} µs`);
});

/** Ways to answer with other bytes than came; each affects one connection of four, from its tenth message on. */
const wrongAnswers: readonly (readonly [title: string, answer: (piece: Buffer) => Buffer | undefined])[] = [
  [
    'changed in its last bit',
    (piece) => Buffer.concat([piece.subarray(0, -1), Buffer.of((piece.at(-1) ?? 0) ^ 1)]),
  ],
  ['changed in its number', (piece) => Buffer.concat([Buffer.of((piece[0] ?? 0) ^ 1), piece.subarray(1)])],
  ['left out', (piece) => piece.subarray(64)],
  ['doubled', (piece) => Buffer.concat([piece.subarray(0, 64), piece])],
];

for (const [title, wrong] of wrongAnswers) {
  test(`of a connection on which a message is ${title} the rest has failed`, options, async (t) => {
    let victim: net.Socket | undefined;
    let done = false;
    const { port } = await serve(t, (socket, piece, total) => {
      if (total < 10 * 64) return void socket.write(piece);
      victim ??= socket;
      const answer = socket !== victim || done ? piece : wrong(piece);
      if (socket === victim) done = true;
      if (answer !== undefined) socket.write(answer);
    });
    const seen = await openLoop(t, port, '--connections 4 --rate 800 --seconds 0.25');
    assert.equal(seen.sent, 200);
    // 50 messages a connection, 9 of them before the tenth piece, some before the answer came.
    assert.ok(seen.failed >= 20 && seen.failed <= 41, `${seen.failed} failed`);
  });
}

test('messages of a connection that another one answers have failed', options, async (t) => {
  let crossed: readonly net.Socket[] = [];
  const server = await serve(t, (socket, piece, total) => {
    if (total < 10 * 64) return void socket.write(piece);
    crossed = crossed.length === 2 ? crossed : server.sockets.slice(0, 2);
    const [one, two] = crossed;
    const other = socket === one ? two : socket === two ? one : socket;
    other?.write(piece);
  });
  const seen = await openLoop(t, server.port, '--connections 4 --rate 800 --seconds 0.25');
  assert.ok(seen.failed >= 60 && seen.failed <= 82, `${seen.failed} failed`);
});

for (const [title, end] of [
  ['closed', (socket: net.Socket) => socket.end()],
  ['reset', (socket: net.Socket) => socket.resetAndDestroy()],
] as const) {
  test(`a connection that is ${title} fails what was due on it, and no other`, options, async (t) => {
    let ended = false;
    const { port } = await serve(t, (socket, piece, total) => {
      if (total < 10 * 64 || ended) return void socket.write(piece);
      ended = true;
      end(socket);
    });
    const seen = await openLoop(t, port, '--connections 4 --rate 800 --seconds 0.25');
    assert.equal(seen.received + seen.failed, 200);
    assert.ok(seen.failed >= 30 && seen.failed <= 41, `${seen.failed} failed`);
  });
}

test('a way that carries nothing is an error and no figure', options, async (t) => {
  const { port } = await serve(t, () => {});
  const partly = await serve(t, (socket, piece) => {
    if (socket !== partly.sockets[0]) socket.write(piece);
    else socket.end();
  });
  const closed = await freePort();
  const cases: readonly (readonly [port: number, text: string])[] = [
    [port, `3 of 3 connections to 127.0.0.1 port ${port} carry nothing, all must (not answered in time)`],
    [
      partly.port,
      `1 of 3 connections to 127.0.0.1 port ${partly.port} carry nothing, all must (closed by the other side)`,
    ],
    [closed, `3 of 3 connections to 127.0.0.1 port ${closed} carry nothing, all must (Connection refused)`],
  ];
  const words = ['--connections', '3', '--rate', '100', '--seconds', '0.1'];
  await Promise.all(
    cases.map(async ([at, text]) => {
      const exit = await start(t, 'open', '127.0.0.1', `${at}`, ...words).exit;
      assert.deepEqual(exit, { code: 1, stdout: '', stderr: `tcp-load: ${text}\n` });
    }),
  );
});

/** An `idle` run in its two phases. */
class Idle {
  readonly child: ChildProcess;
  #said = '';

  constructor(t: TestContext, host: string, port: number, count: number) {
    const args = ['idle', host, `${port}`, '--connections', `${count}`];
    this.child = spawn(loadProgram('tcp-load'), args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.child.stdout?.on('data', (text) => (this.#said += text));
    new Stage(t).undo(() => this.child.kill('SIGKILL'));
  }

  async line(n: number): Promise<unknown> {
    await until(() => this.#said.split('\n').length > n, `line ${n} of ${this.#said}`);
    return JSON.parse(this.#said.split('\n')[n - 1] ?? '');
  }

  /** Ends its waiting and tells how many connections were alive. */
  async end(): Promise<unknown> {
    const ended = once(this.child, 'close');
    this.child.stdin?.end();
    assert.deepEqual(await ended, [0, null]);
    return this.line(2);
  }
}

for (const host of ['127.0.0.1', '::1']) {
  const needs = { ...options, skip: skipUnless('linux', 'gcc', 'ipv6') };
  test(`idle connections over ${host} stay, are counted, and end by reset`, needs, async (t) => {
    const server = await serve(t, echo, host);
    const idle = new Idle(t, host, server.port, 300);
    assert.deepEqual(await idle.line(1), { established: 300, failed: 0 });
    await sleep(50);
    assert.equal(server.sockets.filter((socket) => socket.bytesRead === 64 && !socket.closed).length, 300);
    assert.deepEqual(await idle.end(), { alive: 300 });
    await until(() => server.errors.length === 300, 'the resets');
    assert.deepEqual(new Set(server.errors), new Set(['ECONNRESET']));
    assert.ok(server.sockets.every((socket) => socket.bytesRead === 128));
  });
}

test('idle connections that were closed, reset or answer wrong are not alive', options, async (t) => {
  const mute = new Set<net.Socket>();
  const server = await serve(t, (socket, piece) => {
    socket.write(mute.has(socket) ? piece.fill(0) : piece);
  });
  const idle = new Idle(t, '127.0.0.1', server.port, 200);
  assert.deepEqual(await idle.line(1), { established: 200, failed: 0 });
  for (const socket of server.sockets.slice(0, 30)) socket.end();
  for (const socket of server.sockets.slice(30, 50)) socket.resetAndDestroy();
  for (const socket of server.sockets.slice(190)) mute.add(socket);
  assert.deepEqual(await idle.end(), { alive: 140 });
});

test('connections that are refused or not answered are not established', options, async (t) => {
  const server = await serve(t, (socket, piece) => {
    if (server.sockets.indexOf(socket) < 7) socket.end();
    else socket.write(piece);
  });
  const idle = new Idle(t, '127.0.0.1', server.port, 150);
  assert.deepEqual(await idle.line(1), { established: 143, failed: 7 });
  assert.deepEqual(await idle.end(), { alive: 143 });
  const refused = new Idle(t, '127.0.0.1', await freePort(), 150);
  assert.deepEqual(await refused.line(1), { established: 0, failed: 150 });
  assert.deepEqual(await refused.end(), { alive: 0 });
});

test('at most 128 connections are under way at a time', options, async (t) => {
  let now = 0;
  let most = 0;
  const { port } = await serve(t, (socket, piece) => {
    most = Math.max(most, ++now);
    setTimeout(() => {
      now--;
      socket.write(piece);
    }, 30);
  });
  const idle = new Idle(t, '127.0.0.1', port, 500);
  assert.deepEqual(await idle.line(1), { established: 500, failed: 0 });
  assert.deepEqual(await idle.end(), { alive: 500 });
  assert.ok(most > 100 && most <= 128, `${most} at a time`);
});

test('more connections than the soft open file limit allows are opened', options, async (t) => {
  const { port } = await serve(t, echo);
  const command = ['prlimit', '--nofile=50:200', loadProgram('tcp-load'), 'idle', '127.0.0.1', `${port}`];
  const run = (count: number) => new Running(['--connections', `${count}`], { command }).exit;
  const openLoop = command.with(3, 'open');
  const words = ['--connections', '150', '--rate', '1000', '--seconds', '0.2'];
  assert.equal((await new Running(words, { command: openLoop }).exit).code, 0);
  const exit = await run(150);
  assert.deepEqual(
    [exit.code, exit.stdout],
    [0, '{"established":150,"failed":0}\n{"alive":150}\n'],
    exit.stderr,
  );
  assert.deepEqual(await run(190), {
    code: 1,
    stdout: '',
    stderr: 'tcp-load: 190 connections, the open file limit allows 184\n',
  });
});

test('SIGTERM ends both modes at once', options, async (t) => {
  const { port } = await serve(t, echo);
  const at = ['127.0.0.1', `${port}`];
  const open = start(t, 'open', ...at, '--connections', '2', '--rate', '100', '--seconds', '60');
  const idle = new Idle(t, '127.0.0.1', port, 5);
  await idle.line(1);
  await sleep(100);
  const started = performance.now();
  open.signal('SIGTERM');
  idle.child.kill('SIGTERM');
  await Promise.all([open.exit, once(idle.child, 'close')]);
  assert.ok(performance.now() - started < 200);
  assert.equal(open.stdout, '');
});

test('a wrong command line is told in one line', options, async () => {
  const cases: readonly (readonly [words: string, text: string])[] = [
    ['', 'open or idle is missing, a value must follow'],
    ['closed', "found 'closed', allowed are open and idle"],
    ['open', '<address> is missing, a value must follow'],
    ['open ::1', 'the port of <address> is missing, a value must follow'],
    ['open ::g 1', "<address> is '::g', allowed are numeric IPv4 and IPv6 addresses"],
    ['open ::1 1', 'an option is missing, --connections, --rate and --seconds must be there'],
    ['open ::1 1 --speed 1', "found '--speed', allowed are --connections, --rate, --seconds and --size"],
    ['open ::1 1 --rate', '--rate is missing, a value must follow'],
    ['open ::1 1 --rate 0', "--rate is '0', allowed are numbers from 0.1 to 1000000"],
    ['open ::1 1 --rate 1x', "--rate is '1x', allowed are numbers from 0.1 to 1000000"],
    ['open ::1 1 --rate nan', "--rate is 'nan', allowed are numbers from 0.1 to 1000000"],
    ['open ::1 1 --size 7', "--size is '7', allowed are integers from 8 to 65536"],
    ['idle ::1 1', '--connections is missing, it must be there'],
    ['idle ::1 1 --rate 1', "found '--rate', allowed are --connections and --size"],
  ];
  for (const [words, text] of cases) {
    const args = words === '' ? [] : words.split(' ');
    const exit = await new Running(args, { command: [loadProgram('tcp-load')] }).exit;
    assert.deepEqual(exit, { code: 2, stdout: '', stderr: `tcp-load: ${text}\n` });
  }
});
