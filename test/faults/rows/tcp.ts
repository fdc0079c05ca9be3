/** TCP: upstreams that fail, clients that vanish, readers that stand still, and limits that are met. */
import { createHash, randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { at, type Client } from '../../engine/harness.ts';
import { silentServer } from '../../support/silent-server.ts';
import { addresses } from '../network.ts';
import type { Relay } from '../relay.ts';
import type { Row } from '../row.ts';
import type { Scene } from '../scene.ts';
import { allAre, endingWithin, holds, sees, tally } from '../verdict.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

/** Connects, hears the connection out, and says how it ended and when. */
async function heardOut(scene: Scene, ms: number): Promise<{ ending: string; ms: number }> {
  const start = performance.now();
  const client = await scene.connect(scene.door);
  const ending = await endingWithin(client, ms);
  client.socket.destroy();
  return { ending, ms: performance.now() - start };
}

const slowest = (times: readonly { ms: number }[]) => Math.max(...times.map(({ ms }) => ms));

/** All of these clients are reset, none before and none long after. */
async function allReset(scene: Scene, count: number, leastMs: number, mostMs: number): Promise<string> {
  const heard = await scene.crowd(count, () => heardOut(scene, mostMs + 3000), 100);
  allAre(
    heard.map(({ ending }) => ending),
    'ECONNRESET',
  );
  const last = slowest(heard);
  holds(last >= leastMs && last <= mostMs, `the last reset came after ${last.toFixed(0)} ms`);
  return `slowest ${last.toFixed(0)} ms`;
}

/** A client and its upstream's socket, through the relay. */
async function pair(scene: Scene, sockets: Socket[]): Promise<{ client: Client; server: Socket }> {
  const before = sockets.length;
  const client = await scene.connect(scene.door);
  await sees(
    () => sockets.length > before,
    3000,
    () => 'a client that reaches no upstream',
  );
  return { client, server: sockets[before] as Socket };
}

/** An upstream whose sockets come in a list. */
async function listed(scene: Scene): Promise<Socket[]> {
  const sockets: Socket[] = [];
  await scene.upstream((socket) => sockets.push(socket));
  return sockets;
}

const hash = (data: Buffer) => createHash('sha256').update(data).digest('hex');

const failing: readonly Row[] = [
  {
    id: 'A1',
    promise: 'an upstream that refuses: every client is reset at once, and the log stays short',
    async play(scene) {
      const relay = await scene.relay();
      const figure = await allReset(scene, 200, 0, 3000);
      if (relay.isDualport) {
        await relay.untilMetric(200, 'dualport_upstream_connect_failures_total', 'refused');
        holds(relay.lines.length < 40, `${relay.lines.length} log lines`);
      }
      return figure;
    },
  },
  {
    id: 'A2',
    promise: 'an upstream that is silent: every client is reset when the connect timeout is over',
    async play(scene) {
      await scene.relay({ connect: 1000 });
      scene.filter(`tcp dport ${scene.back} drop`);
      return allReset(scene, 50, 900, 3500);
    },
  },
  {
    id: 'A3',
    promise: 'an upstream without a route: every client is reset at once, and other ports are served',
    async play(scene) {
      const good = { ...scene.tcpRule, port: scene.front + 1 };
      const bad = { ...scene.tcpRule, to: { host: addresses.unreachable, port: 80 } };
      const relay = await scene.relay({ publish: [bad, good] });
      const figure = await allReset(scene, 100, 0, 3000);
      if (relay.isDualport)
        await relay.untilMetric(100, 'dualport_upstream_connect_failures_total', 'unreachable');
      return figure;
    },
  },
  {
    id: 'A4',
    promise: 'an upstream that accepts and does nothing: the idle timeout ends both sides',
    async play(scene) {
      const relay = await scene.relay({ idle: 1000 });
      const sockets = await listed(scene);
      const heard = await scene.crowd(20, async () => {
        const start = performance.now();
        const client = await scene.connect(scene.door);
        client.socket.write(randomBytes(64 * KiB));
        const ending = await endingWithin(client, 4000);
        return { ending, ms: performance.now() - start };
      });
      holds(
        heard.every(({ ending }) => ending !== 'nothing'),
        tally(heard.map(({ ending }) => ending)),
      );
      holds(slowest(heard) < 3000, `the last ended after ${slowest(heard).toFixed(0)} ms`);
      await noneLeft(relay, scene.back, 1000);
      holds(sockets.length === 20, `${sockets.length} of 20 reached the upstream`);
    },
  },
  {
    id: 'A5',
    promise: 'an upstream with a full backlog: every client is reset when the connect timeout is over',
    async play(scene) {
      await scene.relay({ connect: 1000 });
      const server = await silentServer('127.0.0.1', scene.back);
      scene.defer(server.close);
      return allReset(scene, 20, 900, 3500);
    },
  },
];

/** The relay has no connection to this port any more. */
async function noneLeft(relay: Relay, port: number, ms: number): Promise<void> {
  let left: readonly string[] = [];
  await sees(
    async () => {
      const connections = await relay.connections();
      left = connections.filter(({ peer }) => peer.endsWith(`:${port}`)).map(({ state }) => state);
      return left.length === 0;
    },
    ms,
    () => `after ${ms / 1000} s it still has ${tally(left)}`,
  );
}

const endings: readonly Row[] = [
  {
    id: 'A6',
    promise: 'clients that reset in the middle of a transfer leave nothing behind a second later',
    async play(scene) {
      const relay = await scene.relay();
      const errors: string[] = [];
      const block = Buffer.alloc(64 * KiB);
      await scene.upstream((socket) => {
        const told = new Promise<string>((resolve) => {
          socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'));
          socket.on('end', () => resolve('end'));
        });
        void told.then((how) => errors.push(how));
        const fill = () => {
          while (socket.writable && socket.write(block));
        };
        socket.on('drain', fill).resume();
        fill();
      });
      await scene.crowd(
        300,
        async () => {
          const client = await scene.connect(scene.door);
          await sees(
            () => client.received.length > 0,
            3000,
            () => 'a client that gets nothing',
          );
          client.socket.resetAndDestroy();
        },
        20,
      );
      await noneLeft(relay, scene.back, 1000);
      await sees(
        () => errors.length >= 300,
        1000,
        () => `${errors.length} of 300 upstreams heard of it`,
      );
      const resets = errors.filter((error) => error !== 'end').length;
      holds(resets === errors.length, `the upstream was told: ${tally(errors)}`);
    },
  },
  {
    id: 'A7',
    promise: 'an upstream that resets in the middle of its answer: no client takes what it has for the whole',
    async play(scene) {
      await scene.relay();
      await scene.upstream((socket) => {
        socket.once('data', () => socket.write('half an answ', () => socket.resetAndDestroy()));
      });
      const seen = await scene.crowd(
        200,
        async () => {
          const client = await scene.connect(scene.door);
          client.socket.write('?');
          return endingWithin(client, 3000);
        },
        20,
      );
      allAre(seen, 'ECONNRESET');
    },
  },
  {
    id: 'A8',
    promise: 'a client that has ended its side gets the whole answer',
    async play(scene) {
      await scene.relay();
      const answer = randomBytes(256 * KiB);
      await scene.upstream((socket) => {
        socket.resume().on('end', () => setTimeout(() => socket.end(answer), 20));
      });
      const seen = await scene.crowd(
        200,
        async () => {
          const client = await scene.connect(scene.door);
          client.socket.end('question');
          const ending = await endingWithin(client, 5000);
          return ending === 'end' && hash(client.received) === hash(answer)
            ? 'whole'
            : `${client.received.length} bytes, ${ending}`;
        },
        20,
      );
      allAre(seen, 'whole');
    },
  },
  {
    id: 'A9',
    promise: 'an upstream that has ended its side gets the whole upload',
    async play(scene) {
      await scene.relay();
      const upload = randomBytes(256 * KiB);
      const got: string[] = [];
      await scene.upstream((socket) => {
        const chunks: Buffer[] = [];
        socket.on('data', (chunk) => chunks.push(chunk));
        socket.on('end', () => got.push(hash(Buffer.concat(chunks))));
        socket.end('go on');
      });
      await scene.crowd(
        200,
        async () => {
          const client = await scene.connect(scene.door);
          holds((await endingWithin(client, 3000)) === 'end', 'the end of the upstream is not passed on');
          client.socket.end(upload);
        },
        20,
      );
      await sees(
        () => got.length === 200,
        5000,
        () => `${got.length} of 200 uploads arrived`,
      );
      holds(
        got.every((text) => text === hash(upload)),
        'uploads were cut',
      );
    },
  },
  {
    id: 'A10',
    promise: 'connections that stay half-closed are given up after their own timeout',
    async play(scene) {
      const relay = await scene.relay({ halfClose: 1000 });
      const sockets = await listed(scene);
      for (let i = 0; i < 20; i++) {
        const { client, server } = await pair(scene, sockets);
        (i % 2 === 0 ? client.socket : server).end();
      }
      await noneLeft(relay, scene.back, 3500);
    },
  },
];

const readers: readonly Row[] = [
  {
    id: 'A11',
    promise: 'clients that do not read: the upstream is held up, and the process holds little for each',
    play: (scene) => standstill(scene, 'client'),
  },
  {
    id: 'A12',
    promise: 'upstreams that do not read: the client is held up, and the process holds little for each',
    play: (scene) => standstill(scene, 'upstream'),
  },
  {
    id: 'A14',
    promise: 'idle connections are all alive later',
    async play(scene) {
      const count = 1500;
      await scene.relay({ flows: 2 * count });
      const sockets = await listed(scene);
      const clients = await scene.crowd(count, () => scene.connect(scene.door));
      await sees(
        () => sockets.length >= count,
        5000,
        () => `${sockets.length} of ${count} reached the upstream`,
      );
      await sleep(3000);
      for (const { socket } of clients) socket.write('?');
      for (const socket of sockets) socket.write('!');
      const answered = () => clients.filter(({ received }) => received.length === 1).length;
      await sees(
        () => answered() === count,
        5000,
        () => `${answered()} of ${count} are alive`,
      );
    },
  },
];

/**
 * What one connection may make the process hold; docs/engines.md has the sum. What the kernel holds for its sockets is the
 * kernel's own limit (tcp_rmem, tcp_wmem), and is shown beside it.
 */
const mostHeld = 512 * KiB;
const collectedMs = 12_000;
const kernelDefaults = {
  'net.ipv4.tcp_rmem': '4096 131072 6291456',
  'net.ipv4.tcp_wmem': '4096 16384 4194304',
};

async function standstill(scene: Scene, reader: 'client' | 'upstream'): Promise<string> {
  for (const [name, value] of Object.entries(kernelDefaults)) scene.sysctl(name, value);
  const written: number[] = [];
  const block = Buffer.alloc(64 * KiB);
  const fill = (socket: Socket) => {
    const index = written.push(0) - 1;
    const more = () => {
      do written[index] = (written[index] ?? 0) + block.length;
      while (socket.writable && socket.write(block));
    };
    socket.on('drain', more);
    more();
  };
  const relay = await scene.relay();
  await scene.upstream((socket) => (reader === 'client' ? fill(socket) : socket.pause()));
  /** So many more, and what the process has when all stand still. */
  const heldWith = async (flows: number): Promise<number> => {
    const all = written.length + flows;
    for (const { socket } of await scene.crowd(flows, () => scene.connect(scene.door))) {
      if (reader === 'upstream') fill(socket);
      socket.pause();
    }
    let last = -1;
    const standsStill = () => {
      const total = written.reduce((sum, bytes) => sum + bytes, 0);
      const still = total === last && written.length === all;
      last = total;
      return still;
    };
    for (let i = 0; i < 20 && !standsStill(); i++) await sleep(400);
    holds(standsStill(), 'the writer is not held up');
    return relay.residentBytes();
  };
  // The first ones make the process take what it needs for any.
  const [few, more] = [48, 72];
  const before = await heldWith(few);
  let perFlow = ((await heldWith(more)) - before) / more;
  // What has been read and passed on is held by nobody, and V8 collects it at leisure.
  for (
    const deadline = performance.now() + collectedMs;
    perFlow > mostHeld && performance.now() < deadline;
  ) {
    await sleep(500);
    perFlow = ((await relay.residentBytes()) - before) / more;
  }
  const sockets = (await relay.connections()).filter(({ state }) => state === 'ESTAB');
  const inKernel = sockets.reduce((sum, { bytes }) => sum + bytes, 0) / (few + more);
  const figure = `${Math.round(perFlow / KiB)} KiB, and ${(inKernel / MiB).toFixed(1)} MiB in the kernel, a connection`;
  holds(perFlow <= mostHeld, figure);
  return figure;
}

const limits: readonly Row[] = [
  {
    id: 'A16',
    promise: 'at the connection limit clients wait, none is reset, and they are served as places become free',
    async play(scene) {
      const relay = await scene.relay({ flows: 20 });
      const sockets = await listed(scene);
      const clients = await scene.crowd(120, () => scene.connect(scene.door));
      const gone = () => clients.filter(({ socket }) => socket.destroyed).length;
      await sleep(700);
      holds(gone() === 0, `${gone()} of 100 too many were turned away`);
      holds(sockets.length === 20, `${sockets.length} upstream connections with a limit of 20`);
      for (const { socket } of clients) socket.on('end', () => socket.end());
      for (let done = 0; done < clients.length; done++) {
        await sees(
          () => sockets.length > done,
          5000,
          () => `${sockets.length} of 120 were served`,
        );
        sockets[done]?.end();
      }
      if (relay.isDualport)
        holds((await relay.metric('dualport_resets_total')) === 0, 'connections were reset');
    },
  },
  {
    id: 'A17',
    promise:
      'few files may be open: no client is turned away by a clean end, and none when accept runs out of them',
    async play(scene) {
      const relay = await scene.relay({ files: 300 });
      await scene.upstream((socket) => socket.write('hi'));
      const clients = await scene.crowd(400, () => scene.connect(scene.door));
      await sleep(1000);
      const ends = await Promise.all(clients.map((client) => endingWithin(client, 1)));
      holds(!ends.includes('end'), tally(ends));
      const served = clients.filter(({ received }) => received.length > 0).length;
      holds(served > 0, 'nobody is served');
      holds(!relay.ended, 'it has ended');
      return `${served} served at once`;
    },
  },
];

const served = async (scene: Scene): Promise<string> => {
  const client = await scene.connect(scene.door);
  client.socket.end('hello');
  const ending = await endingWithin(client, 8000);
  return ending === 'end' && client.received.toString() === 'hello' ? 'served' : ending;
};

/** Accept fails like this for a while, and clients come all the same. */
async function acceptFails(scene: Scene, errnos: readonly string[]): Promise<void> {
  const relay = await scene.relay();
  await scene.echo('127.0.0.1', scene.back);
  for (const errno of errnos) {
    const injection = await relay.inject('accept4', `error=${errno}:when=1..3`);
    const seen = await scene.crowd(10, () => served(scene));
    await injection.end();
    allAre(seen, 'served');
    holds(injection.failed() > 0, `accept never failed with ${errno}`);
  }
}

const injected: readonly Row[] = [
  {
    id: 'A17b',
    promise:
      'accept that fails with EMFILE or ENFILE is tried again now and then, and everybody is served in the end',
    silent: {
      portable: 'there Node closes those who wait; the limit of flows is what keeps it from happening',
    },
    async play(scene) {
      const relay = await scene.relay();
      await scene.echo('127.0.0.1', scene.back);
      let tries = 0;
      for (const errno of ['EMFILE', 'ENFILE']) {
        const injection = await relay.inject('accept4', `error=${errno}`);
        const clients = await scene.crowd(10, () => scene.connect(scene.door));
        await sleep(1000);
        const failed = injection.failed();
        await injection.end();
        for (const { socket } of clients) socket.end('hello');
        allAre(await Promise.all(clients.map((client) => endingWithin(client, 5000))), 'end');
        holds(failed > 0 && failed <= 25, `${failed} attempts in a second`);
        tries += failed;
      }
      if (relay.isDualport) await relay.untilMetric(tries, 'dualport_accept_failures_total');
    },
  },
  {
    id: 'A18',
    promise: 'accept that fails with ENOBUFS or ENOMEM for a while: everybody is served in the end',
    async play(scene) {
      await acceptFails(scene, ['ENOBUFS', 'ENOMEM']);
    },
  },
  {
    id: 'A19',
    promise: 'accept that fails for one connection (ECONNABORTED, EINTR, EPROTO): everybody is served',
    async play(scene) {
      await acceptFails(scene, ['ECONNABORTED', 'EINTR', 'EPROTO']);
    },
  },
  {
    id: 'A20',
    promise: 'no descriptor for the upstream: as many clients are reset, and the next are served',
    async play(scene) {
      const relay = await scene.relay();
      await scene.echo('127.0.0.1', scene.back);
      const injection = await relay.inject('socket', 'error=EMFILE:when=1..5');
      const seen: string[] = [];
      for (let i = 0; i < 15; i++) seen.push(await served(scene));
      await injection.end();
      const failed = seen.filter((word) => word !== 'served');
      allAre(failed, 'ECONNRESET');
      holds(failed.length === injection.failed(), `${injection.failed()} failures, and ${tally(seen)}`);
    },
  },
  {
    id: 'A23',
    promise: 'a connection that meets itself (same port at both ends) is not taken for an upstream',
    async play(scene) {
      await scene.relay();
      scene.sysctl('net.ipv4.ip_local_port_range', `${scene.back} ${scene.back}`);
      const client = await scene.connect(scene.door, at('127.0.0.1', scene.front + 9));
      client.socket.write('my own words');
      const ending = await endingWithin(client, 1500);
      holds(client.received.length === 0, 'the client got its own bytes back');
      allAre([ending], 'ECONNRESET');
    },
  },
  {
    id: 'A23b',
    promise: 'a datagram flow that meets itself (same port at both ends) is not taken for an upstream either',
    async play(scene) {
      await scene.relay({ publish: [scene.udpRule], udp: 1000, udpStream: 1000 });
      scene.sysctl('net.ipv4.ip_local_port_range', `${scene.back} ${scene.back}`);
      const client = await scene.udp('127.0.0.1', scene.door, scene.front + 9);
      client.send('my own words');
      await sleep(300);
      holds(client.received.length === 0, 'the client got its own bytes back');
    },
  },
];

/** Of this host by its routes, and of none of its interfaces: what it is cannot be seen beforehand. */
const unlisted = '198.18.99.1';

const loops: readonly Row[] = [
  {
    id: 'A24',
    promise: 'a rule that leads to itself, or two to each other: the client is reset, and nothing goes round',
    async play(scene) {
      const [itself, there, back, good] = [0, 1, 2, 3].map((i) => scene.front + i) as [
        number,
        number,
        number,
        number,
      ];
      const leads = (port: number, to: number) => ({
        ...scene.tcpRule,
        port,
        to: { host: unlisted, port: to },
      });
      // One rule may lead to another that leads away.
      const publish = [
        leads(itself, itself),
        leads(there, back),
        leads(back, there),
        leads(good, scene.front + 4),
        { ...scene.tcpRule, port: scene.front + 4 },
      ];
      const relay = await scene.relay({ publish, files: 1000 });
      await scene.echo('127.0.0.1', scene.back);
      for (const port of [itself, there]) {
        const before = relay.descriptors().sockets;
        const client = await scene.connect(at('127.0.0.1', port));
        client.socket.write('round and round');
        const ending = await endingWithin(client, 500);
        const more = relay.descriptors().sockets - before;
        holds(more <= 6, `${more} sockets more for one client`);
        allAre([ending], 'ECONNRESET');
      }
      const client = await scene.connect(at('127.0.0.1', good));
      client.socket.end('hello');
      const ending = await endingWithin(client, 2000);
      holds(client.received.toString() === 'hello', `what leads away ends with ${ending}`);
      if (relay.isDualport) await relay.untilMetric(2, 'dualport_rejected_total', 'loop');
    },
  },
  {
    id: 'A24b',
    promise: 'the same with datagrams: one makes no storm',
    async play(scene) {
      const to = (port: number) => ({ host: unlisted, port });
      const [itself, there, back] = [0, 1, 2].map((i) => scene.front + i) as [number, number, number];
      const publish = [
        { ...scene.udpRule, to: to(itself) },
        { ...scene.udpRule, port: there, to: to(back) },
        { ...scene.udpRule, port: back, to: to(there) },
      ];
      const relay = await scene.relay({ publish, files: 1000, udp: 1000, udpStream: 1000 });
      const before = relay.descriptors().sockets;
      for (const port of [itself, there]) {
        const client = await scene.udp('127.0.0.1', at('127.0.0.1', port));
        client.send('round and round');
        await sleep(300);
      }
      const more = relay.descriptors().sockets - before;
      holds(more <= 4, `${more} sockets more for two datagrams`);
    },
  },
];

export const tcpRows: readonly Row[] = [...failing, ...endings, ...readers, ...limits, ...injected, ...loops];
