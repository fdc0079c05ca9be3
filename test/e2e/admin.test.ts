/** The admin address: what it shows, to whom, and how it starts and ends. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../engine/harness.ts';
import { freePort, freeRange, main, Running, runToEnd } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const directory = mkdtempSync(join(tmpdir(), 'dualport-admin-'));
const running: Running[] = [];
afterEach(async () => {
  for (const process of running.splice(0)) await process.end();
});
after(() => rmSync(directory, { recursive: true }));

async function ready(args: readonly string[]): Promise<Running> {
  const process = new Running(args);
  running.push(process);
  await process.says('ready');
  return process;
}

interface Answer {
  readonly code: number;
  readonly body: string;
  readonly headers: http.IncomingHttpHeaders;
}

function ask(options: http.RequestOptions): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.request({ agent: false, ...options }, (response) => {
      let body = '';
      response.on('data', (chunk) => (body += chunk));
      response.on('end', () => resolve({ code: response.statusCode ?? 0, body, headers: response.headers }));
    });
    request.on('error', reject).end();
  });
}

test('metrics are Prometheus text and count what happened', async () => {
  const [port, closed] = [await freePort(), await freePort()];
  const socketPath = join(directory, 'metrics.sock');
  await ready(['-p', `${port}:${closed}`, '-t', '127.0.0.1', '--admin', socketPath]);
  const client = net.connect(port, '127.0.0.1').on('error', () => {});
  await new Promise((resolve) => client.on('close', resolve));
  const { body, headers } = await ask({ socketPath, path: '/metrics' });
  assert.match(headers['content-type'] ?? '', /^text\/plain; version=0\.0\.4/);
  const rule = `rule="${port}:${closed}/tcp"`;
  assert.ok(body.includes(`dualport_flows_total{${rule},protocol="tcp"} 1\n`), body);
  assert.ok(body.includes(`dualport_upstream_connect_failures_total{${rule},reason="refused"} 1\n`));
  assert.match(body, /^dualport_build_info\{version="[^"]+",engine="linux",node="v\d+[^"]*"\} 1$/m);
  for (const line of body.trimEnd().split('\n')) {
    assert.match(
      line,
      /^(# (HELP|TYPE) dualport_\w+ .+|# (HELP|TYPE) process_\w+ .+|[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [\d.e+]+)$/,
    );
  }
});

test('every metric has its help and type once, directly before its samples', async () => {
  const port = await freeRange(3);
  const socketPath = join(directory, 'types.sock');
  await ready(['-p', `${port}-${port + 2}:80-82`, '-t', '198.18.0.1', '--admin', socketPath]);
  const { body } = await ask({ socketPath, path: '/metrics' });
  const seen = new Set<string>();
  let current = '';
  for (const line of body.trimEnd().split('\n')) {
    const [, name = ''] = /^(?:# (?:HELP|TYPE) )?([a-z_]+)/.exec(line) ?? [];
    if (line.startsWith('# HELP')) {
      assert.ok(!seen.has(name), name);
      seen.add(name);
      current = name;
    } else assert.equal(name, current);
  }
});

test('status, health and readiness answer, also in a drain', async () => {
  const port = await freePort();
  const socketPath = join(directory, 'health.sock');
  const server = net.createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const upstream = (server.address() as net.AddressInfo).port;
  const process = await ready(['-p', `${port}:${upstream}`, '-t', '127.0.0.1', '--admin', socketPath]);
  const client = net.connect(port, '127.0.0.1').on('error', () => {});
  await once(client, 'connect');
  assert.equal((await ask({ socketPath, path: '/livez' })).code, 200);
  assert.equal((await ask({ socketPath, path: '/readyz' })).code, 200);
  const status = JSON.parse((await ask({ socketPath, path: '/status' })).body);
  assert.equal(status.rules[0].flowsActive, 1);
  const shown = await runToEnd(['status', '--admin', socketPath]);
  assert.equal(shown.code, 0);
  assert.match(shown.stdout, /linux engine, ready[\s\S]*RULE +LISTEN[\s\S]*0\.0\.0\.0:/);
  process.signal('SIGTERM');
  await process.says('stopping');
  assert.equal((await ask({ socketPath, path: '/readyz' })).code, 503);
  assert.equal((await ask({ socketPath, path: '/livez' })).code, 200);
  assert.equal((await runToEnd(['status', '--admin', socketPath])).code, 1);
  client.destroy();
  assert.equal((await process.exit).code, 0);
  assert.equal(existsSync(socketPath), false, 'the socket file is gone');
  server.close();
});

test('a port alone is served on loopback only, and only to requests for a loopback host', async () => {
  const [port, admin] = [await freePort(), await freePort()];
  await ready(['-p', `${port}:80`, '-t', '198.18.0.1', '--admin', String(admin)]);
  for (const host of ['127.0.0.1', '::1']) {
    assert.equal((await ask({ host, port: admin, path: '/livez' })).code, 200);
    const foreign = await ask({ host, port: admin, path: '/status', headers: { host: 'evil.example' } });
    assert.equal(foreign.code, 403);
  }
  await assert.rejects(ask({ host: '127.0.0.2', port: admin, path: '/livez' }), { code: 'ECONNREFUSED' });
  assert.equal((await runToEnd(['status', '--admin', String(admin)])).code, 0);
});

test('nothing can be changed: other methods and paths are refused', async () => {
  const port = await freePort();
  const socketPath = join(directory, 'methods.sock');
  await ready(['-p', `${port}:80`, '-t', '198.18.0.1', '--admin', socketPath]);
  assert.equal((await ask({ socketPath, path: '/status', method: 'POST' })).code, 405);
  for (const path of ['/', '//status', '/status/..', '/%00', '/metrics?x=1']) {
    assert.equal((await ask({ socketPath, path })).code, 404, path);
  }
});

test('the socket is for owner and group; a stale one is replaced, a live one and a file never', async () => {
  const port = await freeRange(3);
  const socketPath = join(directory, 'stale.sock');
  const args = ['-p', `${port}:80`, '-t', '198.18.0.1', '--admin', socketPath];
  const first = await ready(args);
  assert.equal(statSync(socketPath).mode & 0o777, 0o660);
  const second = await runToEnd(['-p', `${port + 1}:80`, '-t', '198.18.0.1', '--admin', socketPath]);
  assert.equal(second.code, 1);
  assert.match(second.stderr, /another program listens there/);
  assert.equal((await ask({ socketPath, path: '/livez' })).code, 200);
  await first.end();
  await until(() => existsSync(socketPath), 'a stale socket file');
  await ready(args);
  assert.equal((await ask({ socketPath, path: '/livez' })).code, 200);
  const file = join(directory, 'a-file');
  writeFileSync(file, 'precious');
  const onFile = await runToEnd(['-p', `${port + 2}:80`, '-t', '198.18.0.1', '--admin', file]);
  assert.equal(onFile.code, 1);
  assert.match(onFile.stderr, /a-file: an ordinary file is there, which is not replaced; remove it/);
  assert.equal(readFileSync(file, 'utf8'), 'precious');
});

test('a path no socket can be made at is told of by what is there', async () => {
  const port = await freePort();
  const dangling = join(directory, 'a-link');
  symlinkSync('/nonexistent/there', dangling);
  for (const [path, says] of [
    ['./', /on \.\/: it is a folder; give the path of a socket in it$/m],
    [dangling, /something that is no socket is there/],
    ['/etc/passwd/a.sock', /\/etc\/passwd is no folder/],
    ['/nonexistent/a.sock', /the folder \/nonexistent does not exist; make it first/],
  ] as const) {
    const { code, stderr } = await runToEnd(['-p', `${port}:80`, '-t', '198.18.0.1', '--admin', path]);
    assert.equal(code, 1);
    assert.match(stderr, says);
  }
});

test('a folder this user may not write to is named, with what to do', {
  skip: skipUnless('root'),
}, async () => {
  const port = await freePort();
  const nobody = [
    'setpriv',
    '--reuid',
    '65534',
    '--regid',
    '65534',
    '--clear-groups',
    '--bounding-set',
    '-all',
  ];
  for (const path of ['/root/a.sock', '/etc/a.sock']) {
    const args = ['-p', `${port}:80`, '-t', '198.18.0.1', '--admin', path];
    const started = new Running(args, { command: [...nobody, process.execPath, main] });
    running.push(started);
    const { code, stderr } = await started.exit;
    assert.equal(code, 1);
    assert.match(
      stderr,
      /this user may not make a socket in the folder \/\w+; give a path in one that it may write to/,
    );
  }
});

test('clients that say nothing, or not all of it, keep nobody out for long', async () => {
  const socketPath = join(directory, 'slow.sock');
  const port = await freePort();
  await ready(['-p', `127.0.0.1:${port}:80`, '-t', '127.0.0.1', '--admin', socketPath]);
  const slow = Array.from({ length: 8 }, (_, i) => {
    const socket = net.connect(socketPath).on('error', () => {});
    if (i % 2 === 1) socket.write('GET /livez HTTP/1.1\r\nHost: ');
    return socket;
  });
  await Promise.all(slow.map((socket) => once(socket, 'connect')));
  const isAnswered = () =>
    ask({ socketPath, path: '/livez' }).then(
      ({ code }) => code === 200,
      () => false,
    );
  assert.equal(await isAnswered(), false, 'no more than these at once');
  const start = performance.now();
  while (!(await isAnswered()) && performance.now() - start < 15_000) await sleep(200);
  const waitedMs = performance.now() - start;
  for (const socket of slow) socket.destroy();
  assert.ok(waitedMs < 10_000, `${Math.round(waitedMs)} ms`);
});
