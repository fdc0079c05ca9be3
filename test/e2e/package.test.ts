/** The package as it would be published: what is in it, and that it runs. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'dualport-package-'));
after(() => rmSync(directory, { recursive: true }));

test('the package holds the program and its documents, no tests, and runs as it is', {
  timeout: 60_000,
}, () => {
  const pack = ['pack', '--ignore-scripts', '--json', '--pack-destination', directory];
  const [packed] = JSON.parse(
    execFileSync('npm', pack, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
  );
  const paths: string[] = packed.files.map(({ path }: { path: string }) => path);
  for (const path of ['dist/src/main.js', 'docs/options.md', 'docs/errors.md', 'README.md', 'LICENSE']) {
    assert.ok(paths.includes(path), path);
  }
  assert.deepEqual(
    paths.filter((path) => /test|bench|node_modules/.test(path)),
    [],
  );
  execFileSync('tar', ['xzf', join(directory, packed.filename), '-C', directory]);
  symlinkSync(join(root, 'node_modules'), join(directory, 'package', 'node_modules'));
  const program = join(directory, 'package', 'dist', 'src', 'main.js');
  assert.equal(
    execFileSync(process.execPath, [program, '--version'], { encoding: 'utf8' }),
    `${packed.version}\n`,
  );
});

test('nothing of ours runs when the package is installed', () => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  for (const script of ['preinstall', 'install', 'postinstall']) assert.equal(scripts[script], undefined);
});

test('the lockfile names no registry', () => {
  assert.doesNotMatch(readFileSync(join(root, 'package-lock.json'), 'utf8'), /"resolved"/);
});
