/**
 * A program: the upstreams of a relay and its clients, for a short time of everything at once. Told `mixed`, it makes
 * connections of all kinds and some datagrams and says what came of each; told `clean`, it asks once by every way in and
 * says how long that took.
 *
 *   node traffic.js '{"front":20080,"back":10080,"nobody":20081,"admin":"/…/admin.sock"}'
 */
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { endedCleanly } from '../../src/engine/portable/reset.ts';

export interface Ports {
  readonly front: number;
  readonly back: number;
  /** Published, and nothing listens behind it. */
  readonly nobody: number;
  /** dualport's admin socket. */
  readonly admin: string;
}

/** How many connections and datagrams came to which end. */
export interface Mixed {
  /** All bytes, no others, and a clean end. */
  readonly whole: number;
  /** Ended by an error: the client knows that it has not all. */
  readonly cut: number;
  /** Other bytes than were sent. */
  readonly corrupt: number;
  /** A clean end before the last byte: the client takes a part for the whole. */
  readonly truncated: number;
  /** Neither more bytes nor an end. */
  readonly stalled: number;
}

export interface Clean {
  /** In ms, of the slowest way in; undefined when one was not served. */
  readonly slowestMs: number | undefined;
  readonly failure: string;
}

type Ending = keyof Mixed;

export const trafficFile: string = fileURLToPath(import.meta.url);

const MiB = 1024 * 1024;
const hosts = ['127.0.0.1', '::1'] as const;
/** Longer than any timeout of the relay. */
const stalledMs = 4000;
const cleanMs = 4000;
/** A client is silent for so long, since the kernel makes a reset of a close that leaves bytes unread. */
const silentMs = 50;

async function serve({ back }: Ports): Promise<void> {
  const echo = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    socket.pipe(socket);
  });
  echo.listen(back, '127.0.0.1');
  await once(echo, 'listening');
  const datagrams = createSocket('udp4');
  datagrams.on('message', (data, from) => datagrams.send(data, from.port, from.address));
  datagrams.on('error', () => {});
  datagrams.bind(back, '127.0.0.1');
  await once(datagrams, 'listening');
}

async function mixed(ports: Ports): Promise<Mixed> {
  const endings = await Promise.all([
    ...hosts.flatMap((host) => [
      exchange(host, ports.front, [700]),
      exchange(host, ports.front, [20, 90_000]),
    ]),
    exchange('127.0.0.1', ports.front, [4 * MiB]),
    exchange('::1', ports.front, [1, 1, 1, 1]),
    exchange('::1', ports.front, [300_000], true),
    exchange('127.0.0.1', ports.nobody, [10]),
    ...hosts.flatMap((host) => [conversation(host, ports.front), conversation(host, ports.front)]),
    ask(ports.admin).then(
      () => 'whole' as const,
      () => 'cut' as const,
    ),
  ]);
  const count = (ending: Ending) => endings.filter((each) => each === ending).length;
  return {
    whole: count('whole'),
    cut: count('cut'),
    corrupt: count('corrupt'),
    truncated: count('truncated'),
    stalled: count('stalled'),
  };
}

/** One TCP connection that says these many bytes, each when it has heard what it said before, and then its end. */
function exchange(host: string, port: number, sizes: readonly number[], resets = false): Promise<Ending> {
  return new Promise((resolve) => {
    const socket = net.connect({ host, port, allowHalfOpen: true, noDelay: true });
    const said = createHash('sha256');
    const heard = createHash('sha256');
    let due = 0;
    let got = 0;
    let next = 0;
    const end = (ending: Ending) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(ending);
    };
    const timer = setTimeout(() => end('stalled'), stalledMs);
    const say = () => {
      const bytes = pattern(sizes[next++] ?? 0, port + next);
      due += bytes.length;
      said.update(bytes);
      socket.write(bytes);
      if (next === sizes.length) socket.end();
    };
    socket.on('connect', () => setTimeout(say, silentMs));
    socket.on('data', (chunk) => {
      got += chunk.length;
      heard.update(chunk);
      if (resets && got > 0) return socket.resetAndDestroy();
      if (got > due) return end('corrupt');
      if (got === due && next < sizes.length) say();
    });
    socket.on('end', () => {
      // Node 20 takes some resets for ends.
      if (!endedCleanly(socket)) return end('cut');
      if (got < due || next < sizes.length) return end('truncated');
      end(said.digest('hex') === heard.digest('hex') ? 'whole' : 'corrupt');
    });
    socket.on('error', () => end('cut'));
    socket.on('close', () => end(resets ? 'whole' : 'cut'));
  });
}

/** One UDP flow; what is lost is cut, what is not what was sent is corrupt. */
async function conversation(host: string, port: number): Promise<Ending> {
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
  const asked = new Set<string>();
  let answers = 0;
  let corrupt = false;
  socket.on('error', () => {});
  socket.on('message', (data) => {
    answers++;
    if (!asked.delete(data.toString('latin1'))) corrupt = true;
  });
  socket.bind(0, host);
  await once(socket, 'listening');
  const own = socket.address().port;
  for (let i = 0; i < 8; i++) {
    const text = `${host} ${own} ${i}`.padEnd(20 + 150 * i, '.');
    asked.add(text);
    socket.send(Buffer.from(text, 'latin1'), port, host);
    await sleep(10);
  }
  const deadline = performance.now() + 300;
  while (asked.size > 0 && performance.now() < deadline) await sleep(5);
  socket.close();
  if (corrupt) return 'corrupt';
  return answers === 8 ? 'whole' : 'cut';
}

function ask(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = http.get(
      { socketPath: path, path: '/livez', agent: false, timeout: stalledMs },
      (response) => {
        response.resume();
        response.on('end', () => (response.statusCode === 200 ? resolve() : reject(new Error('no 200'))));
      },
    );
    request.on('timeout', () => request.destroy(new Error('silent')));
    request.on('error', reject);
  });
}

/** By every way in, each until it is served; what was paused for want of anything may take a moment to go on. */
async function clean(ports: Ports): Promise<Clean> {
  const start = performance.now();
  const ways: readonly [name: string, served: () => Promise<boolean>][] = [
    ...hosts.map(
      (host) => [`TCP ${host}`, async () => (await exchange(host, ports.front, [500])) === 'whole'] as const,
    ),
    ...hosts.map(
      (host) => [`UDP ${host}`, async () => (await conversation(host, ports.front)) === 'whole'] as const,
    ),
    [
      'admin',
      () =>
        ask(ports.admin).then(
          () => true,
          () => false,
        ),
    ],
  ].map(([name, served]) => [name as string, served as () => Promise<boolean>]);
  for (const [name, served] of ways) {
    while (!(await served())) {
      if (performance.now() - start > cleanMs)
        return { slowestMs: undefined, failure: `${name} is not served` };
      await sleep(20);
    }
  }
  return { slowestMs: performance.now() - start, failure: '' };
}

const blocks = new Map<number, Buffer>();

/** Different for each seed, and without a period that a buffer's length divides. */
function pattern(size: number, seed: number): Buffer {
  let block = blocks.get(seed);
  if (block === undefined || block.length < size) {
    block = Buffer.from(Array.from({ length: size }, (_, i) => (i * 131 + ((i * i) >>> 7) + seed) & 255));
    blocks.set(seed, block);
  }
  return block.subarray(0, size);
}

const [, file, text] = process.argv;
if (file === trafficFile && text !== undefined) {
  const ports: Ports = JSON.parse(text);
  await serve(ports);
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin }))
    console.log(JSON.stringify(line === 'mixed' ? await mixed(ports) : await clean(ports)));
  process.exit(0);
}
