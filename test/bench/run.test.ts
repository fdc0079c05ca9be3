/** The bench itself, run as its users run it: small runs that are cut short, lose a subject, lack a tool. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Results } from '../../bench/results.ts';
import { until } from '../engine/harness.ts';
import { Running } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const main = fileURLToPath(new URL('../../bench/main.js', import.meta.url));
const skip = skipUnless('root', 'netns', 'gcc', 'nginx-stream', 'wrk', 'iperf3');

interface Bench {
  readonly bench: Running;
  readonly folder: string;
}

function start(
  context: TestContext,
  words: string,
  { path = process.env['PATH'], before = [] as string[] } = {},
): Bench {
  const folder = mkdtempSync(join(tmpdir(), 'dualport-test-bench-'));
  const command = [...before, process.execPath, main];
  const bench = new Running([...words.split(' '), '--out', folder], { command, env: { PATH: path } });
  context.after(async () => {
    await bench.end();
    rmSync(folder, { recursive: true, force: true });
  });
  return { bench, folder };
}

function resultsIn(folder: string): Results {
  const files = readdirSync(folder);
  assert.deepEqual(files.map((name) => name.replace(/^.*\./, '')).sort(), ['html', 'json']);
  const name = files.find((file) => file.endsWith('.json')) ?? '';
  return JSON.parse(readFileSync(join(folder, name), 'utf8'));
}

function subjectsOf({ samples }: Results): readonly string[] {
  return samples.map(({ subject }) => subject);
}

/** Pids of everything below a process, by what /proc tells of parents. */
function descendants(pid: number): readonly number[] {
  const { stdout } = spawnSync('pgrep', ['-P', `${pid}`], { encoding: 'utf8' });
  const children = stdout.split('\n').filter(Boolean).map(Number);
  return [...children, ...children.flatMap(descendants)];
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

function namespacesOf({ child }: Running): readonly string[] {
  const { stdout } = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' });
  return stdout.split('\n').filter((line) => line.startsWith(`dualport-bench-${child.pid}-`));
}

/** Everything that runs while a load does. */
async function loading(bench: Running): Promise<readonly number[]> {
  let pids: readonly number[] = [];
  await until(
    () => {
      pids = descendants(bench.child.pid ?? 0);
      return pids.some((pid) => commandOf(pid).startsWith('wrk ')) || bench.child.exitCode !== null;
    },
    'a load',
    30_000,
  );
  return pids;
}

test('what is unknown ends it with the list of what is known', async () => {
  const { code, stderr } = await new Running(['--only', 'speed'], { command: [process.execPath, main] }).exit;
  assert.equal(code, 2);
  assert.match(stderr, /^bench: "speed" is no workload: there is bulk-1-down, .*start-up-100\n$/);
});

test('a folder that cannot be made is known before anything runs', async () => {
  const words = ['--only', 'requests-1', '--out', join(main, 'results')];
  const { code, stderr } = await new Running(words, { command: [process.execPath, main] }).exit;
  assert.equal(code, 1);
  assert.match(stderr, /^bench: ENOTDIR: .*main\.js\/results'\n$/);
});

test('Ctrl-C keeps what was measured, and leaves nothing behind', { skip }, async (context) => {
  const words = '--only requests-1 --subjects direct,nginx,dualport-portable --rounds 99';
  const { bench, folder } = start(context, words);
  await loading(bench);
  await new Promise((resolve) => setTimeout(resolve, 5000));
  const pids = await loading(bench);
  assert.equal(namespacesOf(bench).length, 3);
  assert.ok(pids.length >= 5, `${pids.map(commandOf)}`);
  bench.signal('SIGINT');
  const { code, stdout } = await bench.exit;
  assert.equal(code, 130);
  assert.match(stdout, /requests-1/);
  const results = resultsIn(folder);
  assert.equal(results.complete, false);
  assert.ok(results.samples.length >= 1 && results.samples.every(({ error }) => error === undefined));
  assert.deepEqual(namespacesOf(bench), []);
  assert.deepEqual(pids.map(commandOf).filter(Boolean), []);
});

/** Its folder for what subjects need. */
function scratchOf({ child }: Running): readonly string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith(`dualport-bench-${child.pid}-`));
}

test('what a killed run left the next one removes, and nothing of one that goes on', {
  skip,
}, async (context) => {
  const words = '--only requests-1 --subjects direct,nginx,dualport-portable --rounds 99';
  const [killed, goesOn] = [start(context, words).bench, start(context, words).bench];
  const left = await loading(killed);
  const [going] = (await loading(goesOn)).filter((pid) => commandOf(pid).includes('nginx: master'));
  assert.deepEqual([namespacesOf(killed).length, scratchOf(killed).length], [3, 1]);
  assert.ok(left.length >= 5, `${left.map(commandOf)}`);
  killed.signal('SIGKILL');
  await killed.exit;

  const { code, stderr } = await start(context, '--only requests-1 --subjects direct --rounds 1').bench.exit;
  assert.equal(code, 0, stderr);
  assert.deepEqual([namespacesOf(killed), scratchOf(killed)], [[], []]);
  assert.deepEqual(left.map(commandOf).filter(Boolean), []);

  assert.deepEqual([namespacesOf(goesOn).length, scratchOf(goesOn).length], [3, 1]);
  assert.match(commandOf(going ?? 0), /nginx: master/);
  goesOn.signal('SIGINT');
  assert.equal((await goesOn.exit).code, 130, goesOn.stderr);
  assert.deepEqual([namespacesOf(goesOn), scratchOf(goesOn)], [[], []]);
});

test('a subject that dies is said to have died, and the others go on', { skip }, async (context) => {
  const { bench, folder } = start(context, '--only requests-1 --subjects direct,nginx --rounds 3');
  const pids = await loading(bench);
  const nginx = pids.find((pid) => commandOf(pid).includes('nginx: master'));
  assert.ok(nginx !== undefined, `${pids.map(commandOf)}`);
  process.kill(nginx, 'SIGKILL');
  const { code, stderr } = await bench.exit;
  assert.equal(code, 0, stderr);
  const results = resultsIn(folder);
  assert.equal(subjectsOf(results).filter((subject) => subject === 'direct').length, 3);
  assert.ok(subjectsOf(results).filter((subject) => subject === 'nginx').length < 3);
  assert.match(results.remarks.join('\n'), /^nginx stream died in round 1 during requests-1 .*SIGKILL/m);
  assert.match(stderr, /nginx stream died/);
});

test('a tool and a subject that are not installed are named as missing', { skip }, async (context) => {
  const path = mkdtempSync(join(tmpdir(), 'dualport-test-path-'));
  context.after(() => rmSync(path, { recursive: true }));
  const needed = 'sh make gcc cc as ld ip nsenter prlimit unshare true nginx node ethtool wrk';
  for (const name of needed.split(' ')) linkTo(name, path);
  const words = '--only bulk-1-up,requests-1 --subjects direct,nginx,socat --rounds 1';
  const { bench, folder } = start(context, words, { path });
  const { code, stderr } = await bench.exit;
  assert.equal(code, 0, stderr);
  const results = resultsIn(folder);
  const missing = 'iperf3 is not installed (apt-get install iperf3), so there are no figures for bulk-1-up.';
  assert.ok(results.remarks.includes(missing), `${results.remarks}`);
  const socat = results.subjects.find(({ name }) => name === 'socat');
  assert.equal(socat?.missing, 'socat is not installed (apt-get install socat)');
  assert.deepEqual([...subjectsOf(results)].sort(), ['direct', 'nginx']);
});

function linkTo(name: string, folder: string): void {
  const { stdout } = spawnSync('bash', ['-c', `type -P ${name}`], { encoding: 'utf8' });
  if (stdout.startsWith('/')) symlinkSync(stdout.trim(), join(folder, name));
}

test('without root it is T1, said at the top; a busy port costs one subject', { skip }, async (context) => {
  const busy = createServer().listen(20_001, '127.0.0.1');
  context.after(() => busy.close());
  const words = '--only requests-1 --subjects direct,nginx,dualport-portable --rounds 1';
  // The same user without any right.
  const { bench, folder } = start(context, words, { before: ['unshare', '--user'] });
  const { code, stderr } = await bench.exit;
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^Without root there are no network namespaces: only T1/);
  const results = resultsIn(folder);
  assert.match(results.remarks[0] ?? '', /^Without root/);
  const nginx = results.gates.find(({ subject }) => subject === 'nginx');
  assert.equal(nginx?.outcome, 'failed');
  assert.match(nginx?.reason ?? '', /^it did not start: .*in use/);
  assert.deepEqual([...subjectsOf(results)].sort(), ['direct', 'dualport-portable']);
  assert.ok(results.samples.every(({ topology, error }) => topology === 'T1' && error === undefined));
});
