/**
 * docs/client-address.md against dualport as it runs: each line of its table is asked of dualport, and each of its
 * examples, and of README's, is run as it stands there. After a change:
 *
 *     npm run build && UPDATE_DOCS=1 node --test dist/test/e2e/client-address-doc.test.js
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { SourceMode } from '../../src/config/rules.ts';
import { parseCidr } from '../../src/net/cidr.ts';
import { PseudoRange } from '../../src/pseudo/range.ts';
import { PseudoTable } from '../../src/pseudo/table.ts';
import { type Answers, answersFor, makeState } from '../support/client-address-runs.ts';
import { here, Stage } from '../support/dualport.ts';
import { namespacesOf, openWorld, type World } from '../support/namespace.ts';
import { serve } from '../support/namespace-traffic.ts';
import { main } from '../support/process.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import { routeThroughHost } from '../support/source-rules.ts';
import { ask, type Family, startDualport, stopDualport, wildcard } from '../support/source-world.ts';

const options = { skip: skipWithoutCore('root', 'netns', 'nft', 'setpriv'), timeout: 110_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

const file = new URL('../../../docs/client-address.md', import.meta.url);
const doc = readFileSync(file, 'utf8');
const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
const sources: readonly SourceMode[] = ['none', 'proxy-v2', 'transparent', 'pseudo'];

test('each line of the table is what dualport does', options, async (t) => {
  const stage = new Stage(t);
  const answers: readonly Answers[] = await Promise.all(sources.map((source) => answersFor(stage, source)));
  const asked = new Set(answers.flatMap((each) => [...each.keys()]));
  const written = doc.split('\n').map((line) => {
    const [, name = '', ...cells] = line.split(/ ?\| ?/);
    const question = name.replace(/^\*\*.+?\*\* /, '');
    if (!asked.delete(question)) return line;
    assert.equal(cells.length, sources.length + 1, line);
    return `| ${[name, ...answers.map((each) => each.get(question))].join(' | ')} |`;
  });
  assert.deepEqual([...asked], [], 'all that is asked stands in the table');
  if (process.env['UPDATE_DOCS'] === '1') writeFileSync(file, written.join('\n'));
  assert.deepEqual(readFileSync(file, 'utf8').split('\n'), written);
});

/** What the program has for its peer in the world of the table. */
const peers = {
  gateway: { 4: /^198\.18\.2\.1$/, 6: /^198\.18\.2\.1$/ },
  client: { 4: /^198\.18\.1\.2$/, 6: /^2001:db8:1::2$/ },
  pseudo: { 4: /^246\.75\.38\.131$/, 6: /^246\.98\.255\.166$/ },
  clientOrPseudo: { 4: /^198\.18\.1\.2$/, 6: /^246\.98\.255\.166$/ },
} as const;

type Peers = Readonly<Record<Family, RegExp>>;

/** A Docker host, as far as the examples go, before anything was set up. */
async function openPlainWorld(stage: Stage, on: 'container' | 'host'): Promise<World> {
  const world = openWorld(stage);
  routeThroughHost(world);
  const hosts = on === 'container' ? Object.values(wildcard) : ['127.0.0.1', '::1'];
  for (const host of hosts) await serve(stage, world[on], 'whoSaysWhat', { host, port: 80 });
  return world;
}

/** Each of them is one example, and the lines before it are what it needs. */
const isDualport = (line: string) => line.startsWith('dualport ');

async function shell(stage: Stage, world: World, script: string): Promise<string> {
  const { code, stdout, stderr } = await stage.run(world.host, 'sh', ['-ec', script]);
  assert.equal(code, 0, `${script}\n${stderr}`);
  return stdout;
}

/** Everything an example may have set up. */
function dump(stage: Stage, world: World): Promise<string> {
  const each = (family: string) => `ip ${family} rule; ip ${family} route show table all`;
  return shell(stage, world, `${each('-4')}; ${each('-6')}; nft list ruleset`);
}

/**
 * Runs the lines of an example as they are written, but with the names that this world has.
 *
 * @param state where pseudo addresses are kept
 */
async function runExample(
  stage: Stage,
  world: World,
  text: string,
  state: string,
  check: (source: string) => Promise<void>,
): Promise<void> {
  const lines = text
    .replaceAll('172.17.0.2', '198.18.2.2')
    .replaceAll('fd00::2', 'fd00:2::2')
    .replaceAll('docker0', 'container0')
    .split('\n');
  let script: string[] = [];
  for (const line of lines) {
    if (!isDualport(line)) {
      script.push(line);
      continue;
    }
    await shell(stage, world, script.join('\n'));
    script = [];
    const [, ...args] = line.replace(/ +#.*/, '').split(' ');
    const dualport = await startDualport(stage, world, [...args, '--state-dir', state]);
    await check(args.includes('--source') ? (args.at(args.indexOf('--source') + 1) ?? '') : 'none');
    await stopDualport(dualport);
  }
  await shell(stage, world, script.join('\n'));
}

async function sees(stage: Stage, world: World, expected: Peers, isTold = false): Promise<void> {
  for (const family of [4, 6] as const) {
    const { peer, told } = await ask(stage, world, 'tcp', family);
    assert.match(peer, expected[family]);
    assert.equal(told.startsWith('0d0a0d0a000d0a515549540a'), isTold, told);
  }
}

/** The blocks of shell under a heading, up to the next one. */
function blocksOf(text: string, heading: string): readonly string[] {
  const [, section = ''] = text.split(new RegExp(`^#+ ${heading}$`, 'm'));
  const [own = ''] = section.split(/^#+ \w/m);
  return [...own.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block = '']) => block);
}

const examples: readonly (readonly [
  heading: string,
  block: number,
  on: 'container' | 'host',
  expected: Peers,
])[] = [
  ['none', 0, 'container', peers.gateway],
  ['PROXY headers', 0, 'container', peers.gateway],
  ['transparent', 0, 'container', peers.client],
  ['transparent', 1, 'host', peers.client],
  ['pseudo', 0, 'container', peers.pseudo],
];
for (const [heading, block, on, expected] of examples) {
  test(
    `the example of "${heading}" with a program on the ${on} works as it stands there, and leaves nothing`,
    options,
    async (t) => {
      const stage = new Stage(t);
      const world = await openPlainWorld(stage, on);
      const state = join(stage.directory(), 'state');
      makeState(state);
      const before = await dump(stage, world);
      const [example = '', next = ''] = blocksOf(doc, heading).slice(block);
      const undo = next.includes('dualport') ? '' : next;
      assert.ok(example.split('\n').some(isDualport));
      await runExample(stage, world, example, state, () =>
        sees(stage, world, expected, heading === 'PROXY headers'),
      );
      if (undo !== '') await shell(stage, world, undo.replaceAll('docker0', 'container0'));
      assert.equal(await dump(stage, world), before);
      if (heading === 'pseudo') await isLookedUp(stage, state);
    },
  );
}

/** The command and its answer are in the document; the time is not that of this run. */
async function isLookedUp(stage: Stage, state: string): Promise<void> {
  const [, address = '', answer = ''] = /^\$ dualport pseudo (\S+)\n(.+)\n```$/m.exec(doc) ?? [];
  const { stdout } = await stage.run(here, process.execPath, [main, 'pseudo', address, '--state-dir', state]);
  const timeless = (text: string) => text.trim().replace(/last used \S+/, '');
  assert.equal(timeless(stdout), timeless(answer));
}

test('the examples of README work as they stand there, one after the other', options, async (t) => {
  const stage = new Stage(t);
  const world = await openPlainWorld(stage, 'container');
  const state = join(stage.directory(), 'state');
  makeState(state);
  const expected: Readonly<Record<string, Peers>> = {
    none: peers.gateway,
    'proxy-v2': peers.gateway,
    pseudo: peers.pseudo,
    transparent: peers.clientOrPseudo,
  };
  const run: string[] = [];
  await runExample(stage, world, blocksOf(readme, 'Who the program sees').join(''), state, async (source) => {
    run.push(source);
    await sees(stage, world, expected[source] ?? assert.fail(source), source === 'proxy-v2');
  });
  assert.deepEqual(run.sort(), Object.keys(expected).sort());
});

test('the bound of the table is the one that is told', () => {
  const table = new PseudoTable(Buffer.alloc(32), new PseudoRange(parseCidr('240.0.0.0/4')));
  assert.ok(doc.includes(`${table.capacity.toLocaleString('en-US')} clients at most`));
});
