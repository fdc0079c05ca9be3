/**
 * What dockerd expects of its proxy, asked of dualport's launcher and of the stock program alike. Where they do not
 * answer the same, both answers stand here; docs/docker-proxy.md explains each.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { makePortableEngine } from '../../src/engine/portable/portable.ts';
import type { Protocol } from '../../src/flow/flow.ts';
import type { Endpoint } from '../../src/net/address.ts';
import { at, type Client, Harness, until } from '../engine/harness.ts';
import {
  type Bound,
  buildPlayer,
  launcherPath,
  launcherSubject,
  Played,
  type Subject,
  stockPath,
  stockSubject,
  wordsOf,
} from '../support/docker-player.ts';
import { Stage } from '../support/dualport.ts';
import { freePort } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const options = { skip: skipUnless('linux', 'ipv6', 'docker-proxy', 'gcc'), timeout: 40_000 };

/** One subject with sockets around it, and the proxies it is started as. */
class Scene {
  readonly harness = new Harness(makePortableEngine(8));
  readonly subject: Subject;
  readonly #stage: Stage;
  readonly #played: Played[] = [];

  constructor(stage: Stage, subject: Subject) {
    this.#stage = stage;
    this.subject = subject;
  }

  /** A proxy that has reported success, on a port of this host. */
  async proxy(
    protocol: Protocol,
    host: string,
    container: Endpoint,
    port?: number,
  ): Promise<[Endpoint, Played]> {
    const place = { protocol, host, port: port ?? (await freePort()), container };
    const played = this.play(wordsOf(place));
    assert.equal(await played.command('start'), '0');
    return [at(dialledBy(host), place.port), played];
  }

  /** The same with a socket that dockerd has bound; it is not started yet. */
  async bound(kind: Bound, host: string, container: Endpoint): Promise<[Endpoint, Played]> {
    const port = await freePort();
    const protocol = kind.startsWith('udp') ? 'udp' : 'tcp';
    const words = [...wordsOf({ protocol, host, port, container }), '-use-listen-fd'];
    return [at(dialledBy(host), port), this.play(words, [kind, `${host}:${port}`])];
  }

  play(words: readonly string[], bound?: [Bound, string]): Played {
    const played = new Played(this.#stage, this.subject, words, bound);
    this.#played.push(played);
    return played;
  }

  async close(): Promise<void> {
    for (const played of this.#played) await played.close();
    await this.harness.close();
  }
}

function dialledBy(host: string): string {
  return host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
}

type Name = 'launcher' | 'stock';

/** One dualport for all launchers, as it is meant to be. */
let launcher: Subject | undefined;
if (options.skip === false) {
  const stage = new Stage({ after });
  before(async () => {
    buildPlayer(stage);
    launcher = await launcherSubject(stage);
  });
}

/** @param args for a dualport of its own */
function ask(
  title: string,
  name: Name,
  run: (scene: Scene) => Promise<void>,
  args?: readonly string[],
): void {
  test(`${name}: ${title}`, options, async (t) => {
    const stage = new Stage(t);
    const own = args === undefined ? launcher : await launcherSubject(stage, args);
    const scene = new Scene(stage, name === 'stock' || own === undefined ? stockSubject() : own);
    try {
      await run(scene);
    } finally {
      await scene.close();
    }
  });
}

/** Both have to do the same. */
function both(title: string, run: (scene: Scene) => Promise<void>): void {
  for (const name of ['launcher', 'stock'] as const) ask(title, name, run);
}

/** Each has an answer of its own. */
function each<T>(title: string, answers: Record<Name, T>, run: (scene: Scene) => Promise<T>): void {
  for (const name of ['launcher', 'stock'] as const) {
    ask(title, name, async (scene) => assert.deepEqual(await run(scene), answers[name]));
  }
}

/** Of dockerd 28 and later, whose flags Debian's stock program does not know. */
function launcherOnly(title: string, run: (scene: Scene) => Promise<void>, args?: readonly string[]): void {
  ask(title, 'launcher', run, args);
}

const line = 'a line of seventy-one bytes, as the tests of docker-proxy send it ......\n';
const nobody = at('127.0.0.1', 1);

async function echoed(client: Client): Promise<void> {
  client.socket.end(line);
  assert.equal(await client.text(line.length), line);
  assert.equal(await client.ending, 'end');
}

/* ---- what dockerd reads, and its signals ---- */

for (const host of ['127.0.0.1', '::1']) {
  for (const protocol of ['tcp', 'udp'] as const) {
    both(`a port of ${protocol} on ${host} that is taken is a failure that says so`, async (scene) => {
      const [{ port }] = await scene.proxy(protocol, host, nobody);
      const second = scene.play(wordsOf({ protocol, host, port, container: nobody }));
      const family = host === '::1' ? '6' : '4';
      const place = host === '::1' ? `[::1]:${port}` : `${host}:${port}`;
      assert.equal(
        await second.command('start'),
        `1 listen ${protocol}${family} ${place}: bind: address already in use`,
      );
      assert.equal((await second.ends('wait')).how, 'exit 1');
    });
  }
}

both('an address this host does not have is a failure that says so', async (scene) => {
  for (const [host, place, family] of [
    ['192.0.2.1', '192.0.2.1:8080', '4'],
    ['2001:db8::1', '[2001:db8::1]:8080', '6'],
  ] as const) {
    const played = scene.play(wordsOf({ protocol: 'tcp', host, port: 8080, container: nobody }));
    assert.equal(
      await played.command('start'),
      `1 listen tcp${family} ${place}: bind: cannot assign requested address`,
    );
    assert.equal((await played.ends('wait')).how, 'exit 1');
  }
});

both('an unknown flag ends it with status 2 and without a word', async (scene) => {
  const played = scene.play(['-proto', 'tcp', '-surprise']);
  assert.equal(await played.command('start'), 'end');
  assert.equal((await played.ends('wait')).how, 'exit 2');
});

both('a protocol it does not know is a failure', async (scene) => {
  const words = wordsOf({ protocol: 'tcp', host: '127.0.0.1', port: 8080, container: nobody });
  const played = scene.play(words.map((word) => (word === 'tcp' ? 'carrier-pigeon' : word)));
  assert.equal(await played.command('start'), 'end');
  assert.equal((await played.ends('wait')).how, 'exit 1');
});

for (const signal of ['INT', 'TERM'] as const) {
  for (const protocol of ['tcp', 'udp'] as const) {
    both(
      `SIG${signal} ends a ${protocol} proxy with status 0 at once, and its port is free`,
      async (scene) => {
        const [{ port }, played] = await scene.proxy(protocol, '127.0.0.1', nobody);
        const { how, ms } = await played.ends(signal);
        assert.equal(how, 'exit 0');
        assert.ok(ms < 150, `after ${ms} ms`);
        await scene.proxy(protocol, '127.0.0.1', nobody, port);
      },
    );
  }
}

both('the same port of both families is two proxies', async (scene) => {
  const [{ port }] = await scene.proxy('tcp', '0.0.0.0', nobody);
  await scene.proxy('tcp', '::', nobody, port);
  const [{ port: second }] = await scene.proxy('udp', '::', nobody);
  await scene.proxy('udp', '0.0.0.0', nobody, second);
});

both('a port whose old connections are in TIME_WAIT can be published again at once', async (scene) => {
  // Whoever ends first keeps the port waiting: here that is the proxy's side.
  const upstream = await scene.harness.server('127.0.0.1', (socket) => socket.end('bye'));
  const [to, played] = await scene.proxy('tcp', '127.0.0.1', upstream);
  const client = await scene.harness.connect(to);
  assert.equal(await client.ending, 'end');
  client.socket.end();
  await sleep(50);
  await played.ends('INT');
  await scene.proxy('tcp', '127.0.0.1', upstream, to.port);
});

both('the backlog is as long as the system allows', async (scene) => {
  const [{ port }] = await scene.proxy('tcp', '127.0.0.1', nobody);
  const { stdout } = spawnSync('ss', ['-Hltn', `sport = :${port}`], { encoding: 'utf8' });
  const { stdout: limit } = spawnSync('cat', ['/proc/sys/net/core/somaxconn'], { encoding: 'utf8' });
  assert.equal(stdout.trim().split(/\s+/)[2], limit.trim());
});

each('SIGHUP', { launcher: 'signal 1', stock: 'signal 1' }, async (scene) => {
  const [, played] = await scene.proxy('tcp', '127.0.0.1', nobody);
  return (await played.ends('HUP')).how;
});

each('SIGQUIT', { launcher: 'signal 3', stock: 'exit 2' }, async (scene) => {
  const [, played] = await scene.proxy('tcp', '127.0.0.1', nobody);
  return (await played.ends('QUIT')).how;
});

each(
  'a dockerd that does not listen any more: has the port been given up?',
  { launcher: 'exit 1', stock: 'still there' },
  async (scene) => {
    const words = wordsOf({ protocol: 'tcp', host: '127.0.0.1', port: await freePort(), container: nobody });
    const played = scene.play(words);
    await played.command('deaf');
    const end = played.ends('wait').then(({ how }) => how);
    return Promise.race([end, sleep(1000, 'still there')]);
  },
);

each('the version', { launcher: [0, 'docker-proxy'], stock: [2, ''] }, async (scene) => {
  const { status, stdout } = spawnSync(scene.subject.path, ['-v'], { encoding: 'utf8' });
  return [status, stdout.split(' ')[0]];
});

/* ---- TCP ---- */

for (const [host, upstream] of [
  ['127.0.0.1', '127.0.0.1'],
  ['::1', '::1'],
  ['::1', '127.0.0.1'],
  ['0.0.0.0', '127.0.0.1'],
] as const) {
  both(`TCP on ${host} to ${upstream}: what is said comes back`, async (scene) => {
    const [to] = await scene.proxy('tcp', host, await scene.harness.echo(upstream));
    await echoed(await scene.harness.connect(to));
  });
}

both('a client that has ended its direction is answered still', async (scene) => {
  const upstream = await scene.harness.server('127.0.0.1', (socket) => {
    let heard = '';
    socket.on('data', (chunk) => (heard += chunk)).on('end', () => socket.end(heard));
  });
  const [to] = await scene.proxy('tcp', '127.0.0.1', upstream);
  await echoed(await scene.harness.connect(to));
});

both('a server that has ended its direction is heard out by nobody, and hears on', async (scene) => {
  let heard = '';
  const upstream = await scene.harness.server('127.0.0.1', (socket) => {
    socket.on('data', (chunk) => (heard += chunk));
    socket.end('first');
  });
  const [to] = await scene.proxy('tcp', '127.0.0.1', upstream);
  const client = await scene.harness.connect(to);
  assert.equal(await client.ending, 'end');
  client.socket.end('and the answer');
  await until(() => heard === 'and the answer', 'the answer');
});

each(
  'a server that refuses: how the client hears of it',
  { launcher: 'ECONNRESET', stock: 'end' },
  async (scene) => {
    const [to] = await scene.proxy('tcp', '127.0.0.1', await scene.harness.closedPort('127.0.0.1'));
    return (await scene.harness.connect(to)).ending;
  },
);

each(
  'a server that resets: how the client hears of it',
  { launcher: 'ECONNRESET', stock: 'end' },
  async (scene) => {
    const upstream = await scene.harness.server('127.0.0.1', (socket) => {
      socket.write('half of', () => setTimeout(() => socket.resetAndDestroy(), 50));
    });
    const [to] = await scene.proxy('tcp', '127.0.0.1', upstream);
    return (await scene.harness.connect(to)).ending;
  },
);

each(
  'a client that resets: how the server hears of it',
  { launcher: 'ECONNRESET', stock: 'end' },
  async (scene) => {
    let ending = '';
    const upstream = await scene.harness.server('127.0.0.1', (socket) => {
      socket
        .on('end', () => (ending ||= 'end'))
        .on('error', ({ code }: NodeJS.ErrnoException) => (ending ||= code ?? ''));
      socket.resume();
      socket.write('hi');
    });
    const [to] = await scene.proxy('tcp', '127.0.0.1', upstream);
    const client = await scene.harness.connect(to);
    await client.text(2);
    client.socket.resetAndDestroy();
    await until(() => ending !== '', 'an end');
    return ending;
  },
);

each(
  'a connection that is open when the proxy is stopped',
  { launcher: 'goes on', stock: 'ends' },
  async (scene) => {
    const [to, played] = await scene.proxy('tcp', '127.0.0.1', await scene.harness.echo('127.0.0.1'));
    const client = await scene.harness.connect(to);
    client.socket.write('before');
    await client.text(6);
    assert.equal((await played.ends('INT')).how, 'exit 0');
    const over = client.ending.then(() => 'ends');
    return Promise.race([over, sleep(200, 'goes on')]);
  },
);

/* ---- UDP ---- */

for (const host of ['127.0.0.1', '::1']) {
  both(`UDP on ${host}: what is said comes back, up to the longest there is, one for one`, async (scene) => {
    const upstream = await scene.harness.udpEcho(host);
    const [to] = await scene.proxy('udp', host, upstream.local);
    const client = await scene.harness.udp(host, to);
    client.send(line);
    await client.datagrams(1);
    assert.deepEqual(client.texts, [line]);
    client.send(Buffer.alloc(65507, 'x'));
    await client.datagrams(2);
    assert.equal(client.received[1]?.length, 65507);
    client.send('one');
    client.send('two');
    await client.datagrams(4);
    assert.deepEqual(client.texts.slice(2), ['one', 'two']);
  });
}

both('a datagram of a stranger does not pass through a flow', async (scene) => {
  const upstream = await scene.harness.udpEcho('127.0.0.1');
  const [to] = await scene.proxy('udp', '127.0.0.1', upstream.local);
  const client = await scene.harness.udp('127.0.0.1', to);
  client.send('hello');
  await client.datagrams(1);
  const stranger = await scene.harness.udp('127.0.0.1');
  stranger.send('intruder', at('127.0.0.1', upstream.from[0]?.port ?? 0));
  await sleep(100);
  assert.deepEqual(client.texts, ['hello']);
});

both('a server that comes after two datagrams is reached by the next', async (scene) => {
  const closed = await scene.harness.closedUdpPort('127.0.0.1');
  const [to] = await scene.proxy('udp', '127.0.0.1', closed);
  const client = await scene.harness.udp('127.0.0.1', to);
  client.send('lost');
  await sleep(50);
  client.send('lost, too');
  await sleep(50);
  await scene.harness.udpEcho('127.0.0.1', closed.port);
  client.send('heard');
  await client.datagrams(1);
  assert.deepEqual(client.texts, ['heard']);
});

each('a datagram without payload', { launcher: 'passes', stock: 'is dropped' }, async (scene) => {
  const upstream = await scene.harness.udpEcho('127.0.0.1');
  const [to] = await scene.proxy('udp', '127.0.0.1', upstream.local);
  const client = await scene.harness.udp('127.0.0.1', to);
  client.send('');
  client.send('behind');
  await until(() => upstream.texts.includes('behind'), 'the second');
  return upstream.texts.includes('') ? 'passes' : 'is dropped';
});

each(
  'the address from which a client of 127.0.0.2 is answered',
  { launcher: '127.0.0.2', stock: '127.0.0.1' },
  async (scene) => {
    const upstream = await scene.harness.udpEcho('127.0.0.1');
    const [{ port }] = await scene.proxy('udp', '0.0.0.0', upstream.local);
    const client = await scene.harness.udp('0.0.0.0');
    client.send('hello', at('127.0.0.2', port));
    await client.datagrams(1);
    return client.from[0]?.address;
  },
);

each(
  'the ports under which a server sees a client whose first datagram was refused',
  { launcher: 1, stock: 2 },
  async (scene) => {
    const upstream = await scene.harness.udpEcho('127.0.0.1');
    const [to] = await scene.proxy('udp', '127.0.0.1', upstream.local);
    const client = await scene.harness.udp('127.0.0.1', to);
    client.send('one');
    await client.datagrams(1);
    upstream.close();
    await sleep(20);
    client.send('refused');
    await sleep(100);
    const again = await scene.harness.udpEcho('127.0.0.1', upstream.local.port);
    client.send('two');
    await client.datagrams(2);
    return new Set([upstream.from[0]?.port, again.from[0]?.port]).size;
  },
);

/* ---- dockerd 28 and later: the socket comes as file descriptor 4 ---- */

for (const [kind, host, upstream] of [
  ['tcp4', '127.0.0.1', '127.0.0.1'],
  ['tcp6', '::1', '::1'],
  ['tcp4', '0.0.0.0', '127.0.0.1'],
  ['tcp6', '::', '127.0.0.1'],
] as const) {
  launcherOnly(
    `fd 4 (${kind}) on ${host}: clients that came before the proxy are served, and those after`,
    async (scene) => {
      const [to, played] = await scene.bound(kind, host, await scene.harness.echo(upstream));
      await until(() => listens(to.port), 'dockerd to listen');
      const early = await scene.harness.connect(to);
      early.socket.write('early');
      assert.equal(await played.command('start'), '0');
      assert.equal(await early.text(5), 'early');
      await echoed(await scene.harness.connect(to));
      assert.equal((await played.ends('INT')).how, 'exit 0');
    },
  );
}

launcherOnly('fd 4 that is a listener of both families is served on both', async (scene) => {
  const [to, played] = await scene.bound('tcp-dual', '::', await scene.harness.echo('::1'));
  assert.equal(await played.command('start'), '0');
  await echoed(await scene.harness.connect(at('127.0.0.1', to.port)));
  await echoed(await scene.harness.connect(to));
});

for (const [kind, host] of [
  ['udp4', '0.0.0.0'],
  ['udp6', '::'],
] as const) {
  launcherOnly(
    `fd 4 (${kind}) on ${host}: nothing passes before the rules are there, and all of it after`,
    async (scene) => {
      const upstream = await scene.harness.udpEcho(dialledBy(host));
      const [to, played] = await scene.bound(kind, host, upstream.local);
      await until(() => listens(to.port, 'u'), 'dockerd to bind');
      const client = await scene.harness.udp(dialledBy(host), to);
      client.send('too early');
      await sleep(50);
      assert.equal(await played.command('start'), '0');
      client.send('in time');
      await client.datagrams(1);
      assert.deepEqual(upstream.texts, ['in time']);
      assert.equal((await played.ends('INT')).how, 'exit 0');
    },
  );
}

launcherOnly(
  'fd 4 that is of another protocol than the flags say is left to the stock program',
  async (scene) => {
    const port = await freePort();
    const words = [
      ...wordsOf({ protocol: 'udp', host: '127.0.0.1', port, container: nobody }),
      '-use-listen-fd',
    ];
    const played = scene.play(words, ['tcp4', `127.0.0.1:${port}`]);
    // Debian's does not know the flag.
    assert.equal(await played.command('start'), 'end');
    assert.equal((await played.ends('wait')).how, 'exit 2');
  },
);

function listens(port: number, how = 'l'): boolean {
  const { stdout } = spawnSync('ss', [how === 'l' ? '-Hltn' : '-Hlun', `sport = :${port}`], {
    encoding: 'utf8',
  });
  return stdout.trim() !== '';
}

launcherOnly(
  'a flow without answers keeps its port while its client speaks, and has another after its time',
  async (scene) => {
    const upstream = await scene.harness.udp('127.0.0.1');
    const [to] = await scene.proxy('udp', '127.0.0.1', upstream.local);
    const client = await scene.harness.udp('127.0.0.1', to);
    for (let i = 0; i < 15; i++) {
      client.send('no answer');
      await sleep(100);
    }
    await upstream.datagrams(15);
    assert.equal(new Set(upstream.from.map(({ port }) => port)).size, 1);
    await sleep(2500);
    client.send('after a pause');
    await upstream.datagrams(16);
    assert.equal(new Set(upstream.from.map(({ port }) => port)).size, 2);
  },
  ['--udp-timeout', '1s'],
);

/* ---- a dualport that is slow, or not there ---- */

launcherOnly('a dualport that sleeps holds nobody up: the stock program serves the port', async (scene) => {
  const { dualport } = scene.subject;
  assert.ok(dualport);
  dualport.signal('SIGSTOP');
  try {
    const began = performance.now();
    const [to, played] = await scene.proxy('tcp', '127.0.0.1', await scene.harness.echo('127.0.0.1'));
    assert.ok(performance.now() - began < 6000, 'far within the 16 s of dockerd');
    await echoed(await scene.harness.connect(to));
    assert.equal((await played.ends('INT')).how, 'exit 0');
  } finally {
    dualport.signal('SIGCONT');
  }
});

launcherOnly('without a dualport the stock program serves the port', async (scene) => {
  const subject = { ...scene.subject, env: { DUALPORT_DOCKER_PROXY_SOCKET: '/nonexistent/socket' } };
  const alone = new Scene(new Stage({ after: () => {} }), subject);
  try {
    const [to] = await alone.proxy('tcp', '::1', await scene.harness.echo('::1'));
    await echoed(await scene.harness.connect(to));
  } finally {
    await alone.close();
  }
});

launcherOnly('a port that the configuration publishes already is a failure like any other', async (scene) => {
  const taken = net.createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as net.AddressInfo;
  const played = scene.play(wordsOf({ protocol: 'tcp', host: '127.0.0.1', port, container: nobody }));
  assert.match(await played.command('start'), /^1 listen tcp4 .*: bind: address already in use$/);
  taken.close();
});

test('the programs are there', options, () => {
  for (const path of [launcherPath, stockPath]) assert.equal(spawnSync('test', ['-x', path]).status, 0, path);
});
