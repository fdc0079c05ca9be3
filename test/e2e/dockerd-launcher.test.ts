/**
 * A real dockerd that starts dualport's launchers instead of docker-proxy: what is published answers on both families,
 * whatever family the program in the container speaks, and through restarts of everything.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../engine/harness.ts';
import { launcherPath } from '../support/docker-player.ts';
import { bridge, type Container, type Dockerd, type RunOptions, startDockerd } from '../support/dockerd.ts';
import { tracesOf } from '../support/dockerd-traces.ts';
import { Dualport, type Place, Stage } from '../support/dualport.ts';
import { addresses, openWorld, type World } from '../support/namespace.ts';
import type { Echo, ManyAnswers } from '../support/namespace-programs.ts';
import { client, curl, serve } from '../support/namespace-traffic.ts';
import { announced, startNginx } from '../support/nginx.ts';
import { main } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const options = { skip: skipUnless('root', 'netns', 'dockerd', 'curl', 'docker-proxy'), timeout: 60_000 };

/** One dockerd, the dualport its launchers come to, and a neighbour. */
class Site {
  readonly stage: Stage;
  readonly world: World;
  readonly dockerd: Dockerd;
  readonly socket: string;
  dualport: Dualport | undefined;
  #port = 8000;

  constructor(stage: Stage, world: World, dockerd: Dockerd, socket: string) {
    this.stage = stage;
    this.world = world;
    this.dockerd = dockerd;
    this.socket = socket;
  }

  static async open(owner: { after(close: () => Promise<void>): void }): Promise<Site> {
    const stage = new Stage(owner);
    const world = openWorld(stage);
    const socket = join(stage.directory(), 'launchers.sock');
    const env = { DUALPORT_DOCKER_PROXY_SOCKET: socket };
    const dockerd = await startDockerd(stage, world.host, { proxyPath: launcherPath, env });
    return new Site(stage, world, dockerd, socket);
  }

  async startDualport(args: readonly string[] = []): Promise<Dualport> {
    const words = [
      main,
      '--docker-proxy-socket',
      this.socket,
      '--access-log',
      '--log-level',
      'debug',
      ...args,
    ];
    const place = { prefix: [...this.world.host.prefix, 'env', `DOCKER_HOST=unix://${this.dockerd.socket}`] };
    const running = this.stage.background(place, process.execPath, words);
    await running.says('ready');
    this.dualport = new Dualport(running);
    return this.dualport;
  }

  async stopDualport(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    this.dualport?.running.signal(signal);
    await this.dualport?.running.exit;
    this.dualport = undefined;
  }

  /** A host port nobody has had yet. */
  port(): number {
    return ++this.#port;
  }

  /** Starts a container that is removed when the test ends. */
  async run(
    t: { after(close: () => Promise<void>): void },
    name: string,
    run: RunOptions,
  ): Promise<Container> {
    const container = await this.dockerd.run(name, run);
    t.after(() => container.remove());
    return container;
  }

  /** Waits until what dualport can know of this container it knows. */
  async known(name: string, ports: number): Promise<void> {
    const lines = () =>
      this.dualport?.running.said('container known').filter(({ container }) => container === name);
    await until(() => (lines()?.length ?? 0) >= ports, `${name} to be known`);
  }

  /** The line that the program in a container answers with; nothing, where nobody answers. */
  async ask(place: Place, host: string, port: number): Promise<string> {
    const { body } = await curl(
      this.stage,
      place,
      `http://${host.includes(':') ? `[${host}]` : host}:${port}/`,
    );
    return body.trim();
  }

  askUdp(place: Place, host: string, port: number): Promise<Echo> {
    return client(this.stage, place, 'udpAsk', { host, port });
  }

  /** Clients that never stop, for some time. */
  steady(host: string, port: number, ms: number): Promise<ManyAnswers> {
    return client(this.stage, this.world.host, 'steady', { host, port, ms });
  }
}

const gateway = /198\.18\.7\.1|fd00:7::1/.source;
const answerOf = (name: string): RegExp => new RegExp(`^${name} was asked by `);

/** Where dockerd's own rules send nobody past the proxy. */
const local = ['127.0.0.1', '::1'] as const;

describe('with launchers', () => {
  let site: Site;
  if (options.skip === false) {
    const stage = {
      closers: [] as (() => Promise<void>)[],
      after: (close: () => Promise<void>) => stage.closers.push(close),
    };
    before(async () => {
      site = await Site.open(stage);
      await site.startDualport();
    });
    after(async () => {
      for (const close of stage.closers) await close();
      assert.deepEqual(tracesOf(process.pid), [], 'no trace was left behind');
    });
  }

  const ask = (host: string, port: number) => site.ask(site.world.host, host, port);

  test(
    'a program on 0.0.0.0 of a dual-stack container answers on every port that is published',
    options,
    async (t) => {
      const [both, v6] = [site.port(), site.port()];
      await site.run(t, 'sold', { publish: [`${both}:80`, `[::]:${v6}:80`], listen: ['tcp 0.0.0.0 80'] });
      assert.match(await ask('127.0.0.1', both), answerOf('sold'));
      assert.match(await ask('::1', both), answerOf('sold'));
      assert.match(await ask('::1', v6), answerOf('sold'));
    },
  );

  test('dockerd sees a proxy for each port and family, with the flags it gave them', options, async (t) => {
    const port = site.port();
    const { v4, v6 } = await (await site.run(t, 'seen', { publish: [`${port}:80`] })).addresses();
    assert.deepEqual(site.dockerd.proxies, [
      `-proto tcp -host-ip 0.0.0.0 -host-port ${port} -container-ip ${v4} -container-port 80`,
      `-proto tcp -host-ip :: -host-port ${port} -container-ip ${v6} -container-port 80`,
    ]);
  });

  for (const listens of [['0.0.0.0'], ['::'], ['0.0.0.0', '::']] as const) {
    test(
      `a dual-stack container whose program listens on ${listens.join(' and ')} is reached from both families`,
      options,
      async (t) => {
        const port = site.port();
        const name = `on-${listens.map((host) => (host === '::' ? 'v6' : 'v4')).join('-')}`;
        await site.run(t, name, {
          publish: [`${port}:80`, `${port}:53/udp`],
          listen: listens.flatMap((host) => [`tcp ${host} 80`, `udp ${host} 53`]),
        });
        for (const host of local) {
          assert.match(await ask(host, port), answerOf(name), host);
          const echo = await site.askUdp(site.world.host, host, port);
          assert.match(echo.text, new RegExp(`^${name} was asked by (${gateway}) \\d+\\nhello$`));
          assert.equal(echo.from, host, 'answered from the address that was asked');
        }
      },
    );
  }

  test('a container without IPv6 answers neighbours and this host over IPv6', options, async (t) => {
    const port = site.port();
    await site.dockerd.docker('network', 'create', '--subnet', '198.18.8.0/24', 'v4only');
    await site.run(t, 'old', {
      publish: [`[::]:${port}:80`],
      listen: ['tcp 0.0.0.0 80'],
      args: ['--network', 'v4only'],
    });
    t.after(() => site.dockerd.docker('network', 'rm', 'v4only').then(() => {}));
    assert.match(await ask('::1', port), answerOf('old'));
    assert.match(await site.ask(site.world.client, addresses.host.v6, port), answerOf('old'));
    assert.equal(await ask('127.0.0.1', port), '', 'only [::] was published');
  });

  test('a neighbour over IPv6 reaches a program that listens on 0.0.0.0 only', options, async (t) => {
    const port = site.port();
    await site.run(t, 'near', {
      publish: [`${port}:80`, `${port}:53/udp`],
      listen: ['tcp 0.0.0.0 80', 'udp 0.0.0.0 53'],
    });
    assert.match(await site.ask(site.world.client, addresses.host.v6, port), answerOf('near'));
    const echo = await site.askUdp(site.world.client, addresses.host.v6, port);
    assert.match(echo.text, answerOf('near'));
    assert.equal(echo.from, addresses.host.v6);
  });

  test('the first client need not wait until the container is known', options, async (t) => {
    const port = site.port();
    // dockerd has not even started the program yet: nobody can know that there is another address.
    const running = site.run(t, 'fresh', { publish: [`${port}:80`], listen: ['tcp 0.0.0.0 80'] });
    const name = `[::]:${port}:80/tcp`;
    await until(
      () => site.dualport?.running.said('listening').some(({ rule }) => rule === name) ?? false,
      name,
    );
    const asked = [ask('::1', port), ask('::1', port)];
    await running;
    for (const answer of await Promise.all(asked)) assert.match(answer, answerOf('fresh'));
  });

  test(
    'a range of 50 ports answers on both families, each with its own, also after dualport is restarted',
    options,
    async (t) => {
      await site.run(t, 'range', { publish: ['9000-9049:9000-9049'], listen: ['tcp 0.0.0.0 9000-9049'] });
      assert.equal(site.dockerd.proxyPids.length, 100);
      await site.known('range', 100);
      for (const host of local) await everyPortAnswers(host, 'range');
      const each = site.dockerd.proxyPids.map(memoryOf);
      assert.ok(Math.max(...each) < 200, `a launcher has ${Math.max(...each)} kB of its own`);
      await site.stopDualport();
      await site.startDualport();
      await site.known('range', 100);
      for (const host of local) await everyPortAnswers(host, 'range');
    },
  );

  async function everyPortAnswers(host: string, name: string): Promise<void> {
    const authority = host.includes(':') ? `[${host}]` : host;
    const urls = Array.from({ length: 50 }, (_, i) => `http://${authority}:${9000 + i}/`);
    const args = ['-q', '-sS', '-g', '--noproxy', '*', '--max-time', '20', ...urls];
    const { stdout, stderr } = await site.stage.run(site.world.host, 'curl', args);
    const answers = stdout.split('\n').filter((line) => answerOf(name).test(line));
    assert.equal(answers.length, 50, stderr);
  }

  test('a dualport of several threads serves launchers as well', options, async (t) => {
    await site.stopDualport();
    await site.startDualport(['--threads', '2']);
    const port = site.port();
    await site.run(t, 'threaded', {
      publish: [`${port}:80`, `${port}:53/udp`],
      listen: ['tcp 0.0.0.0 80', 'udp 0.0.0.0 53'],
    });
    for (const host of local) {
      assert.match(await ask(host, port), answerOf('threaded'), host);
      assert.match((await site.askUdp(site.world.host, host, port)).text, answerOf('threaded'), host);
    }
    await site.stopDualport();
    await site.startDualport();
    for (const host of local) assert.match(await ask(host, port), answerOf('threaded'), host);
  });

  test('a container reaches itself and others by what is published', options, async (t) => {
    const port = site.port();
    const web = await site.run(t, 'hairpin', { publish: [`${port}:80`], listen: ['tcp 0.0.0.0 80'] });
    const other = await site.run(t, 'asker', { command: ['sleep', '1000'] });
    for (const place of [await web.inside(), await other.inside()]) {
      for (const host of [bridge.v4, bridge.v6]) {
        assert.match(await site.ask(place, host, port), answerOf('hairpin'), host);
      }
    }
  });

  test(
    'a label has the program told of its clients: nginx logs the address of an IPv6 neighbour',
    options,
    async (t) => {
      const port = site.port();
      const args = ['--label', 'io.dualport.source=proxy-v2'];
      const holder = await site.run(t, 'labelled', {
        publish: [`[::]:${port}:80`],
        args,
        command: ['sleep', '1000'],
      });
      const { v4 } = await holder.addresses();
      const http = `server { listen ${v4}:80 proxy_protocol; location / { return 200 "${announced}"; } }`;
      const stage = new Stage(t);
      const nginx = await startNginx(stage, await holder.inside(), { http }, [['tcp', 80]]);
      await site.known('labelled', 1);
      const answer = await curl(stage, site.world.client, `http://[${addresses.host.v6}]:${port}/told`);
      assert.equal(answer.body, `${addresses.client.v6} ${answer.localPort} ${addresses.host.v6} ${port}`);
      await nginx.logged((line) => line.startsWith(`${addresses.client.v6} ${answer.localPort} `));
    },
  );

  test(
    'a label that asks for what it may not have is not followed, and the port is served',
    options,
    async (t) => {
      const port = site.port();
      const args = ['--label', 'io.dualport.source=transparent'];
      await site.run(t, 'greedy', { publish: [`${port}:80`], args, listen: ['tcp 0.0.0.0 80'] });
      await site.known('greedy', 2);
      assert.match(await ask('::1', port), answerOf('greedy'));
      const [complaint] = site.dualport?.running.said('a label is not followed') ?? [];
      assert.match(
        String(complaint?.['reason']),
        /io\.dualport\.source: found "transparent", and the container is on the network "bridge"; allowed there: none, /,
      );
    },
  );

  test('a container is restarted: the ports are there again', options, async (t) => {
    const port = site.port();
    const web = await site.run(t, 'again', { publish: [`${port}:80`], listen: ['tcp 0.0.0.0 80'] });
    await site.dockerd.docker('restart', '-t', '1', 'again');
    await web.ready();
    for (const host of local) assert.match(await ask(host, port), answerOf('again'), host);
  });

  test('a container is paused: a client waits, and is answered when it goes on', options, async (t) => {
    const port = site.port();
    await site.run(t, 'sleeper', { publish: [`${port}:80`], listen: ['tcp 0.0.0.0 80'] });
    await site.known('sleeper', 2);
    await site.dockerd.docker('pause', 'sleeper');
    const answer = ask('::1', port);
    assert.equal(await Promise.race([answer, sleep(300, 'waits')]), 'waits');
    await site.dockerd.docker('unpause', 'sleeper');
    assert.match(await answer, answerOf('sleeper'));
  });

  test(
    'a container is removed by force and run again at once, on the same ports, with clients all the time',
    options,
    async (t) => {
      const port = site.port();
      const run = {
        publish: [`${port}:80`, `${port}:53/udp`],
        listen: ['tcp 0.0.0.0 80', 'udp 0.0.0.0 53'],
      };
      t.after(() => site.dockerd.tryDocker('rm', '-f', 'phoenix').then(() => {}));
      await site.dockerd.run('phoenix', run);
      const load = site.steady('127.0.0.1', port, 3000);
      await sleep(400);
      for (let i = 0; i < 3; i++) {
        await site.dockerd.docker('rm', '-f', 'phoenix');
        await site.dockerd.run('phoenix', run);
      }
      const { answered } = await load;
      assert.ok(answered > 0, `${answered} were answered`);
      for (const host of local) {
        assert.match(await ask(host, port), answerOf('phoenix'));
        assert.match((await site.askUdp(site.world.host, host, port)).text, answerOf('phoenix'));
      }
    },
  );

  test(
    'a stranger that gets the address of a container hears from none of its clients',
    options,
    async (t) => {
      const port = site.port();
      const web = await site.dockerd.run('tenant', { publish: [`${port}:80`], listen: ['tcp 0.0.0.0 80'] });
      await site.known('tenant', 2);
      const { v4 } = await web.addresses();
      const load = site.steady('::1', port, 2000);
      await sleep(200);
      await web.remove();
      const stranger = await site.run(t, 'stranger', { listen: ['tcp 0.0.0.0 80'] });
      assert.equal((await stranger.addresses()).v4, v4, 'it has that address');
      await load;
      const flows =
        site.dualport?.flows.filter((flow) => String(flow['dualport.rule']).includes(`:${port}:`)) ?? [];
      assert.ok(flows.length > 0);
      assert.equal(await ask('::1', port), '');
      const heard = await site.dockerd.docker('exec', 'stranger', 'cat', '/proc/net/snmp');
      assert.equal(passiveOpens(heard), 0, 'nobody was ever connected to it');
    },
  );

  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    test(
      `dualport is restarted (${signal}) with clients all the time: none is refused`,
      options,
      async (t) => {
        const port = site.port();
        await site.run(t, `held-${signal.toLowerCase()}`, {
          publish: [`${port}:80`],
          listen: ['tcp 0.0.0.0 80', 'tcp :: 80'],
        });
        const load = site.steady('::1', port, 3000);
        for (let i = 0; i < 2; i++) {
          await sleep(400);
          await site.stopDualport(signal);
          await sleep(200);
          await site.startDualport();
        }
        const { answered, failures } = await load;
        assert.ok(answered > 100, `${answered} were answered`);
        assert.deepEqual(
          failures.filter((ending) => ending === 'ECONNREFUSED'),
          [],
        );
        // What a killed dualport was relaying at that moment is lost with it.
        if (signal === 'SIGTERM') assert.deepEqual(failures, []);
      },
    );
  }

  test(
    'dockerd is restarted: containers that restart with it are served, and nobody waits for anybody',
    options,
    async (t) => {
      const port = site.port();
      const web = await site.run(t, 'always', {
        publish: [`${port}:80`, '9100-9119:9100-9119'],
        listen: ['tcp 0.0.0.0 80', 'tcp 0.0.0.0 9100-9119'],
        args: ['--restart', 'always'],
      });
      await site.dockerd.stop();
      assert.equal(await ask('127.0.0.1', port), '', 'the launchers have gone with dockerd');
      const began = performance.now();
      await site.dockerd.start();
      const seconds = (performance.now() - began) / 1000;
      assert.ok(seconds < 12, `a boot took ${seconds} s: a proxy that waited for Docker would take 16 s`);
      assert.equal(site.dockerd.proxyPids.length, 42);
      await web.ready();
      for (const host of local) assert.match(await ask(host, port), answerOf('always'), host);
      assert.match(await ask('::1', 9119), answerOf('always'));
    },
  );

  test(
    'without dualport a container is published as ever; the next start brings it back',
    options,
    async (t) => {
      const port = site.port();
      await site.stopDualport();
      const web = await site.run(t, 'alone', {
        publish: [`${port}:80`],
        listen: ['tcp 0.0.0.0 80', 'tcp :: 80'],
      });
      for (const host of local) assert.match(await ask(host, port), answerOf('alone'), host);
      const { running } = await site.startDualport();
      await sleep(100);
      assert.deepEqual(running.said('listening'), [], 'the stock programs keep what they have');
      await site.dockerd.docker('restart', '-t', '1', 'alone');
      await running.says('listening', 2);
      await web.ready();
      for (const host of local) assert.match(await ask(host, port), answerOf('alone'), host);
    },
  );

  test('a port that is taken is refused in words that docker run shows', options, async (t) => {
    const port = site.port();
    await serve(new Stage(t), site.world.host, 'web', { host: '127.0.0.1', port });
    const words = [
      'run',
      '-d',
      '--name',
      'late',
      '-p',
      `127.0.0.1:${port}:80`,
      'dualport-test',
      'sleep',
      '1',
    ];
    const { status, stderr } = await site.dockerd.tryDocker(...words);
    await site.dockerd.tryDocker('rm', '-f', 'late');
    assert.notEqual(status, 0);
    assert.match(
      stderr,
      new RegExp(
        `Error starting userland proxy: listen tcp4 127\\.0\\.0\\.1:${port}: bind: address already in use`,
      ),
    );
  });
});

/** What is a process's own, and its share of what it has in common with others, in kB. */
function memoryOf(pid: number): number {
  return Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]);
}

/** Connections that were accepted in a network namespace, ever. */
function passiveOpens(snmp: string): number {
  const [names = '', values = ''] = snmp.split('\n').filter((line) => line.startsWith('Tcp:'));
  return Number(values.split(' ')[names.split(' ').indexOf('PassiveOpens')]);
}
