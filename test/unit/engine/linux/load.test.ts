/** Which native core is taken, and what is said when there is none. */
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadFrom, type Machine, thisMachine } from '../../../../src/engine/linux/load.ts';
import { skipUnless, skipWithoutCore } from '../../../support/requirements.ts';

const directory = mkdtempSync(join(tmpdir(), 'dualport-load-'));
after(() => rmSync(directory, { recursive: true }));

const core = fileURLToPath(new URL('../../../../../native/build/dualport.node', import.meta.url));
const x64: Machine = { platform: 'linux', arch: 'x64', libc: 'glibc' };

/** A folder native/ with these files, which cannot be loaded: what is said of them names the one that was tried. */
function folderWith(...names: readonly string[]): string {
  const folder = mkdtempSync(join(directory, 'native-'));
  for (const name of names) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), 'not a core');
  }
  return folder;
}

function reason(folder: string, machine: Machine): string {
  const loaded = loadFrom(folder, machine);
  assert.ok('reason' in loaded);
  return loaded.reason;
}

const prebuilt = (name: string) => `prebuilds/${name}/dualport.node`;
const all = ['linux-x64-glibc', 'linux-x64-musl', 'linux-arm64-glibc', 'linux-arm64-musl'].map(prebuilt);

for (const arch of ['x64', 'arm64']) {
  for (const libc of ['glibc', 'musl'] as const) {
    test(`linux, ${arch}, ${libc}: its own of the prebuilt cores is taken`, () => {
      const folder = folderWith(...all);
      const path = join(folder, prebuilt(`linux-${arch}-${libc}`));
      const said = reason(folder, { platform: 'linux', arch, libc });
      assert.ok(said.startsWith(`its native part ${path} cannot be loaded: `), said);
    });
  }
}

test('what the checkout has built comes before what is prebuilt', () => {
  const folder = folderWith('build/dualport.node', ...all);
  const said = reason(folder, x64);
  assert.ok(said.startsWith(`its native part ${join(folder, 'build/dualport.node')} cannot`), said);
});

test('a checkout that has not built it says how to', () => {
  const folder = folderWith('Makefile');
  assert.equal(reason(folder, x64), `its native part is not built (make -C ${folder})`);
});

test('a package without a core for this machine says what it has, and what else can be done', () => {
  const folder = folderWith(...all);
  assert.equal(
    reason(folder, { platform: 'linux', arch: 'riscv64', libc: 'musl' }),
    'this package has no native part for linux-riscv64-musl, only for linux-arm64-glibc, linux-arm64-musl, ' +
      'linux-x64-glibc, linux-x64-musl (npm ci in a checkout builds one, with gcc and make)',
  );
});

test('a package that was made without any core says so', () => {
  assert.equal(
    reason(folderWith(), x64),
    'this package has no native part at all (npm ci in a checkout builds one, with gcc and make)',
  );
});

test('elsewhere than on Linux nothing is looked for', () => {
  const folder = folderWith(...all);
  assert.equal(reason(folder, { ...x64, platform: 'darwin' }), 'it runs on Linux, and this is darwin');
});

test('a core that fits is loaded', { skip: skipWithoutCore() }, () => {
  const { arch, libc } = thisMachine();
  const folder = folderWith(prebuilt(`linux-${arch}-${libc}`));
  copyFileSync(core, join(folder, prebuilt(`linux-${arch}-${libc}`)));
  const loaded = loadFrom(folder, thisMachine());
  assert.ok('native' in loaded);
  assert.equal(typeof loaded.native.open, 'function');
});

test('the libc is the one that the report of Node tells, which takes too long to ask', {
  skip: skipUnless('linux'),
}, () => {
  const { header } = process.report.getReport() as unknown as { header: Record<string, unknown> };
  assert.equal(thisMachine().libc, 'glibcVersionRuntime' in header ? 'glibc' : 'musl');
});
