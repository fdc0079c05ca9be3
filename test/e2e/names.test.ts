/** Upstream names: what happens when their addresses change while dualport runs. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { after, before, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { main, Running } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const skip = skipUnless('root', 'ip');
const namespace = `dpn${process.pid}`;
// `ip netns exec` lays the files of this folder over those in /etc, which gives the name its addresses.
const etc = `/etc/netns/${namespace}`;
const enter = ['ip', 'netns', 'exec', namespace];

function remove(): void {
  spawnSync('ip', ['netns', 'del', namespace]);
  rmSync(etc, { recursive: true, force: true });
  // Ours if it is empty; otherwise rmdir leaves it alone.
  spawnSync('rmdir', [dirname(etc)]);
}

before(() => {
  if (skip !== false) return;
  process.on('exit', remove);
  mkdirSync(etc, { recursive: true });
  writeFileSync(`${etc}/hosts`, '127.0.0.11 app\n');
  writeFileSync(`${etc}/resolv.conf`, 'nameserver 127.0.0.53\n');
  spawnSync('ip', ['netns', 'add', namespace]);
  spawnSync('ip', ['-n', namespace, 'link', 'set', 'lo', 'up']);
});
after(remove);

const servers = `
for (const host of ['127.0.0.11', '127.0.0.12'])
  require('node:net').createServer((socket) => socket.end(host)).listen(7000, host);
console.log(JSON.stringify({ msg: 'listening' }));`;

test('a name that moves takes new connections with it, and one that vanishes keeps its last address', {
  skip,
  timeout: 60_000,
}, async () => {
  const upstreams = new Running(['-e', servers], { command: [...enter, process.execPath] });
  const dualport = new Running(['-p', '[::1]:8080:7000', '-t', 'app', '--log-level', 'info'], {
    command: [...enter, process.execPath, main],
  });
  try {
    await upstreams.says('listening');
    await dualport.says('ready');
    assert.deepEqual((await dualport.says('listening'))['to'], ['127.0.0.11:7000']);
    assert.equal(await ask(), '127.0.0.11');
    writeFileSync(`${etc}/hosts`, '127.0.0.12 app\n');
    await eventually('127.0.0.12');
    writeFileSync(`${etc}/hosts`, '127.0.0.1 localhost\n');
    await new Promise((resolve) => setTimeout(resolve, 11_000));
    assert.equal(await ask(), '127.0.0.12');
  } finally {
    await dualport.end();
    await upstreams.end();
  }
});

const silentNameServer = `
const say = (msg) => console.log(JSON.stringify({ msg }));
require('node:dgram').createSocket('udp4').on('message', () => say('asked')).bind(53, '127.0.0.53', () => say('listening'));`;

test('a name server that does not answer keeps neither start nor stop waiting', {
  skip,
  timeout: 60_000,
}, async () => {
  const nameServer = new Running(['-e', silentNameServer], { command: [...enter, process.execPath] });
  const config = `${etc}/dualport.yaml`;
  const port = (n: number, name: string) => `  - {ports: "[::1]:${n}:7000", to: [127.0.0.1, ${name}]}\n`;
  writeFileSync(config, `publish:\n${port(8081, 'slow.example')}`);
  const launch = () => new Running(['-c', config], { command: [...enter, process.execPath, main] });
  const ends = async (dualport: Running, limitMs: number) => {
    const start = performance.now();
    dualport.signal('SIGTERM');
    assert.equal((await dualport.exit).code, 0);
    const ms = performance.now() - start;
    assert.ok(ms < limitMs, `ended after ${ms} ms`);
  };
  try {
    await nameServer.says('listening');
    const dualport = launch();
    const start = performance.now();
    await dualport.says('ready');
    assert.ok(performance.now() - start < 4500, 'the start');
    writeFileSync(config, `publish:\n${port(8081, 'slow.example')}${port(8082, 'slower.example')}`);
    dualport.signal('SIGHUP');
    await new Promise((resolve) => setTimeout(resolve, 300));
    await ends(dualport, 5000);
    const messages = dualport.lines.map(({ msg }) => msg);
    assert.ok(!messages.slice(messages.indexOf('stopping')).includes('listening'), messages.join(', '));
    const asked = nameServer.said('asked').length;
    const early = launch();
    await until(() => nameServer.said('asked').length > asked, 'a question');
    await ends(early, 5000);
    assert.equal(early.said('ready').length, 0);
  } finally {
    await nameServer.end();
  }
});

const client = `
const socket = require('node:net').connect(8080, '::1', () => {});
socket.on('data', (data) => process.stdout.write(data)).on('error', (error) => process.stdout.write(error.code));`;

async function ask(): Promise<string> {
  const { stdout } = await new Running(['-e', client], { command: [...enter, process.execPath] }).exit;
  return stdout;
}

async function eventually(answer: string): Promise<void> {
  let last = '';
  const poll = setInterval(() => void ask().then((text) => (last = text)), 500);
  await until(() => last === answer, `an answer from ${answer}`, 15_000).finally(() => clearInterval(poll));
}
