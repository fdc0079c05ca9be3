/** `dualport install docker-proxy` on a file of dockerd's, and with a dockerd that is started on it. */
import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { launcherPath } from '../support/docker-player.ts';
import { startDockerd } from '../support/dockerd.ts';
import { here, Stage } from '../support/dualport.ts';
import { openWorld } from '../support/namespace.ts';
import { curl } from '../support/namespace-traffic.ts';
import { type Exit, main, runToEnd } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const options = { skip: skipUnless('linux'), timeout: 60_000 };

/** A folder with a daemon.json, or without. */
class Folder {
  readonly path: string;
  readonly #stage: Stage;

  constructor(stage: Stage, text?: string) {
    this.#stage = stage;
    this.path = join(stage.directory(), 'daemon.json');
    if (text !== undefined) writeFileSync(this.path, text);
  }

  get text(): string | undefined {
    return existsSync(this.path) ? readFileSync(this.path, 'utf8') : undefined;
  }

  get others(): readonly string[] {
    return readdirSync(join(this.path, '..')).filter((name) => name !== 'daemon.json');
  }

  dualport(...args: readonly string[]): Promise<Exit> {
    return this.#stage.run(here, process.execPath, [main, ...args, '--daemon-json', this.path]);
  }

  install(...args: readonly string[]): Promise<Exit> {
    return this.dualport('install', 'docker-proxy', ...args);
  }

  uninstall(...args: readonly string[]): Promise<Exit> {
    return this.dualport('uninstall', 'docker-proxy', ...args);
  }
}

const plain = '{\n  "mtu": 1400\n}\n';
const installed = `{\n  "userland-proxy-path": "${launcherPath}",\n  "mtu": 1400\n}\n`;

test('the key comes in and goes again; each time the old file is kept', options, async (t) => {
  const folder = new Folder(new Stage(t), plain);
  chmodSync(folder.path, 0o600);
  const { code, stdout } = await folder.install();
  assert.equal(code, 0);
  assert.equal(folder.text, installed);
  assert.equal(statSync(folder.path).mode & 0o777, 0o600);
  const [backup] = folder.others;
  assert.match(backup ?? '', /^daemon\.json\.\d{8}T\d{6}Z\.bak$/);
  assert.equal(readFileSync(join(folder.path, '..', backup ?? ''), 'utf8'), plain);
  assert.match(stdout, /^\+ {3}"userland-proxy-path": ".*docker-proxy",$/m);
  assert.match(stdout, /The old file is kept as .*\.bak\./);
  assert.match(stdout, /Restart dockerd: systemctl restart docker\. A reload does not do\./);
  assert.match(stdout, /dockerd.* (takes the path as it is|checks? the path when)/);
  const again = await folder.install();
  assert.match(again.stdout, /is as it should be; nothing was changed\./);
  assert.match(again.stdout, /dockerd has to be restarted only if it has not been since the key was put in/);
  assert.doesNotMatch(again.stdout, /What is left to do|systemctl restart/);
  assert.equal(folder.others.length, 1);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const back = await folder.uninstall();
  assert.match(back.stdout, /^- {3}"userland-proxy-path"/m);
  assert.equal(folder.text, plain);
  assert.equal(folder.others.length, 2);
});

test('where there is nothing to take out nobody is told to restart dockerd', options, async (t) => {
  const { code, stdout } = await new Folder(new Stage(t), plain).uninstall();
  assert.equal(code, 0);
  assert.match(stdout, /daemon\.json has no userland-proxy-path; nothing was changed/);
  assert.match(stdout, /dockerd has to be restarted only if it has not been since the key was taken out/);
  assert.doesNotMatch(stdout, /What is left to do/);
});

test('--dry-run shows the same and changes nothing', options, async (t) => {
  const folder = new Folder(new Stage(t), plain);
  const { stdout } = await folder.install('--dry-run');
  assert.match(stdout, /^\+ {3}"userland-proxy-path"/m);
  assert.match(stdout, /nothing was \(--dry-run\)/);
  assert.deepEqual([folder.text, folder.others], [plain, []]);
  writeFileSync(folder.path, installed);
  assert.match((await folder.uninstall('--dry-run')).stdout, /^- {3}"userland-proxy-path"/m);
  assert.deepEqual([folder.text, folder.others], [installed, []]);
});

test('where there is no file one is made, and no backup', options, async (t) => {
  const folder = new Folder(new Stage(t));
  const { stdout } = await folder.install();
  assert.match(stdout, /There was no such file before\./);
  assert.deepEqual(JSON.parse(folder.text ?? ''), { 'userland-proxy-path': launcherPath });
  assert.deepEqual(folder.others, []);
});

test('a link stays a link', options, async (t) => {
  const stage = new Stage(t);
  const folder = new Folder(stage);
  const real = join(stage.directory(), 'real.json');
  writeFileSync(real, plain);
  symlinkSync(real, folder.path);
  assert.equal((await folder.install()).code, 0);
  assert.equal(readFileSync(real, 'utf8'), installed);
  assert.equal(folder.text, installed);
});

interface Bad {
  readonly what: string;
  readonly text: string;
  readonly args?: readonly string[];
  readonly says: RegExp;
}

const bad: readonly Bad[] = [
  {
    what: 'invalid JSON',
    text: '{ "mtu": }',
    says: /daemon\.json: it is not valid JSON \(.*\); dockerd would not start/,
  },
  { what: 'a list', text: '[]', says: /found no object; allowed: \{ "key": value/ },
  {
    what: 'a proxy that is switched off',
    text: '{"userland-proxy": false}',
    says: /userland-proxy is false.*set it to true/,
  },
  {
    what: 'a launcher that is not there',
    text: plain,
    args: ['--launcher', '/nonexistent'],
    says: /launcher \/nonexistent is not there; build it/,
  },
  {
    what: 'a launcher that is no program',
    text: plain,
    args: ['--launcher', '/etc/passwd'],
    says: /no program that can be run/,
  },
];

for (const { what, text, args = [], says } of bad) {
  test(`${what} is refused, and nothing is changed`, options, async (t) => {
    const folder = new Folder(new Stage(t), text);
    const { code, stderr } = await folder.install(...args);
    assert.equal(code, 78);
    assert.match(stderr, says);
    assert.deepEqual([folder.text, folder.others], [text, []]);
  });
}

test("a path that is not dualport's is replaced with notice, and never taken out", options, async (t) => {
  const text = '{"userland-proxy-path": "/opt/other/docker-proxy"}';
  const folder = new Folder(new Stage(t), text);
  const { code, stderr } = await folder.uninstall();
  assert.equal(code, 78);
  assert.match(stderr, /found userland-proxy-path "\/opt\/other\/docker-proxy", which is not dualport's/);
  assert.equal(folder.text, text);
  assert.match((await folder.install()).stdout, /It stood at \/opt\/other\/docker-proxy before\./);
});

test('a path that is empty is replaced like one that is not there', options, async (t) => {
  const folder = new Folder(new Stage(t), '{"userland-proxy-path": ""}');
  const { stdout } = await folder.install();
  assert.deepEqual(JSON.parse(folder.text ?? ''), { 'userland-proxy-path': launcherPath });
  assert.doesNotMatch(stdout, /It stood at/);
});

test('a folder that may not be written to is refused', {
  ...options,
  skip: skipUnless('root', 'netns'),
}, async (t) => {
  const stage = new Stage(t);
  const folder = new Folder(stage, plain);
  // Root may write to whatever is not read-only.
  const place = join(folder.path, '..');
  const readOnly = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"';
  const words = [main, 'install', 'docker-proxy', '--daemon-json', folder.path];
  const inside = { prefix: ['unshare', '--mount', 'sh', '-c', readOnly, place] };
  const { code, stderr } = await stage.run(inside, process.execPath, words);
  assert.equal(code, 78, stderr);
  assert.match(stderr, /this user may not write to .*; run it as root/);
  assert.deepEqual([folder.text, folder.others], [plain, []]);
});

test('what is missing or mistyped is said', options, async () => {
  const missing = await runToEnd(['install']);
  assert.deepEqual([missing.code, /missing required argument/.test(missing.stderr)], [2, true]);
  const wrong = await runToEnd(['install', 'docker']);
  assert.deepEqual([wrong.code, /Allowed choices are docker-proxy/.test(wrong.stderr)], [2, true]);
});

test('a dockerd that is restarted starts launchers, and docker-proxy again after the uninstall', {
  ...options,
  skip: skipUnless('root', 'netns', 'dockerd', 'curl', 'docker-proxy'),
}, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  const socket = join(stage.directory(), 'launchers.sock');
  const env = { DUALPORT_DOCKER_PROXY_SOCKET: socket };
  const dockerd = await startDockerd(stage, world.host, { env, config: { debug: false } });
  const words = (command: string) => [main, command, 'docker-proxy', '--daemon-json', dockerd.configFile];
  const say = (command: string) => stage.run(here, process.execPath, words(command));
  const place = { prefix: [...world.host.prefix, 'env', `DOCKER_HOST=unix://${dockerd.socket}`] };
  const running = stage.start(place, process.execPath, [main, '--docker-proxy-socket', socket]);
  await running.says('ready');
  const { stdout } = await say('install');
  assert.match(
    stdout,
    /dockerd 20\.10\.\d+ takes the path as it is: if nothing can be run there, it is docker run -p/,
  );
  await dockerd.restart();
  const web = await dockerd.run('web', {
    publish: ['8080:80'],
    listen: ['tcp 0.0.0.0 80'],
    args: ['--restart', 'always'],
  });
  assert.match((await curl(stage, world.host, 'http://[::1]:8080/')).body, /^web was asked by /);
  assert.equal(running.said('listening').length, 2);
  await say('uninstall');
  await dockerd.restart();
  await web.ready();
  assert.match((await curl(stage, world.host, 'http://127.0.0.1:8080/')).body, /^web was asked by /);
  assert.equal(running.said('listening').length, 2, 'no launcher has come since');
});

test('a dockerd that has the flag is refused the key, with which it would not start, and keeps what it has', {
  ...options,
  skip: skipUnless('root', 'netns', 'dockerd'),
}, async (t) => {
  const stage = new Stage(t);
  const dockerd = await startDockerd(stage, openWorld(stage).host, { proxyPath: launcherPath });
  const before = readFileSync(dockerd.configFile, 'utf8');
  const advice = {
    install: /dockerd does not start with both the flag and the key/,
    uninstall: /and no such key here: take the flag out there, and restart dockerd/,
  };
  for (const [command, says] of Object.entries(advice)) {
    const words = [main, command, 'docker-proxy', '--daemon-json', dockerd.configFile];
    const { code, stdout, stderr } = await stage.run(here, process.execPath, words);
    assert.deepEqual([code, stdout], [78, '']);
    assert.match(stderr, /found the flag --userland-proxy-path in the command line of the running dockerd/);
    assert.match(stderr, says);
  }
  assert.equal(readFileSync(dockerd.configFile, 'utf8'), before);
});
