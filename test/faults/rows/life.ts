/** Start, reload, end, and being killed. */
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { at, type Client } from '../../engine/harness.ts';
import type { Relay } from '../relay.ts';
import type { Row } from '../row.ts';
import type { Scene } from '../scene.ts';
import { allAre, endingWithin, holds, NothingSaid, sees, tally } from '../verdict.ts';

/** One connection with one exchange; how it went. */
async function exchange(scene: Scene, port = scene.front): Promise<string> {
  const client = await scene.connect(at('127.0.0.1', port));
  client.socket.end('hello');
  const ending = await endingWithin(client, 5000);
  client.socket.destroy();
  return ending === 'end' && client.received.toString() === 'hello' ? 'served' : ending;
}

function tells(relay: Relay, meaning: 'reload' | 'drain'): void {
  if (!relay.tell(meaning)) throw new NothingSaid(`cannot ${meaning}`);
}

/** A client that has said a word and heard it back. */
async function talking(scene: Scene): Promise<Client> {
  const client = await scene.connect(scene.door);
  client.socket.write('hello');
  await sees(
    () => client.received.length === 5,
    3000,
    () => 'a client without an answer',
  );
  return client;
}

const ending: readonly Row[] = [
  {
    id: 'E1',
    promise: 'told to end: nobody new is let in, what runs is finished, and it ends with status 0',
    async play(scene) {
      const relay = await scene.relay({ drain: 10_000 });
      await scene.echo('127.0.0.1', scene.back);
      const clients = await Promise.all(Array.from({ length: 50 }, () => talking(scene)));
      scene.endsRelay = true;
      tells(relay, 'drain');
      const isShut = async () => ['ECONNREFUSED', 'ECONNRESET'].includes(await exchange(scene));
      await sees(isShut, 2000, () => 'new clients are let in');
      for (const { socket } of clients) socket.end(', and good bye');
      const seen = await Promise.all(clients.map((client) => endingWithin(client, 3000)));
      const whole = clients.filter(({ received }) => received.toString() === 'hello, and good bye').length;
      holds(whole === 50, `${whole} of 50 were finished: ${tally(seen)}`);
      const statuses = await Promise.race([relay.exits(), sleep(5000, ['nothing'], { ref: false })]);
      holds(
        statuses.every((status) => status === 0),
        `it ends with ${statuses}`,
      );
    },
  },
  {
    id: 'E10',
    promise: 'killed and started again with connections open: it listens again, each time',
    async play(scene) {
      const relay = await scene.relay();
      await scene.echo('127.0.0.1', scene.back);
      const slowest: number[] = [];
      for (let cycle = 0; cycle < 5; cycle++) {
        for (let i = 0; i < 10; i++) await talking(scene);
        relay.kill();
        await relay.exits();
        const start = performance.now();
        await relay.start();
        allAre([await exchange(scene)], 'served');
        slowest.push(performance.now() - start);
      }
      return `up again in ${Math.max(...slowest).toFixed(0)} ms`;
    },
  },
  {
    id: 'E8',
    promise: 'a socket file left behind by a killed process is replaced, one of a living process never',
    silent: { nginx: 'shows no state of streams', 'docker-proxy': 'shows no state' },
    async play(scene) {
      const relay = await scene.relay();
      const admin = join(relay.folder, 'state.sock');
      relay.kill();
      await relay.exits();
      await relay.start({ ...relay.wanted, admin });
      relay.kill();
      await relay.exits();
      await relay.start();
      await answers(admin);
      const other = { publish: [{ ...scene.tcpRule, port: scene.front + 1 }], admin };
      const [{ status } = { status: undefined }] = await scene.refusedRelay(other);
      await answers(admin, relay);
      holds(status !== undefined && status !== 0, 'a second one takes the socket of the first');
      scene.endsRelay = true;
    },
  },
  {
    id: 'E14',
    promise: 'SIGPIPE and SIGUSR1 end nothing, and open no inspector',
    silent: { haproxy: 'SIGUSR1 tells it to stop' },
    async play(scene) {
      const relay = await scene.relay();
      for (const signal of ['SIGPIPE', 'SIGUSR1', 'SIGPIPE', 'SIGUSR1'] as const) {
        relay.signal(signal);
        await sleep(50);
      }
      holds(!relay.ended, 'it has ended');
      const client = await scene.connect(at('127.0.0.1', 9229));
      holds((await endingWithin(client, 1000)) === 'ECONNREFUSED', 'port 9229 is open');
    },
  },
];

/** Somebody listens on this socket; and it is this relay, if one is named. */
async function answers(path: string, relay?: Relay): Promise<void> {
  const socket = net.connect(path);
  const outcome = await new Promise((resolve) => socket.on('connect', resolve).on('error', resolve));
  socket.destroy();
  holds(!(outcome instanceof Error), `nobody answers on the socket: ${outcome}`);
  holds(relay === undefined || !relay.ended, 'the first has ended');
}

/** Everybody who comes while this goes on, and how it went with each. */
async function meanwhile(scene: Scene, work: () => Promise<void>): Promise<string[]> {
  const seen: string[] = [];
  let done = false;
  const clients = Array.from({ length: 4 }, async () => {
    while (!done) {
      seen.push(await exchange(scene));
      await sleep(1);
    }
  });
  await work().finally(() => {
    done = true;
  });
  await Promise.all(clients);
  return seen;
}

const reloading: readonly Row[] = [
  {
    id: 'E3',
    promise: 'thirty reloads under load: no connection fails, and one that is open stays open',
    async play(scene) {
      const relay = await scene.relay();
      await scene.echo('127.0.0.1', scene.back);
      const old = await talking(scene);
      const seen = await meanwhile(scene, async () => {
        for (let i = 0; i < 30; i++) {
          const more = { ...scene.tcpRule, port: scene.front + 1 + (i % 3) };
          relay.configure({
            ...relay.wanted,
            publish: i % 2 === 0 ? [scene.tcpRule, more] : [scene.tcpRule],
          });
          tells(relay, 'reload');
          await sleep(60);
        }
        relay.configure(relay.wanted);
        tells(relay, 'reload');
        await sleep(300);
      });
      allAre(seen, 'served');
      old.socket.write('again');
      await sees(
        () => old.received.length === 10,
        2000,
        () => 'the connection from before the reloads is cut',
      );
      return `${seen.length} connections`;
    },
  },
  {
    id: 'E4',
    promise: 'whatever is wrong with a new configuration, the old one stays in force as a whole',
    async play(scene) {
      const relay = await scene.relay();
      await scene.echo('127.0.0.1', scene.back);
      const good = readFileSync(fileOf(relay));
      const broken = brokenFiles(scene, relay, good);
      const seen: string[] = [];
      for (const [what, write] of Object.entries(broken)) {
        rmSync(fileOf(relay), { recursive: true, force: true });
        write(fileOf(relay));
        tells(relay, 'reload');
        if (relay.isDualport) {
          const refusals = () =>
            relay.program.said('configuration not reloaded: the old one stays in force').length;
          await sees(
            () => refusals() > seen.length,
            2000,
            () => `${what}: it does not refuse`,
          );
        } else await sleep(200);
        seen.push(await exchange(scene));
        holds(seen.at(-1) === 'served', `${what}: ${tally(seen.slice(-1))}`);
        const added = await exchange(scene, scene.front + 1);
        holds(added === 'ECONNREFUSED', `${what}: a part of it is in force`);
      }
      rmSync(fileOf(relay), { recursive: true, force: true });
      writeFileSync(fileOf(relay), good);
      return `${seen.length} broken ones`;
    },
  },
];

function fileOf(relay: Relay): string {
  const { file } = relay.subject;
  if (file === undefined) throw new NothingSaid('has no configuration');
  return join(relay.folder, file);
}

/** Each asks for one port more, as far as it can be read. */
function brokenFiles(scene: Scene, relay: Relay, good: Buffer): Record<string, (path: string) => void> {
  const more = { ...scene.tcpRule, port: scene.front + 1 };
  const taken = { ...scene.tcpRule, port: scene.back };
  const asked = (wanted: Parameters<Relay['configure']>[0]) => () => relay.configure(wanted);
  return {
    'a file that is cut': (path) => writeFileSync(path, good.subarray(0, good.length * 0.6)),
    'an empty file': (path) => writeFileSync(path, ''),
    'no file': () => {},
    'a directory': (path) => mkdirSync(path),
    'a loop of links': (path) => symlinkSync(path, path),
    nonsense: (path) => writeFileSync(path, 'publsih: [}\n\0\n'),
    '20 MB': (path) => writeFileSync(path, Buffer.alloc(20_000_000, 'x: y\n')),
    'a port that is taken': asked({ ...relay.wanted, publish: [scene.tcpRule, more, taken] }),
    'a port twice': asked({ ...relay.wanted, publish: [scene.tcpRule, more, more] }),
    'a prefix that is none': asked({
      ...relay.wanted,
      publish: [scene.tcpRule, { ...more, deny: ['198.18.0.0/33'] }],
    }),
    'half a file': (path) => {
      relay.configure({ ...relay.wanted, publish: [scene.tcpRule, more] });
      const whole = readFileSync(path);
      renameSync(path, `${path}.whole`);
      writeFileSync(path, whole.subarray(0, whole.length - 40));
    },
  };
}

export const lifeRows: readonly Row[] = [...ending, ...reloading];
