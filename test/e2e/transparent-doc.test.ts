/**
 * docs/transparent-setup.md as an operator follows it: every command in it is run, in a namespace that looks like the
 * host it speaks of, and says what stands behind it. Afterwards nothing is left.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { loadConfig } from '../../src/config/load.ts';
import type { Cause } from '../../src/transparent/check/blame.ts';
import { type Place, Stage } from '../support/dualport.ts';
import { addresses, namespacesOf, type World } from '../support/namespace.ts';
import { main } from '../support/process.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import { buildTools, dump, ipEach, listenOn, openRoutedWorld, type Tools } from '../support/transparent.ts';

const options = { skip: skipWithoutCore('root', 'netns', 'nft', 'gcc'), timeout: 60_000 };
const doc = readFileSync(new URL('../../../docs/transparent-setup.md', import.meta.url), 'utf8');

let tools: Tools;
if (options.skip === false) {
  tools = buildTools(new Stage({ after }));
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

/** A block of commands, and what they print where that is shown. */
interface Example {
  readonly commands: string;
  readonly printed: string | undefined;
}

const sections = new Map(
  doc.split(/^## /m).map((text) => [text.slice(0, text.indexOf('\n')), examplesOf(text)] as const),
);

function examplesOf(section: string): readonly Example[] {
  const form = /^```sh\n([\s\S]*?)^```\n(?:\n```text\n([\s\S]*?)^```\n)?/gm;
  return [...section.matchAll(form)].map(([, commands = '', printed]) => ({ commands, printed }));
}

/** Everywhere, and the one that the document calls docker0. */
async function openHost(stage: Stage): Promise<World> {
  const world = openRoutedWorld(stage);
  const { v6 } = addresses.gateway;
  ipEach(world.host, [
    'link set container0 down',
    'link set container0 name docker0',
    'link set docker0 up',
    `-6 address add ${v6}/64 dev docker0 nodad`,
    '-6 address add fe80::21/64 dev docker0 nodad',
  ]);
  const everywhere = ['tcp 0.0.0.0 80', 'tcp :: 80', 'udp 0.0.0.0 53', 'udp :: 53'];
  await listenOn(stage, tools, world.container, everywhere);
  return world;
}

/** Which of the three hosts the reader sits at. */
const seats: Readonly<Record<string, (world: World) => Place>> = {
  'A container behind a bridge': ({ host }) => host,
  'A program on this host, or a sidecar': ({ container }) => container,
  'Pseudo addresses': ({ host }) => host,
};

for (const [section, seat] of Object.entries(seats)) {
  test(`${section}: every command does what is said`, options, async (t) => {
    const stage = new Stage(t);
    const world = await openHost(stage);
    const examples = sections.get(section) ?? [];
    assert.ok(examples.length >= 2, section);
    const before = dump(world.host) + dump(world.container);
    for (const example of examples) await follow(stage, seat(world), example);
    assert.equal(dump(world.host) + dump(world.container), before);
  });
}

async function follow(stage: Stage, place: Place, { commands, printed }: Example): Promise<void> {
  let said = '';
  for (const command of commands.trim().split('\n')) {
    const [name, ...args] = command.split(' ');
    assert.equal(name, 'dualport', command);
    if (args[0] === 'transparent') {
      const { code, stdout, stderr } = await stage.run(place, process.execPath, [main, ...args]);
      assert.equal(code, 0, `${command}: ${stdout}${stderr}`);
      // What `up` runs is what `print` has shown.
      said = args[1] === 'up' ? '' : stdout;
    } else {
      await serveFor(stage, place, args);
    }
  }
  if (printed !== undefined) assert.equal(said, printed);
}

/** Until it has listened. */
async function serveFor(stage: Stage, place: Place, args: readonly string[]): Promise<void> {
  const words = [main, ...args, '--state-dir', stage.directory()];
  const running = stage.background(place, process.execPath, words);
  await running.says('ready');
  running.signal('SIGTERM');
  assert.equal((await running.exit).code, 0);
}

test('the other sections have nothing to run, or what cannot be run here', () => {
  const others = [...sections].filter(
    ([title]) => !(title in seats) && !title.startsWith('# What transparent'),
  );
  assert.deepEqual(
    others.filter(([, examples]) => examples.length > 0).map(([title]) => title),
    [],
  );
});

test('its files are understood', () => {
  const [, yaml = ''] = /```yaml\n([\s\S]*?)```/.exec(doc) ?? [];
  const readFile = () => new TextEncoder().encode(yaml);
  const config = loadConfig({ flags: { config: 'dualport.yaml' }, env: {}, readFile });
  assert.deepEqual(config.transparentNetworks, ['front']);
  assert.equal(config.transparent.setup, true);
});

test('everything that can be to blame is there, with what else is said', () => {
  const causes: Record<Cause, true> = {
    upstream: true,
    engine: true,
    privilege: true,
    'missing-route': true,
    'on-link': true,
    output: true,
    masquerade: true,
    'no-answer': true,
    'missing-rule': true,
    overruled: true,
    firewall: true,
    src_valid_mark: true,
    rp_filter: true,
    interface: true,
    input: true,
    unknown: true,
  };
  const [, table = ''] = doc.split('## What check finds');
  const listed = [...table.matchAll(/^\| `([\w-]+)` \|/gm)].map(([, cause]) => cause);
  assert.deepEqual(listed.sort(), Object.keys(causes).sort());
});

test('its defaults are those of the options', () => {
  const { transparent } = loadConfig({ flags: { publish: ['8080:80'], to: ['::1'] }, env: {} });
  assert.match(doc, new RegExp(`\\| \`inet ${transparent.table}\` \\|`));
  assert.match(doc, new RegExp(`\\| ${transparent.priority}–${transparent.priority + 4} \\|`));
  assert.match(doc, new RegExp(`\\| ${transparent.routeTable}–${transparent.routeTable + 15} \\|`));
  assert.equal(transparent.mark.value, 0x1000);
  assert.equal(transparent.mark.mask, 0x1000);
});
