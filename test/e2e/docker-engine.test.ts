/** dualport --docker with an engine that is made up: how it starts, what it shows, and when it is asked for nothing. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import net from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { container, idOf, network } from '../support/docker-lists.ts';
import { Stage } from '../support/dualport.ts';
import { FakeEngine } from '../support/fake-engine.ts';
import { freePort, Running, runToEnd } from '../support/process.ts';

/** An engine that is not open yet, in a directory of its own. */
function place(t: TestContext): { directory: string; engine: FakeEngine; flags: readonly string[] } {
  const directory = new Stage(t).directory();
  const engine = new FakeEngine(join(directory, 'docker.sock'));
  engine.networks = [network('bridge', ['198.18.0.0/16'])];
  t.after(() => engine.close());
  return {
    directory,
    engine,
    flags: ['--docker', '--docker-engine', engine.socket, '--docker-ports', '1-65535'],
  };
}

async function start(t: TestContext, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Running> {
  const running = new Running(args, { env });
  t.after(() => running.end());
  await running.says('ready');
  return running;
}

const web = (port: number, more: Readonly<Record<string, string>> = {}) =>
  container('web', {
    labels: { 'io.dualport.ports': `127.0.0.1:${port}:80`, ...more },
    networks: { bridge: '198.18.0.2' },
  });

/** Is anybody listening there? */
async function listens(port: number): Promise<boolean> {
  const socket = net.connect(port, '127.0.0.1');
  const [open] = await Promise.race([
    once(socket, 'connect').then(() => [true]),
    once(socket, 'close').then(() => [false]),
  ]).catch(() => [false]);
  socket.destroy();
  return open === true;
}

async function page(socketPath: string, path: string): Promise<{ status: number; text: string }> {
  const [response] = await once(get({ socketPath, path, agent: false }), 'response');
  let text = '';
  for await (const chunk of response) text += chunk;
  return { status: response.statusCode, text };
}

test('rules of the configuration are served while the engine is not there, which is told once', async (t) => {
  const { engine, flags } = place(t);
  const [own, theirs] = [await freePort(), await freePort()];
  const running = await start(t, [...flags, '-p', `127.0.0.1:${own}:1`, '-t', '198.18.0.3']);
  const lost = 'Docker Engine not reached: it is tried again';
  assert.match(
    String((await running.says(lost))['reason']),
    /docker\.sock is not there: no such socket; start Docker/,
  );
  assert.equal(await listens(own), true);
  engine.containers = [web(theirs)];
  await engine.open();
  await running.says('container published');
  assert.equal(await listens(theirs), true);
  assert.equal(running.said(lost).length, 1);
});

test('metrics, health and status have what is followed', async (t) => {
  const { directory, engine, flags } = place(t);
  const admin = join(directory, 'admin.sock');
  const running = await start(t, [...flags, '--admin', admin]);
  assert.equal((await page(admin, '/readyz')).status, 503, 'nothing is served and nothing followed');
  assert.match((await page(admin, '/metrics')).text, /^dualport_docker_connected 0$/m);
  const port = await freePort();
  engine.containers = [web(port), container('bad', { labels: { 'io.dualport.prots': '1:1' } })];
  await engine.open();
  await running.says('container published');
  await running.says('container not published');
  assert.equal((await page(admin, '/readyz')).status, 200);
  const metrics = (await page(admin, '/metrics')).text;
  for (const line of [
    'dualport_docker_connected 1',
    'dualport_docker_rules 1',
    'dualport_docker_refused 1',
  ]) {
    assert.ok(metrics.includes(`\n${line}\n`), metrics);
  }
  assert.match(metrics, /^# TYPE dualport_docker_lists_total counter$/m);
  const { docker } = JSON.parse((await page(admin, '/status')).text);
  assert.deepEqual(
    [docker.connected, docker.rules, docker.containers, docker.version],
    [true, 1, 1, '28.0.0'],
  );
  const shown = await runToEnd(['status', '--admin', admin]);
  assert.equal(shown.code, 0);
  assert.match(
    shown.stdout,
    /^docker unix:\/\/.*: connected to Docker 28\.0\.0; 1 rules of 1 containers, 1 refused$/m,
  );
  assert.match(
    shown.stdout,
    /^ {2}bad: io\.dualport\.prots: found an unknown label; did you mean io\.dualport\.ports\?/m,
  );
  engine.containers = [];
  engine.emit({ Type: 'container', Action: 'die', id: idOf('web') });
  await running.says('container no longer published');
  assert.equal(
    (await page(admin, '/readyz')).status,
    200,
    'no container asks for a port, which is no trouble',
  );
});

test('SIGHUP changes what labels may ask for', async (t) => {
  const { directory, engine, flags } = place(t);
  const port = await freePort();
  const file = join(directory, 'd.yaml');
  const [docker = '', engineFlag = '', socket = ''] = flags;
  writeFileSync(file, 'dockerPorts: 1-65535\n');
  engine.containers = [web(port)];
  await engine.open();
  const running = await start(t, [docker, engineFlag, socket, '-c', file]);
  await running.says('container published');
  writeFileSync(file, 'dockerPorts: 1-1023\n');
  running.signal('SIGHUP');
  await running.says('container no longer published');
  assert.match(
    String((await running.says('container not published'))['reason']),
    /allowed: 1-1023 \(--docker-ports\)$/,
  );
  assert.equal(await listens(port), false);
  writeFileSync(file, 'dockerPorts: 1-65535\ndocker: false\nlogLevel: info\n');
  running.signal('SIGHUP');
  await running.says('container published', 2);
});

test('a drain is not held up by an engine that hangs', async (t) => {
  const { engine, flags } = place(t);
  const port = await freePort();
  engine.containers = [web(port)];
  await engine.open();
  const running = await start(t, flags);
  await running.says('container published');
  engine.faults.set('/containers/json', 'hang');
  engine.emit({ Type: 'container', Action: 'start', id: idOf('other') });
  await until(
    () => engine.asked.filter((line) => line.includes('/containers')).length >= 2,
    'the list that hangs',
  );
  const started = performance.now();
  running.signal('SIGTERM');
  assert.equal((await running.exit).code, 0);
  assert.ok(performance.now() - started < 5000);
});

test('DOCKER_HOST is where the engine is, and dockerode is not asked about it', async (t) => {
  const { engine, flags } = place(t);
  engine.containers = [web(await freePort())];
  await engine.open();
  const ports = flags.slice(3);
  const running = await start(t, ['--docker', ...ports], { DOCKER_HOST: `unix://${engine.socket}` });
  await running.says('container published');
  // dockerode would prefer this one, and would read certificates that are not there.
  const misleading = {
    DOCKER_HOST: 'tcp://127.0.0.1:1',
    DOCKER_CERT_PATH: '/nowhere',
    DOCKER_TLS_VERIFY: '1',
  };
  const told = await runToEnd(['check', ...flags], misleading);
  assert.equal(told.code, 0, told.stderr);
  assert.match(told.stdout, /^web +127\.0\.0\.1:\d+ +198\.18\.0\.2:80 /m);
});

test('check shows what no terminal should see as text', async (t) => {
  const { engine, flags } = place(t);
  engine.containers = [
    container('web', {
      labels: { 'io.dualport.network': '\u001b[2J\u202eon', 'io.dualport.ports': '8080:80' },
    }),
  ];
  await engine.open();
  const { stdout } = await runToEnd(['check', ...flags]);
  assert.match(
    stdout,
    /^web +- +- +- +- +not published: io\.dualport\.network: found "\\u001b\[2J\\u\{202e\}on"/m,
  );
  engine.containers = [];
  assert.equal((await runToEnd(['check', ...flags])).stdout, 'no container asks for a port\n');
});

test('check says what keeps it from the engine, and that it may be different later', async (t) => {
  const { engine, flags } = place(t);
  await engine.open();
  engine.faults.set('/networks', 'forbidden');
  const { code, stdout, stderr } = await runToEnd(['check', ...flags]);
  assert.deepEqual([code, stdout], [75, '']);
  assert.match(stderr, /^dualport: the Docker Engine at unix:\S+ answered GET \/networks with status 403/);
});

/** Files that a run of dualport has loaded, as V8 counts them for coverage. */
async function loaded(t: TestContext, args: readonly string[], until: string): Promise<string> {
  const directory = new Stage(t).directory();
  const running = await start(t, args, { NODE_V8_COVERAGE: directory });
  await running.says(until);
  running.signal('SIGTERM');
  assert.equal((await running.exit).code, 0);
  const [file = ''] = readdirSync(directory);
  return readFileSync(join(directory, file), 'utf8');
}

test('dockerode is loaded with --docker, and not without', async (t) => {
  const { engine, flags } = place(t);
  await engine.open();
  const without = await loaded(t, ['-p', `127.0.0.1:${await freePort()}:1`, '-t', '198.18.0.3'], 'ready');
  assert.match(without, /\/src\/cli\/containers\.js/, 'the files are there');
  assert.doesNotMatch(without, /node_modules\/(?:dockerode|docker-modem|ssh2|protobufjs)/);
  const withDocker = await loaded(t, flags, 'following the containers of the Docker Engine');
  assert.match(withDocker, /node_modules\/dockerode/);
});
