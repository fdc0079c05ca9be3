/** The package as it would be published: what is in it, and that it installs and runs. */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePort, Running, toolsAlone } from '../support/process.ts';
import { Registry } from '../support/registry.ts';
import { skipUnless } from '../support/requirements.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'dualport-package-'));
after(() => rmSync(directory, { recursive: true }));

const withCompilers = { skip: skipUnless('prebuild-tools') };

let packed: { filename: string; version: string; size: number; unpackedSize: number };
let paths: readonly string[] = [];

/** `npm pack` itself would build the program anew, which the tests beside this one are running. */
before(() => {
  if (withCompilers.skip === false) execFileSync('npm', ['run', '--silent', 'prepack'], { cwd: root });
  const pack = ['pack', '--ignore-scripts', '--json', '--pack-destination', directory];
  const [first] = JSON.parse(
    execFileSync('npm', pack, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
  );
  packed = first;
  paths = first.files.map(({ path }: { path: string }) => path);
  execFileSync('tar', ['xzf', join(directory, packed.filename), '-C', directory]);
});

test('the package holds the program and its documents, no tests, and runs as it is', () => {
  for (const path of ['dist/src/main.js', 'docs/options.md', 'docs/errors.md', 'README.md', 'LICENSE']) {
    assert.ok(paths.includes(path), path);
  }
  assert.deepEqual(
    paths.filter((path) => /test|bench|node_modules|\.([cht]|ts|map)$/.test(path)),
    [],
  );
  symlinkSync(join(root, 'node_modules'), join(directory, 'package', 'node_modules'));
  const program = join(directory, 'package', 'dist', 'src', 'main.js');
  assert.equal(
    execFileSync(process.execPath, [program, '--version'], { encoding: 'utf8' }),
    `${packed.version}\n`,
  );
});

test(
  'of native/ it holds a core for each platform, a launcher for each machine, and nothing else',
  withCompilers,
  () => {
    assert.deepEqual(paths.filter((path) => path.startsWith('native/')).sort(), [
      'native/prebuilds/linux-arm64-glibc/dualport.node',
      'native/prebuilds/linux-arm64-musl/docker-proxy',
      'native/prebuilds/linux-arm64-musl/dualport.node',
      'native/prebuilds/linux-x64-glibc/dualport.node',
      'native/prebuilds/linux-x64-musl/docker-proxy',
      'native/prebuilds/linux-x64-musl/dualport.node',
    ]);
  },
);

test('it is at most 400 kB to load and 1.2 MB on disk', () => {
  assert.ok(packed.size < 400_000, `${packed.size}`);
  assert.ok(packed.unpackedSize < 1_200_000, `${packed.unpackedSize}`);
});

test('nothing of ours runs when the package is installed', () => {
  const { scripts } = JSON.parse(readFileSync(join(directory, 'package', 'package.json'), 'utf8'));
  for (const script of ['preinstall', 'install', 'postinstall']) assert.equal(scripts[script], undefined);
  // npm runs node-gyp by itself where it sees one.
  assert.ok(!paths.includes('binding.gyp'));
});

/** Runs `npm install` of the archive in an empty folder. */
async function install(folder: string, env: NodeJS.ProcessEnv): Promise<void> {
  const registry = new Registry(join(root, 'node_modules'));
  await registry.open();
  // Without --prefix npm would install in the nearest folder above that has a node_modules.
  const options = [
    '--prefix',
    folder,
    '--registry',
    registry.url,
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
  ];
  try {
    await promisify(execFile)('npm', ['install', ...options, join(directory, packed.filename)], {
      cwd: folder,
      env,
    });
  } finally {
    registry.close();
  }
}

test(
  'installed as users do, without scripts, compiler and network, it relays with the Linux engine',
  withCompilers,
  async () => {
    const home = mkdtempSync(join(directory, 'home-'));
    const env = { HOME: home, PATH: toolsAlone(directory, ['sh', 'npm']) };
    await install(home, env);
    assert.equal(existsSync(join(home, 'node_modules', 'typescript')), false);
    const command = [join(home, 'node_modules', '.bin', 'dualport')];
    const check = await new Running(['check', '--engine', 'linux', '-p', '127.0.0.1:8080:80'], {
      command,
      env,
    }).exit;
    assert.equal(check.stderr, '');
    assert.equal(check.code, 0);
    assert.equal(await throughLinuxEngine(command, env), 'ping');
    const daemonJson = join(home, 'daemon.json');
    const words = ['install', 'docker-proxy', '--daemon-json', daemonJson];
    const installed = await new Running(words, { command, env }).exit;
    assert.equal(installed.stderr, '');
    const launcher = JSON.parse(readFileSync(daemonJson, 'utf8'))['userland-proxy-path'];
    assert.match(execFileSync(launcher, ['-v'], { encoding: 'utf8' }), /^docker-proxy .* version \d/);
  },
);

/** What comes back of a word that is sent to an echo server through this program. */
async function throughLinuxEngine(command: readonly string[], env: NodeJS.ProcessEnv): Promise<string> {
  const echo = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
  await once(echo, 'listening');
  const port = await freePort();
  const publish = `127.0.0.1:${port}:${(echo.address() as net.AddressInfo).port}`;
  const program = new Running(['--engine', 'linux', '-p', publish], { command, env });
  try {
    await program.says('ready');
    const client = net.connect(port, '127.0.0.1').end('ping');
    const [answer] = await once(client, 'data');
    return answer.toString();
  } finally {
    await program.end();
    echo.close();
  }
}

test('the lockfile names no registry', () => {
  assert.doesNotMatch(readFileSync(join(root, 'package-lock.json'), 'utf8'), /"resolved"/);
});
