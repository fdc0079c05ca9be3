/** The running service: start, reload, signals, logs. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../engine/harness.ts';
import { freePort, freeRange, main, Running, runToEnd } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const directory = mkdtempSync(join(tmpdir(), 'dualport-serve-'));
const running: Running[] = [];
let echo: net.Server;
let echoPort = 0;

before(async () => {
  echo = net.createServer({ allowHalfOpen: true }, (socket) => socket.on('error', () => {}).pipe(socket));
  echo.listen(0, '127.0.0.1');
  await once(echo, 'listening');
  echoPort = (echo.address() as net.AddressInfo).port;
});
afterEach(async () => {
  for (const process of running.splice(0)) await process.end();
});
after(() => {
  echo.close();
  rmSync(directory, { recursive: true });
});

function start(args: readonly string[], options?: ConstructorParameters<typeof Running>[1]): Running {
  const process = new Running(args, options);
  running.push(process);
  return process;
}

async function ready(args: readonly string[]): Promise<Running> {
  const process = start(args);
  await process.says('ready');
  return process;
}

/** One exchange over a new connection; rejects when it is refused or reset. */
async function exchange(port: number, host = '127.0.0.1', text = 'ping'): Promise<string> {
  const socket = net.connect({ port, host });
  let answer = '';
  socket.on('data', (chunk) => (answer += chunk));
  socket.end(text);
  await once(socket, 'close');
  return answer;
}

const refused = (port: number, host?: string) =>
  assert.rejects(exchange(port, host), { code: 'ECONNREFUSED' });

/** Replaces the file as an operator should: by a rename, never half written. */
function writeConfig(path: string, ports: readonly string[], more = ''): void {
  const list = ports.map((port) => JSON.stringify(port)).join(', ');
  writeFileSync(`${path}.new`, `publish:\n  - ports: [${list}]\n    to: [127.0.0.1]\n${more}`);
  renameSync(`${path}.new`, path);
}

function listeningPorts(): string {
  return spawnSync('ss', ['-Hlnt'], { encoding: 'utf8' }).stdout;
}

test('a port is published on both families, and the log says where', async () => {
  const port = await freePort();
  const process = await ready(['-p', `${port}:${echoPort}`, '-t', '127.0.0.1']);
  assert.equal(await exchange(port, '127.0.0.1'), 'ping');
  assert.equal(await exchange(port, '::1'), 'ping');
  assert.deepEqual((await process.says('listening'))['listen'], [`0.0.0.0:${port}`, `[::]:${port}`]);
});

test('a port left to the kernel is the same on both families', async () => {
  const process = await ready(['-p', `${echoPort}`, '-t', '127.0.0.1']);
  const listen = (await process.says('listening'))['listen'] as string[];
  const ports = listen.map((address) => address.slice(address.lastIndexOf(':') + 1));
  assert.equal(new Set(ports).size, 1);
  assert.equal(await exchange(Number(ports[0]), '::1'), 'ping');
});

test('of a range for one container port the first free one is taken', async () => {
  const first = await freeRange(21);
  const blocker = net.createServer().listen(first, '::');
  await once(blocker, 'listening');
  try {
    const process = await ready(['-p', `${first}-${first + 20}:${echoPort}`, '-t', '127.0.0.1']);
    const [address = ''] = (await process.says('listening'))['listen'] as string[];
    const port = Number(address.slice(address.lastIndexOf(':') + 1));
    assert.ok(port > first && port <= first + 20);
    assert.equal(await exchange(port), 'ping');
  } finally {
    blocker.close();
  }
});

test('the access log has one line per flow with addresses, families, bytes and the reason', async () => {
  const port = await freePort();
  const process = await ready(['-p', `${port}:${echoPort}`, '-t', '127.0.0.1', '--access-log']);
  await exchange(port, '::1', 'hello');
  const line = await process.says('flow ended');
  assert.equal(line['client.address'], '::1');
  assert.equal(line['network.type'], 'ipv6');
  assert.equal(line['network.transport'], 'tcp');
  assert.equal(line['server.address'], '127.0.0.1');
  assert.equal(line['server.port'], echoPort);
  assert.equal(line['dualport.upstream.type'], 'ipv4');
  assert.equal(line['dualport.fallback'], false);
  assert.equal(line['dualport.bytes.from_client'], 5);
  assert.equal(line['dualport.bytes.from_upstream'], 5);
  assert.equal(line['dualport.close_reason'], 'done');
  assert.ok(Number(line['dualport.duration']) >= 0);
  assert.equal(process.said('flow ended').length, 1);
});

test('failures are logged without an access log, and repeats are counted instead of written', async () => {
  const port = await freePort();
  const closed = await freePort();
  const process = await ready(['-p', `${port}:${closed}`, '-t', '127.0.0.1']);
  for (let i = 0; i < 50; i++) await exchange(port).catch(() => {});
  const line = await process.says('flow failed');
  assert.equal(line['dualport.close_reason'], 'connect-refused');
  assert.ok(process.said('flow failed').length <= 10);
  process.signal('SIGTERM');
  await process.exit;
  assert.equal(process.said('similar messages suppressed')[0]?.['suppressed'], 40);
});

test('a busy port ends the start with status 69, names it, and leaves nothing bound', async () => {
  const port = await freeRange(5);
  const blocker = net.createServer().listen(port + 2, '127.0.0.1');
  await once(blocker, 'listening');
  try {
    const { code, stderr, stdout } = await runToEnd([
      '-p',
      `${port}-${port + 4}:80-84`,
      '-t',
      '127.0.0.1',
      '--drain-timeout',
      '0',
    ]);
    assert.equal(code, 69);
    assert.match(stderr, new RegExp(`tcp 0\\.0\\.0\\.0:${port + 2}: another program holds this port`));
    assert.doesNotMatch(stdout, /ready/);
  } finally {
    blocker.close();
  }
  for (const left of [port, port + 1, port + 3, port + 4]) await refused(left);
});

test('a second start on the same port fails and does not disturb the first', async () => {
  const port = await freePort();
  await ready(['-p', `${port}:${echoPort}`, '-t', '127.0.0.1']);
  const { code } = await runToEnd(['-p', `${port}:${echoPort}`, '-t', '127.0.0.1']);
  assert.equal(code, 69);
  assert.equal(await exchange(port), 'ping');
});

test('an address the host does not have is named with advice', async () => {
  const { code, stderr } = await runToEnd(['-p', '203.0.113.77:8080:80', '-t', '127.0.0.1']);
  assert.equal(code, 75);
  assert.match(stderr, /tcp 203\.0\.113\.77:8080.*ip address.*nonlocal_bind/);
});

test('an interface the host does not have is named, by either engine', async () => {
  for (const engine of ['auto', 'portable']) {
    const args = ['-p', '[fe80::1%nosuch]:8080:80', '-t', '127.0.0.1', '--engine', engine];
    const { code, stderr } = await runToEnd(args);
    assert.equal(code, 75);
    assert.match(stderr, /tcp \[fe80::1%nosuch\]:8080: this host has no interface "nosuch"/);
  }
});

test('a low port without the privilege is named with the capability and the sysctl', {
  skip: skipUnless('root'),
}, async () => {
  const command = [
    'setpriv',
    '--reuid',
    '65534',
    '--regid',
    '65534',
    '--clear-groups',
    '--bounding-set',
    '-all',
    process.execPath,
    main,
  ];
  const { code, stderr } = await start(['-p', '81:80', '-t', '127.0.0.1'], { command }).exit;
  assert.equal(code, 77);
  assert.match(
    stderr,
    /tcp 0\.0\.0\.0:81: ports below 1024.*CAP_NET_BIND_SERVICE.*net\.ipv4\.ip_unprivileged_port_start/,
  );
});

test('a name is looked up, and both of its families are used', async () => {
  const port = await freePort();
  const process = await ready(['-p', `[::1]:${port}:${echoPort}`, '-t', 'localhost']);
  assert.ok(((await process.says('listening'))['to'] as string[]).includes(`127.0.0.1:${echoPort}`));
  assert.equal(await exchange(port, '::1'), 'ping');
});

test('a name that does not resolve does not stop the start; its clients are reset', async () => {
  const port = await freePort();
  const process = await ready(['-p', `${port}:80`, '-t', 'no-such-host.invalid']);
  assert.equal((await process.says('upstream name does not resolve'))['name'], 'no-such-host.invalid');
  await assert.rejects(exchange(port), { code: 'ECONNRESET' });
});

test('SIGHUP opens, closes and changes rules; flows and unchanged listeners stay', async () => {
  const [kept, old, fresh] = [await freePort(), await freePort(), await freePort()];
  const path = join(directory, 'reload.yaml');
  writeConfig(path, [`${kept}:${echoPort}`, `${old}:${echoPort}`]);
  const process = await ready(['-c', path]);
  const flow = net.connect(old, '127.0.0.1');
  await once(flow, 'connect');
  const inode = () =>
    spawnSync('ss', ['-Hlnte', `sport = :${kept}`], { encoding: 'utf8' }).stdout.match(/ino:\d+/g);
  const before = inode();
  writeConfig(path, [`${kept}:${echoPort}`, `${fresh}:${echoPort}`], '    deny: [198.18.0.0/15]\n');
  process.signal('SIGHUP');
  await process.says('configuration reloaded');
  await refused(old);
  assert.equal(await exchange(fresh), 'ping');
  assert.equal(await exchange(kept), 'ping');
  assert.deepEqual(inode(), before, 'the very same sockets');
  flow.end('still');
  assert.equal(String((await once(flow, 'data'))[0]), 'still');
});

test('a rule that takes over the address of one that goes is opened in its place', async () => {
  const port = await freePort();
  const path = join(directory, 'takeover.yaml');
  writeConfig(path, [`${port}:${echoPort}`]);
  const process = await ready(['-c', path]);
  writeConfig(path, [`127.0.0.1:${port}:${echoPort}`]);
  process.signal('SIGHUP');
  await process.says('configuration reloaded');
  assert.equal(await exchange(port), 'ping');
  await refused(port, '::1');
});

test('whatever is wrong with a new configuration, the old one stays in force as a whole', async () => {
  const [port, other, busy] = [await freePort(), await freePort(), await freePort()];
  const blocker = net.createServer().listen(busy, '127.0.0.1');
  await once(blocker, 'listening');
  const path = join(directory, 'broken.yaml');
  writeConfig(path, [`${port}:${echoPort}`]);
  const process = await ready(['-c', path]);
  const broken = [
    () => writeFileSync(path, 'publish: ['),
    () => writeFileSync(path, ''),
    () => writeFileSync(path, 'publsih: []'),
    () => writeConfig(path, ['99999:80']),
    () => writeConfig(path, [`${other}:80`, `${other}:81`]),
    () => writeConfig(path, [`${other}:${echoPort}`], '    allow: [10.0.0.1/8]\n'),
    // Opens one port, must give it back when the next one is busy; then closes the running one, and opens it again.
    () => writeConfig(path, [`${other}:${echoPort}`, `127.0.0.1:${busy}:${echoPort}`]),
    () => rmSync(path),
  ];
  try {
    for (const [i, breakIt] of broken.entries()) {
      breakIt();
      process.signal('SIGHUP');
      await process.says('configuration not reloaded: the old one stays in force', i + 1);
      assert.equal(await exchange(port), 'ping', `after ${breakIt}`);
      assert.equal(await exchange(port, '::1'), 'ping');
      await refused(other);
    }
  } finally {
    blocker.close();
  }
});

test('rules whose programs see every client under one address are told of once, with the remedy', async () => {
  const port = await freeRange(2);
  const path = join(directory, 'hiding.yaml');
  const told = () => process.said('programs see every client under one address');
  writeConfig(path, [`${port}:25`, `[::1]:${port + 1}:25`]);
  const process = await ready(['-c', path]);
  assert.deepEqual(
    told().map(({ level, rules }) => [level, rules]),
    [['warn', [`${port}:25/tcp`]]],
  );
  assert.match(String(told()[0]?.['advice']), /open relay.*--source proxy-v2.*--allow/);
  writeConfig(path, [`${port}:25`, `${port + 1}:25`]);
  process.signal('SIGHUP');
  await process.says('configuration reloaded');
  assert.deepEqual(told()[1]?.['rules'], [`${port + 1}:25/tcp`], 'only what is new');
  writeConfig(path, [`${port}:25`, `${port + 1}:25`], '    source: none\n');
  process.signal('SIGHUP');
  await process.says('configuration reloaded', 2);
  assert.equal(told().length, 2);
});

test('a storm of SIGHUP under load fails no connection', async () => {
  const port = await freePort();
  const path = join(directory, 'storm.yaml');
  writeConfig(path, [`${port}:${echoPort}`]);
  const process = await ready(['-c', path]);
  let done = false;
  let exchanges = 0;
  const storm = (async () => {
    for (let i = 0; i < 100 || (exchanges < 100 && i < 3000); i++) {
      writeConfig(
        path,
        i % 2 === 0 ? [`${port}:${echoPort}`] : ['broken'],
        i % 4 === 0 ? '    deny: [203.0.113.0/24]\n' : '',
      );
      process.signal('SIGHUP');
      await sleep(10);
    }
    done = true;
  })();
  while (!done) {
    assert.equal(await exchange(port, exchanges % 2 === 0 ? '127.0.0.1' : '::1'), 'ping');
    exchanges++;
  }
  await storm;
  assert.ok(exchanges >= 100, `${exchanges} exchanges`);
  assert.ok(process.said('configuration reloaded').length > 0);
  assert.equal(process.stderr, '', 'no warning of Node either');
});

test('SIGTERM refuses new connections, lets flows end, and exits 0', async () => {
  const port = await freePort();
  const process = await ready(['-p', `${port}:${echoPort}`, '-t', '127.0.0.1']);
  const flow = net.connect(port, '127.0.0.1');
  flow.write('one ');
  await once(flow, 'data');
  process.signal('SIGTERM');
  await process.says('stopping');
  await until(() => !listeningPorts().includes(`:${port} `), 'the closed listener');
  await refused(port);
  await sleep(300);
  flow.end('two');
  assert.equal(String((await once(flow, 'data'))[0]), 'two');
  assert.equal((await process.exit).code, 0);
  assert.equal(process.said('flows were cut at the end of the drain').length, 0);
});

test('the drain has an end, and what is left is reset', async () => {
  const port = await freePort();
  const process = await ready(['-p', `${port}:${echoPort}`, '-t', '127.0.0.1', '--drain-timeout', '500ms']);
  const flow = net.connect(port, '127.0.0.1').on('error', () => {});
  flow.write('x');
  await once(flow, 'data');
  const reset = new Promise((resolve) =>
    flow.once('error', (error: NodeJS.ErrnoException) => resolve(error.code)),
  );
  const start = performance.now();
  process.signal('SIGINT');
  assert.equal((await process.exit).code, 0);
  const ms = performance.now() - start;
  assert.ok(ms > 450 && ms < 3000, `${ms} ms`);
  assert.equal(await reset, 'ECONNRESET');
});

test('a second signal ends the drain at once', async () => {
  const port = await freePort();
  const process = await ready(['-p', `${port}:${echoPort}`, '-t', '127.0.0.1', '--drain-timeout', '30s']);
  const flow = net.connect(port, '127.0.0.1').on('error', () => {});
  flow.write('x');
  await once(flow, 'data');
  process.signal('SIGTERM');
  await process.says('stopping');
  const start = performance.now();
  process.signal('SIGTERM');
  assert.equal((await process.exit).code, 0);
  assert.ok(performance.now() - start < 1000);
});

test('SIGUSR1 logs the status and opens no inspector', async () => {
  const port = await freePort();
  const process = await ready(['-p', `${port}:${echoPort}`, '-t', '127.0.0.1']);
  process.signal('SIGUSR1');
  const { status } = await process.says('status');
  assert.equal((status as { rules: unknown[] }).rules.length, 1);
  await sleep(100);
  assert.doesNotMatch(listeningPorts(), /:9229 /);
  assert.equal(process.stderr, '');
});

test('a reader of the log that stands still or goes away stops neither connections nor the end', async () => {
  for (const leaves of [false, true]) {
    const port = await freePort();
    const process = await ready(['-p', `${port}:${echoPort}`, '-t', '127.0.0.1', '--access-log']);
    process.child.stdout?.pause();
    for (let i = 0; i < 600; i++) assert.equal(await exchange(port), 'ping');
    if (leaves) process.child.stdout?.destroy();
    for (let i = 0; i < 20; i++) assert.equal(await exchange(port), 'ping');
    process.signal('SIGTERM');
    await until(() => process.child.exitCode === 0, 'the end', 2000);
  }
});

test('with an access log every refused connection has its line', async () => {
  const port = await freePort();
  const process = await ready([
    '-p',
    `${port}:${echoPort}`,
    '-t',
    '127.0.0.1',
    '--access-log',
    '--deny',
    '127.0.0.0/8',
  ]);
  for (let i = 0; i < 40; i++) await exchange(port).catch(() => {});
  await process.says('flow failed', 40);
});

test('what becomes of UDP is logged too: a refusing upstream, and a peer that is not trusted', async () => {
  const [port, trusted, closed] = [await freePort(), await freePort(), await freePort()];
  const path = join(directory, 'udp.yaml');
  writeFileSync(
    path,
    `publish:
  - {ports: "127.0.0.1:${port}:${closed}/udp", to: 127.0.0.1, udpTimeout: 500ms}
  - {ports: "127.0.0.1:${trusted}:${closed}/udp", to: 127.0.0.1, acceptProxy: 198.18.0.0/15}
`,
  );
  const process = await ready(['-c', path]);
  const socket = dgram.createSocket('udp4');
  socket.send('hello', port, '127.0.0.1');
  socket.send('hello', trusted, '127.0.0.1');
  await process.says('flow failed', 2);
  socket.close();
  const reasons = process.said('flow failed').map((line) => line['dualport.close_reason']);
  assert.deepEqual(new Set(reasons), new Set(['connect-refused', 'header-untrusted']));
});

test('a refused reload leaves a rule with a name as it was, also after its port was given up for a moment', async () => {
  const [port, busy] = [await freePort(), await freePort()];
  const blocker = net.createServer().listen(busy, '127.0.0.1');
  await once(blocker, 'listening');
  const path = join(directory, 'name.yaml');
  const rule = (host: string, container: number) =>
    `  - {ports: "127.0.0.1:${port}:${container}", to: ${host}}\n`;
  writeFileSync(path, `publish:\n${rule('localhost', echoPort)}`);
  const process = await ready(['-c', path]);
  try {
    writeFileSync(
      path,
      `publish:\n${rule('127.0.0.1', echoPort + 1)}  - {ports: "127.0.0.1:${busy}:80", to: 198.18.0.1}\n`,
    );
    process.signal('SIGHUP');
    await process.says('configuration not reloaded: the old one stays in force');
    assert.equal(await exchange(port), 'ping');
  } finally {
    blocker.close();
  }
});

test('the drain timeout of a reloaded file is the one that counts', async () => {
  const port = await freePort();
  const path = join(directory, 'drain.yaml');
  writeConfig(path, [`${port}:${echoPort}`]);
  const process = await ready(['-c', path]);
  writeFileSync(path, `drainTimeout: 300ms\npublish:\n  - {ports: "${port}:${echoPort}", to: 127.0.0.1}\n`);
  process.signal('SIGHUP');
  await process.says('configuration reloaded');
  process.signal('SIGTERM');
  assert.equal((await process.says('stopping'))['drainMs'], 300);
});

test('a SIGHUP that comes while dualport starts is not lost', async () => {
  const port = await freePort();
  const path = join(directory, 'early.yaml');
  // The name keeps the start busy for a while.
  writeFileSync(
    path,
    `publish:\n  - {ports: "${port}:${echoPort}", to: [127.0.0.1, no-such-host.invalid]}\n`,
  );
  const process = start(['-c', path]);
  const handled = () =>
    /^SigCgt:\t[0-9a-f]*[13579bdf]$/m.test(readFileSync(`/proc/${process.child.pid}/status`, 'utf8'));
  await until(handled, 'the handler of SIGHUP, which is signal 1');
  const storm = setInterval(() => process.signal('SIGHUP'), 5);
  await process.says('ready').finally(() => clearInterval(storm));
  await process.says('configuration reloaded');
  assert.equal(await exchange(port), 'ping');
});

test('more ports than files may be open is refused with the remedy', async () => {
  const port = await freeRange(300);
  const command = ['prlimit', '--nofile=256', globalThis.process.execPath, main];
  const { code, stderr } = await start(['-p', `${port}-${port + 299}:20000-20299`, '-t', '198.18.0.1'], {
    command,
  }).exit;
  assert.equal(code, 1);
  assert.match(stderr, /ulimit -n.*LimitNOFILE/);
});

test('a switch of the environment can be turned off by a flag', async () => {
  const { stdout } = await runToEnd(
    ['check', '--json', '-p', '80:80', '-t', '10.0.0.1', '--access-log=false'],
    {
      DUALPORT_ACCESS_LOG: 'true',
    },
  );
  assert.equal(JSON.parse(stdout).accessLog, false);
});
