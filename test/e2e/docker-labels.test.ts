/** dualport --docker beside a real dockerd: labels, what becomes of containers, and what becomes of dockerd. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { formatAddress } from '../../src/net/address.ts';
import { decode } from '../../src/proxy-protocol/codec.ts';
import { until } from '../engine/harness.ts';
import {
  type Dockerd,
  type DockerdOptions,
  bridge as gateway,
  type RunOptions,
  startDockerd,
} from '../support/dockerd.ts';
import { tracesOf } from '../support/dockerd-traces.ts';
import { type Dualport, Stage } from '../support/dualport.ts';
import { addresses, openWorld, type World } from '../support/namespace.ts';
import type { Answer, Echo, Outcomes } from '../support/namespace-programs.ts';
import { client, curl } from '../support/namespace-traffic.ts';
import { main } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';
import { startSocketProxy } from '../support/socket-proxy.ts';

const options = { skip: skipUnless('root', 'netns', 'dockerd'), timeout: 110_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(tracesOf(process.pid), [], 'no trace was left behind'));
}

/** dockerd and dualport on the host of a world. */
class Yard {
  readonly stage: Stage;
  readonly world: World;
  readonly dockerd: Dockerd;
  readonly dualport: Dualport;

  static async open(t: TestContext, flags: readonly string[] = [], config?: DockerdOptions): Promise<Yard> {
    const stage = new Stage(t);
    const world = openWorld(stage);
    const dockerd = await startDockerd(stage, world.host, config);
    const dualport = await stage.dualport(world.host, [
      '--docker',
      '--docker-engine',
      dockerd.socket,
      ...flags,
    ]);
    return new Yard(stage, world, dockerd, dualport);
  }

  private constructor(stage: Stage, world: World, dockerd: Dockerd, dualport: Dualport) {
    this.stage = stage;
    this.world = world;
    this.dockerd = dockerd;
    this.dualport = dualport;
  }

  run(name: string, labels: Readonly<Record<string, string>>, options: RunOptions): Promise<unknown> {
    const words = Object.entries(labels).flatMap(([key, value]) => [
      '--label',
      `io.dualport.${key}=${value}`,
    ]);
    return this.dockerd.run(name, { ...options, args: [...words, ...(options.args ?? [])] });
  }

  /** Who answers the client over each family at this port, and what it says of who asked; '' for nobody. */
  async answers(port: number): Promise<readonly [v4: string, v6: string]> {
    const ask = async (host: string) =>
      (await curl(this.stage, this.world.client, `http://${host}:${port}/`)).body;
    return [await ask(addresses.host.v4), await ask(`[${addresses.host.v6}]`)];
  }

  /** Until this container answers there over both families. */
  async answered(port: number, name: string): Promise<void> {
    const deadline = performance.now() + 10_000;
    for (;;) {
      const answers = await this.answers(port);
      if (answers.every((body) => body.startsWith(`${name} was asked by `))) return;
      if (performance.now() > deadline)
        assert.fail(`${port}: ${answers.join()}; ${this.dualport.running.stdout}`);
    }
  }

  /** Until the container is asked by these addresses, for clients of IPv4 and of IPv6. */
  async answersFrom(port: number, expected: readonly string[]): Promise<readonly [v4: string, v6: string]> {
    const deadline = performance.now() + 20_000;
    for (;;) {
      const answers = await this.answers(port);
      if (expected.every((from, i) => answers[i]?.includes(` was asked by ${from} `))) return answers;
      if (performance.now() > deadline)
        assert.fail(`${port}: ${answers.join()} instead of ${expected.join()}`);
    }
  }

  /** What the log says of a container: what was refused, and what was published with a doubt. */
  async complaint(name: string): Promise<string> {
    const found = () => this.dualport.complaints.find(({ container }) => container === name);
    await until(() => found() !== undefined, `a word about ${name}: ${this.dualport.running.stdout}`);
    return String(found()?.['reason']);
  }

  /** Opens connections to a port of the host over IPv6 for a while. */
  keepAsking(port: number, ms: number): Promise<Outcomes> {
    return client<Outcomes>(this.stage, this.world.client, 'keepAsking', {
      host: addresses.host.v6,
      port,
      ms,
    });
  }
}

test('what labels ask for, with a real dockerd', options, async (t) => {
  const yard = await Yard.open(t);
  const { dockerd, stage, world } = yard;
  await dockerd.docker('network', 'create', '--subnet', '198.18.21.0/24', 'only4');
  await dockerd.docker(
    'network',
    'create',
    '--subnet',
    '198.18.22.0/24',
    '--ipv6',
    '--subnet',
    'fd00:22::/64',
    'lan',
  );

  await t.test('an IPv4-only container is there over IPv6', async () => {
    await yard.run(
      'old',
      { ports: '[::]:8080:80' },
      { listen: ['tcp 0.0.0.0 80'], args: ['--network', 'only4'] },
    );
    await yard.dualport.running.says('container published');
    const [v4, v6] = await yard.answers(8080);
    assert.equal(v4, '', 'nobody asked for IPv4');
    assert.match(v6, /^old was asked by 198\.18\.21\.1 /);
  });

  for (const [name, listen, port] of [
    ['both', ['tcp 0.0.0.0 80', 'tcp :: 80'], 8081],
    ['four', ['tcp 0.0.0.0 80'], 8082],
    ['six', ['tcp :: 80'], 8083],
  ] as const) {
    await t.test(
      `a dual-stack container with a program on ${listen.join(' and ')} answers both families`,
      async () => {
        await yard.run(name, { ports: `${port}:80` }, { listen });
        await yard.answered(port, name);
        // An address of a container that has just started is not there yet over IPv6; whoever comes first falls back.
        const [v4, v6] = await yard.answersFrom(port, [
          name === 'six' ? gateway.v6 : gateway.v4,
          name === 'four' ? gateway.v4 : gateway.v6,
        ]);
        assert.match(v4, new RegExp(`^${name} `));
        assert.match(v6, new RegExp(`^${name} `));
        assert.match(
          (await curl(stage, world.host, `http://[::1]:${port}/`)).body,
          new RegExp(`^${name} `),
          'from the host itself',
        );
      },
    );
  }

  await t.test('UDP, and a port by its long form', async () => {
    const labels = {
      'port.dns.target': '53',
      'port.dns.published': '5353',
      'port.dns.protocol': 'udp',
      'port.dns.host-ip': '::',
    };
    await yard.run('dns', labels, { listen: ['udp 0.0.0.0 53'] });
    await until(() => yard.dualport.running.stdout.includes('[::]:5353:53/udp'), 'it to be published');
    const echo = await client<Echo>(stage, world.client, 'udpAsk', { host: addresses.host.v6, port: 5353 });
    assert.match(echo.text, /^dns was asked by 198\.18\.7\.1 \d+\nhello$/);
    assert.equal(echo.from, addresses.host.v6);
  });

  await t.test(
    'a PROXY v2 header tells the container who the client is, because its label wants it',
    async () => {
      const command = ['nc', '-ll', '-p', '80', '-e', '/bin/busybox', 'head', '-c', '57'];
      await yard.run('told', { ports: '8084:80', source: 'proxy-v2' }, { command });
      await until(
        () => yard.dualport.running.stdout.includes('"rule":"8084:80/tcp","to"'),
        'it to be published',
      );
      const args = { host: addresses.host.v6, port: 8084, hex: Buffer.from('hello').toString('hex') };
      const { text } = await client<Answer>(stage, world.client, 'say', args);
      const bytes = Buffer.from(text, 'latin1');
      const decoded = decode(bytes, 'tcp');
      assert.ok(decoded.state === 'done', JSON.stringify(text));
      assert.equal(formatAddress(decoded.header.source?.address ?? new Uint8Array(16)), addresses.client.v6);
      assert.equal(bytes.subarray(decoded.length).toString(), 'hello');
    },
  );

  await t.test('a container of two networks is reached on the one its label names', async () => {
    const args = ['--network', 'only4'];
    const words = ['--label', 'io.dualport.ports=8085:80', '--label', 'io.dualport.network=lan', ...args];
    await dockerd.docker(
      'create',
      '--name',
      'two',
      '--hostname',
      'two',
      ...words,
      'dualport-test',
      '/program',
      'tcp',
      '0.0.0.0',
      '80',
    );
    await dockerd.docker('network', 'connect', 'lan', 'two');
    await dockerd.docker('start', 'two');
    await yard.answered(8085, 'two');
    assert.match((await yard.answers(8085))[1], / by 198\.18\.22\.1 /);
    await dockerd.docker('network', 'disconnect', 'lan', 'two');
    assert.match(
      await yard.complaint('two'),
      /^io\.dualport\.network: found "lan"; allowed: only4, which it is on$/,
    );
    assert.deepEqual(await yard.answers(8085), ['', '']);
    await dockerd.docker('network', 'connect', 'lan', 'two');
    await yard.answered(8085, 'two');
  });

  await t.test('a container in the network of another is reached there, until that one ends', async () => {
    const pod = await dockerd.run('pod', { listen: ['tcp 0.0.0.0 1'] });
    const args = ['--network', 'container:pod', '--label', 'io.dualport.ports=8086:80'];
    const side = [
      'run',
      '-d',
      '--name',
      'side',
      ...args,
      'dualport-test',
      '/program',
      'tcp',
      '0.0.0.0',
      '80',
    ];
    await dockerd.docker(...side);
    await yard.answered(8086, 'pod');
    await pod.remove();
    assert.deepEqual(await yard.answers(8086), ['', '']);
    assert.match(
      await yard.complaint('side'),
      /^network mode container:[0-9a-f]{64}: that container is not running$/,
    );
  });

  await t.test('what a label may not have is refused by name, and nobody else is touched', async () => {
    const command = ['sleep', '1000'];
    await yard.run('ssh', { ports: '22:22' }, { command });
    assert.match(
      await yard.complaint('ssh'),
      /found host port 22; allowed: 1024-2374, 2378-32767 \(--docker-ports\)$/,
    );
    await yard.run('thief', { ports: '8081:80' }, { command });
    assert.match(
      await yard.complaint('thief'),
      /is published already by "8081:80\/tcp" \(container both: io\.dualport\.ports\)/,
    );
    await yard.run('typo', { ports: '8090:80', alow: '10.0.0.0/8' }, { command });
    assert.match(
      await yard.complaint('typo'),
      /io\.dualport\.alow: found an unknown label; did you mean io\.dualport\.allow\?/,
    );
    await yard.run('hosty', { ports: '8090:80' }, { command, args: ['--network', 'host'] });
    assert.match(await yard.complaint('hosty'), /^network mode host: /);
    await yard.run('lonely', { ports: '8090:80' }, { command, args: ['--network', 'none'] });
    assert.match(await yard.complaint('lonely'), /^network mode none: /);
    await yard.run('twice', { ports: '8091:80' }, { command, publish: ['8091:80'] });
    assert.match(
      await yard.complaint('twice'),
      /another program holds this port.*; Docker itself publishes 0\.0\.0\.0:8091 for container twice/,
    );
    await yard.answered(8081, 'both');
  });

  await t.test('check prints what would be published, and why', async () => {
    const words = [main, 'check', '--docker', '--docker-engine', dockerd.socket];
    const { code, stdout, stderr } = await stage.run(world.host, process.execPath, words);
    assert.equal(code, 0, stderr);
    const rows = stdout.split('\n').map((row) => row.trim().split(/ {2,}/));
    assert.deepEqual(rows[0], ['CONTAINER', 'LISTEN', 'IPV4', 'IPV6', 'SOURCE', 'WHY']);
    const row = (name: string) => rows.find(([container]) => container === name)?.slice(1);
    const { v4, v6 } = JSON.parse(
      await dockerd.docker(
        'inspect',
        '-f',
        '{"v4":"{{.NetworkSettings.IPAddress}}","v6":"{{.NetworkSettings.GlobalIPv6Address}}"}',
        'both',
      ),
    );
    assert.deepEqual(row('both'), [
      '0.0.0.0:8081 [::]:8081',
      `${v4}:80`,
      `[${v6}]:80`,
      'none',
      'io.dualport.ports; network bridge',
    ]);
    assert.deepEqual(row('old')?.slice(0, 1), ['[::]:8080']);
    assert.deepEqual(row('old')?.[2], '-', 'it has no IPv6');
    assert.equal(row('told')?.[3], 'proxy-v2');
    assert.match(row('ssh')?.at(-1) ?? '', /^not published: io\.dualport\.ports: found host port 22/);
    assert.match(row('hosty')?.at(-1) ?? '', /^not published: network mode host/);
    const asJson = await stage.run(world.host, process.execPath, [...words, '--json']);
    const { containers } = JSON.parse(asJson.stdout);
    assert.deepEqual(
      containers.find((one: { container: string }) => one.container === 'four'),
      {
        container: 'four',
        published: true,
        rule: '8082:80/tcp',
        listen: ['0.0.0.0:8082', '[::]:8082'],
        ipv4: containers.find((one: { container: string }) => one.container === 'four').ipv4,
        ipv6: containers.find((one: { container: string }) => one.container === 'four').ipv6,
        source: 'none',
        why: 'io.dualport.ports; network bridge',
      },
    );
  });
});

test('what becomes of containers, with a real dockerd', options, async (t) => {
  const yard = await Yard.open(t);
  const { dockerd } = yard;
  const web = { listen: ['tcp 0.0.0.0 80'] };
  await dockerd.docker('network', 'create', '--subnet', '198.18.22.0/24', 'lan');

  await t.test('a port goes with its container, and comes back with it', async () => {
    await yard.run('web', { ports: '8080:80' }, web);
    await yard.answered(8080, 'web');
    await dockerd.docker('stop', '-t', '0', 'web');
    assert.deepEqual(await yard.answers(8080), ['', '']);
    await dockerd.docker('start', 'web');
    await yard.answered(8080, 'web');
    await dockerd.docker('restart', '-t', '0', 'web');
    await yard.answered(8080, 'web');
    await dockerd.docker('kill', 'web');
    assert.deepEqual(await yard.answers(8080), ['', '']);
    await dockerd.docker('rm', 'web');
  });

  await t.test('another container takes the port over at once, with other labels', async () => {
    await yard.run('web', { ports: '8080:80' }, web);
    await yard.answered(8080, 'web');
    for (let i = 1; i <= 3; i++) {
      await dockerd.docker('rm', '-f', i === 1 ? 'web' : `web${i - 1}`);
      await yard.run(`web${i}`, { ports: '8080:81,8181:81' }, { listen: ['tcp 0.0.0.0 81'] });
      await yard.answered(8080, `web${i}`);
      await yard.answered(8181, `web${i}`);
    }
    await dockerd.docker('rm', '-f', 'web3');
    await until(
      () => yard.dualport.running.said('container no longer published').length >= 9,
      'all to be gone',
    );
    assert.deepEqual(await yard.answers(8181), ['', '']);
    assert.deepEqual(
      yard.dualport.complaints.filter(({ level }) => level === 'error'),
      [],
    );
  });

  await t.test('nobody is led to a stranger that has the address next', async () => {
    const address = ['--network', 'lan', '--ip', '198.18.22.9'];
    await dockerd.docker(
      'create',
      '--name',
      'stranger',
      '--hostname',
      'stranger',
      ...address,
      'dualport-test',
      '/program',
      'tcp',
      '0.0.0.0',
      '80',
    );
    for (let round = 0; round < 3; round++) {
      await yard.run('web', { ports: '8080:80' }, { ...web, args: address });
      await yard.answered(8080, 'web');
      const asking = yard.keepAsking(8080, 4000);
      const before = yard.dualport.flows.length;
      await until(() => yard.dualport.flows.length > before + 20, 'clients to be there');
      // It has the address as soon as dockerd gives it away.
      const script = `docker -H unix://${dockerd.socket} rm -f web & until docker -H unix://${dockerd.socket} start stranger; do :; done; wait`;
      const child = spawn('sh', ['-c', script], {
        stdio: 'ignore',
        env: { PATH: process.env['PATH'], DOCKER_CONFIG: join(dockerd.directory, 'client') },
      });
      await once(child, 'exit');
      const outcomes = await asking;
      assert.ok((outcomes['web'] ?? 0) > 10, JSON.stringify(outcomes));
      assert.ok((outcomes['ECONNREFUSED'] ?? 0) > 10, JSON.stringify(outcomes));
      assert.equal(outcomes['stranger'], undefined, JSON.stringify(outcomes));
      await dockerd.docker('stop', '-t', '0', 'stranger');
    }
  });
});

test(
  'what becomes of dockerd: ports work while it is away, and are right when it is back',
  options,
  async (t) => {
    const yard = await Yard.open(t, [], { config: { 'live-restore': true } });
    const { dockerd } = yard;
    await yard.run('web', { ports: '8080:80' }, { listen: ['tcp 0.0.0.0 80'] });
    await yard.run('gone', { ports: '8081:80' }, { listen: ['tcp 0.0.0.0 80'] });
    await yard.answered(8080, 'web');
    await yard.answered(8081, 'gone');
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      const asking = yard.keepAsking(8080, 4000);
      await dockerd.stop(signal);
      await until(() => yard.dualport.complaints.length > 0, 'the loss to be told');
      await yard.answered(8081, 'gone');
      await dockerd.start();
      const outcomes = await asking;
      assert.deepEqual(Object.keys(outcomes), ['web'], JSON.stringify(outcomes));
    }
    await dockerd.docker('rm', '-f', 'gone');
    await until(
      () => yard.dualport.running.said('container no longer published').length === 1,
      'the end to be heard of',
      15_000,
    );
    await yard.answered(8080, 'web');
  },
);

test('--docker-mirror publishes on IPv6 what Docker publishes on IPv4 only', options, async (t) => {
  const yard = await Yard.open(t, ['--docker-mirror', '--source', 'none']);
  const publish = ['0.0.0.0:80:80', '127.0.0.1:8081:80', `${addresses.host.v4}:8082:80`, '8083:80'];
  await yard.dockerd.run('web', { publish, listen: ['tcp 0.0.0.0 80'] });
  await until(
    () => yard.dualport.running.said('container published').length === 2,
    'two ports to be published',
  );
  assert.deepEqual(
    yard.dualport.running
      .said('container published')
      .map(({ rule }) => rule)
      .sort(),
    ['[::1]:8081:80/tcp', '[::]:80:80/tcp'],
  );
  assert.match((await yard.answers(80))[0], / by 198\.18\.1\.2 /, 'IPv4 stays with Docker');
  assert.match((await yard.answers(80))[1], /^web was asked by 198\.18\.7\.1 /);
  const { host } = yard.world;
  assert.match((await curl(yard.stage, host, 'http://[::1]:8081/')).body, /^web /);
  assert.deepEqual(yard.dualport.complaints, []);
});

for (const kind of ['a socket', 'TCP'] as const) {
  test(
    `four questions are all it asks: a socket proxy that lets no others through, on ${kind}`,
    options,
    async (t) => {
      const stage = new Stage(t);
      const world = openWorld(stage);
      const dockerd = await startDockerd(stage, world.host);
      const path = join(stage.directory(), 'proxy.sock');
      const proxy = await startSocketProxy(stage, path, dockerd.socket);
      if (kind === 'TCP')
        stage.start(world.host, 'socat', ['TCP-LISTEN:2375,fork,reuseaddr', `UNIX-CONNECT:${path}`]);
      const engine = kind === 'TCP' ? 'tcp://127.0.0.1:2375' : `unix://${path}`;
      const dualport = await stage.dualport(world.host, ['--docker-mirror', '--docker-engine', engine]);
      await dualport.running.says('following the containers of the Docker Engine');
      await dockerd.run('web', {
        listen: ['tcp 0.0.0.0 80'],
        args: ['--label', 'io.dualport.ports=8080:80'],
      });
      await dualport.running.says('container published');
      const answer = await curl(stage, world.client, `http://[${addresses.host.v6}]:8080/`);
      assert.match(answer.body, /^web /);
      await dockerd.docker('rm', '-f', 'web');
      await dualport.running.says('container no longer published');
      assert.deepEqual([...proxy.passed].sort(), [
        'GET /containers/json',
        'GET /events',
        'GET /networks',
        'GET /version',
      ]);
      assert.deepEqual([...proxy.refused], []);
    },
  );
}

test(
  'where no events come through, a connect that fails finds out that a container has gone',
  options,
  async (t) => {
    const stage = new Stage(t);
    const world = openWorld(stage);
    const dockerd = await startDockerd(stage, world.host);
    const path = join(stage.directory(), 'proxy.sock');
    await startSocketProxy(stage, path, dockerd.socket, { deaf: true });
    await dockerd.run('web', { listen: ['tcp 0.0.0.0 80'], args: ['--label', 'io.dualport.ports=8080:80'] });
    const dualport = await stage.dualport(world.host, [
      '--docker',
      '--docker-engine',
      path,
      '--connect-timeout',
      '1s',
    ]);
    await dualport.running.says('container published');
    const url = `http://${addresses.host.v4}:8080/`;
    assert.match((await curl(stage, world.client, url)).body, /^web /);
    await dockerd.docker('rm', '-f', 'web');
    assert.equal(dualport.running.said('container no longer published').length, 0, 'nobody has told');
    assert.notEqual((await curl(stage, world.client, url)).status, 0);
    const started = performance.now();
    await dualport.running.says('container no longer published');
    assert.ok(performance.now() - started < 10_000, 'not by the clock');
  },
);
