/** The cores that the package carries: built in a copy of native/, and held to what their machines have. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readSharedObject, type SharedObject } from '../support/elf.ts';
import { toolsAlone } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'dualport-prebuilds-'));
after(() => rmSync(directory, { recursive: true }));

interface Platform {
  readonly name: string;
  readonly machine: string;
  readonly libraries: RegExp;
  /** Debian's own file of that libc. */
  readonly libc: string;
}

const x64 = 'Advanced Micro Devices X86-64';
const arm64 = 'AArch64';
const glibc = /^libc\.so\.6( ld-linux-aarch64\.so\.1)?$/;
const musl = /^libc\.so$/;

const platforms: readonly Platform[] = [
  { name: 'linux-x64-glibc', machine: x64, libraries: glibc, libc: '/lib/x86_64-linux-gnu/libc.so.6' },
  { name: 'linux-x64-musl', machine: x64, libraries: musl, libc: '/lib/ld-musl-x86_64.so.1' },
  {
    name: 'linux-arm64-glibc',
    machine: arm64,
    libraries: glibc,
    libc: '/usr/aarch64-linux-gnu/lib/libc.so.6',
  },
  { name: 'linux-arm64-musl', machine: arm64, libraries: musl, libc: '/lib/ld-musl-aarch64.so.1' },
];

/** The sources of the core in a folder of their own. */
function copyOfSources(): string {
  const folder = mkdtempSync(join(directory, 'native-'));
  // The launcher tells its version.
  cpSync(join(root, 'package.json'), join(directory, 'package.json'));
  for (const name of readdirSync(join(root, 'native'))) {
    if (/^Makefile$|\.(c|h|sh)$/.test(name)) cpSync(join(root, 'native', name), join(folder, name));
  }
  return folder;
}

function make(folder: string, env: NodeJS.ProcessEnv = {}): { status: number | null; said: string } {
  const options = { encoding: 'utf8', env: { ...process.env, ...env } } as const;
  const { status, stderr } = spawnSync('make', ['-s', '-C', folder, 'prebuilds'], options);
  return { status, said: stderr };
}

const withCompilers = { skip: skipUnless('prebuild-tools') };
const built = copyOfSources();
const pathOf = (folder: string, name: string) => join(folder, 'prebuilds', name, 'dualport.node');
let cores: ReadonlyMap<string, SharedObject>;

before(() => {
  if (withCompilers.skip !== false) return;
  assert.deepEqual(make(built), { status: 0, said: '' });
  cores = new Map(platforms.map(({ name }) => [name, readSharedObject(pathOf(built, name))]));
});

function coreOf(name: string): SharedObject {
  const core = cores.get(name);
  assert.ok(core);
  return core;
}

for (const { name, machine, libraries } of platforms) {
  test(`${name}: its machine, its libc and no other library, stripped, at most 100 kB`, withCompilers, () => {
    const core = coreOf(name);
    assert.equal(core.class, 'ELF64');
    assert.equal(core.machine, machine);
    assert.match(core.libraries.join(' '), libraries);
    assert.ok(core.sections.includes('.text'));
    assert.deepEqual(
      core.sections.filter((section) => /^\.(symtab|debug|note\.gnu\.build-id)/.test(section)),
      [],
    );
    assert.ok(statSync(pathOf(built, name)).size < 100_000);
  });

  test(`${name}: no newer glibc than the 2.28 that Node 20 asks for`, withCompilers, () => {
    const { glibcVersions } = coreOf(name);
    assert.equal(glibcVersions.length > 0, name.endsWith('glibc'));
    const newer = glibcVersions.filter((version) => Number(version.split('.')[1]) > 28);
    assert.deepEqual(newer, []);
  });
}

test('what a core calls is in its libc, in Node or in libuv', withCompilers, () => {
  const node = readSharedObject(process.execPath).defined;
  for (const { name, libc } of platforms) {
    const { undefined: calls } = coreOf(name);
    assert.ok(calls.includes('epoll_wait') && calls.includes('uv_poll_init'));
    const { defined } = readSharedObject(libc);
    const nobodys = calls.filter((call) => !(/^(napi|uv)_/.test(call) ? node : defined).has(call));
    assert.deepEqual(nobodys, [], name);
  }
});

test('fewer cores have to be asked for, and then there are these only', withCompilers, () => {
  const folder = copyOfSources();
  mkdirSync(join(folder, 'prebuilds', 'linux-arm64-glibc'), { recursive: true });
  assert.deepEqual(make(folder, { PREBUILDS: 'linux-x64-glibc' }), { status: 0, said: '' });
  assert.deepEqual(readdirSync(join(folder, 'prebuilds')), ['linux-x64-glibc']);
  const [here, there] = [folder, built].map((each) => readFileSync(pathOf(each, 'linux-x64-glibc')));
  assert.ok(there && here?.equals(there), 'the same sources make the same bytes, wherever they lie');
  assert.equal(make(folder, { PREBUILDS: 'none' }).status, 0);
  assert.deepEqual(readdirSync(join(folder, 'prebuilds')), []);
});

const withMake = { skip: skipUnless('linux', 'gcc') };

test('cores that there are not are refused by name', withMake, () => {
  for (const wrong of ['linux-x64', 'linux-x64-glibc linux-x64', '']) {
    const { status, said } = make(copyOfSources(), { PREBUILDS: wrong });
    assert.notEqual(status, 0);
    const all = 'linux-x64-glibc linux-x64-musl linux-arm64-glibc linux-arm64-musl';
    assert.ok(said.startsWith(`PREBUILDS has to be none, or some of ${all}; found "${wrong}"\n`), said);
  }
});

test('prepack fails without the compilers, and names them and what to install', withMake, () => {
  const { status, stderr } = spawnSync('npm', ['run', '--silent', 'prepack'], {
    cwd: root,
    encoding: 'utf8',
    env: { HOME: directory, PATH: toolsAlone(directory, ['sh', 'make', 'npm']) },
  });
  assert.notEqual(status, 0);
  const compilers = 'x86_64-linux-gnu-gcc x86_64-linux-musl-gcc aarch64-linux-gnu-gcc aarch64-linux-musl-gcc';
  assert.ok(stderr.includes(`compilers that are not here: ${compilers}\n`), stderr);
  assert.match(stderr, /apt-get install .*gcc-aarch64-linux-gnu.* musl-dev:arm64\n/);
  assert.match(stderr, /PREBUILDS=none/);
});

test('a core that has swallowed its libc, or asks for a newer glibc, is refused', withCompilers, () => {
  const check = (libc: string, path: string) =>
    spawnSync('sh', [join(built, 'check-prebuild.sh'), libc, path], { encoding: 'utf8' });
  const swallowed = join(directory, 'swallowed.node');
  const newer = join(directory, 'newer.node');
  // dlopen moved into libc.so.6 in glibc 2.34.
  const source = '#include <dlfcn.h>\nvoid *f(void) { return dlopen("", 1); }\n';
  for (const [path, flag] of [
    [swallowed, '-nolibc'],
    [newer, '-lc'],
  ] as const) {
    const compiler = ['-shared', '-fPIC', '-x', 'c', '-', '-o', path, flag];
    assert.equal(spawnSync('x86_64-linux-gnu-gcc', compiler, { input: source }).status, 0);
  }
  assert.match(check('glibc', swallowed).stderr, /should need the libc of glibc alone: none\n$/);
  assert.match(check('glibc', newer).stderr, /needs glibc 2\.34; Node 20 runs on 2\.28/);
  assert.match(check('musl', newer).stderr, /should need the libc of musl alone: libc\.so\.6/);
  assert.equal(check('musl', pathOf(built, 'linux-x64-musl')).status, 0);
});
