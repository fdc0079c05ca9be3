/**
 * From any state to any other: plans applied to a real kernel, in network namespaces, with every command made to
 * fail in its turn and every piece removed in its turn. What counts is all that the kernel has afterwards.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, test } from 'node:test';
import { type Config, loadConfig } from '../../src/config/load.ts';
import { endpointOf } from '../../src/net/address.ts';
import { applyPlan, removeAll } from '../../src/transparent/apply.ts';
import type { Plan } from '../../src/transparent/plan.ts';
import { undoScript } from '../../src/transparent/script.ts';
import { planFor } from '../../src/transparent/setup.ts';
import type { Command, Run } from '../../src/transparent/system.ts';
import { Stage } from '../support/dualport.ts';
import { addresses, type Namespace, namespacesOf, nft } from '../support/namespace.ts';
import { skipUnless } from '../support/requirements.ts';
import { dump, inside, ipEach, openRoutedWorld, quick } from '../support/transparent.ts';

const options = { skip: skipUnless('root', 'netns', 'nft'), timeout: 60_000 };
const { container, client, host } = addresses;

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

/** A namespace's tools, of which one change can be made to fail. */
class Tools {
  readonly #place: Namespace;
  /** Counted from 1; 0 is none. */
  failAt = 0;
  changes = 0;

  constructor(place: Namespace) {
    this.#place = place;
  }

  readonly run: Run = async (command) => {
    if (isChange(command) && ++this.changes === this.failAt) {
      return { status: 2, stdout: '', stderr: 'this one is to fail\n' };
    }
    const [program = '', ...words] = [...quick(this.#place).prefix, command.tool, ...command.args];
    return spawnSync(program, words, { input: command.input ?? '', encoding: 'utf8' });
  };
}

function isChange({ args }: Command): boolean {
  return ['add', 'del', 'replace', '-f'].some((word) => args.includes(word));
}

interface Ready {
  readonly place: Namespace;
  readonly tools: Tools;
  readonly apply: (wanted: Wanted) => Promise<boolean>;
  readonly remove: () => Promise<boolean>;
}

interface Wanted {
  readonly config: Config;
  readonly plan: Plan;
}

function ready(stage: Stage): Ready {
  const place = openRoutedWorld(stage).host;
  const tools = new Tools(place);
  const { transparent } = loadConfig({ flags: { publish: ['80:80'], to: ['198.18.0.1'] }, env: {} });
  return {
    place,
    tools,
    apply: ({ plan }) => applyPlan(tools.run, plan, transparent),
    remove: async () => (await removeAll(tools.run, transparent)).changed,
  };
}

/** Upstreams, and the source that their rules have; of every recipe. */
const states = {
  nothing: ['none', container.v4],
  'one interface': ['transparent', container.v4, container.v6],
  'two interfaces': ['transparent', container.v4, client.v6],
  'this host': ['transparent', '127.0.0.1', '::1', host.v4],
  'all of it': ['transparent', container.v4, '::1'],
  'pseudo addresses': ['pseudo', container.v4, container.v6],
  'pseudo addresses on this host': ['pseudo', '127.0.0.1', '::1'],
} as const;

type State = keyof typeof states;

async function wanted({ tools }: Ready, state: State): Promise<Wanted> {
  const [source, ...to] = states[state];
  const publish = ['8080:80', '5353:53/udp'];
  const config = loadConfig({ flags: { publish, to, source }, env: {} });
  const upstreams = to.map((host) => endpointOf(host, 0));
  const rules = config.rules.map((rule) => ({
    rule,
    upstreams: upstreams.map((at) => ({ ...at, port: rule.port.containerPort })),
  }));
  return { config, plan: await planFor(tools.run, rules, config) };
}

/** Every state is left and entered. */
const changes: readonly (readonly [from: State, to: State])[] = [
  ['nothing', 'all of it'],
  ['all of it', 'one interface'],
  ['one interface', 'two interfaces'],
  ['two interfaces', 'this host'],
  ['this host', 'pseudo addresses'],
  ['pseudo addresses', 'pseudo addresses on this host'],
  ['pseudo addresses on this host', 'one interface'],
  ['one interface', 'nothing'],
];

/** Rules of one priority are listed in the order in which they were made, which nothing depends on. */
function sorted(text: string): string {
  return text.split('\n').sort().join('\n');
}

for (const [from, to] of changes) {
  test(`from ${from} to ${to}: whichever command fails, all is as it was`, options, async (t) => {
    const one = ready(new Stage(t));
    const before = await wanted(one, from);
    const next = await wanted(one, to);
    const empty = dump(one.place);
    await one.apply(next);
    const fresh = dump(one.place);
    await one.remove();
    assert.equal(dump(one.place), empty);
    await one.apply(before);
    const was = dump(one.place);
    for (one.tools.failAt = 1; ; one.tools.failAt++) {
      one.tools.changes = 0;
      const failed = await one.apply(next).then(
        () => undefined,
        (error: Error) => error,
      );
      if (failed === undefined) break;
      assert.match(failed.message, /: this one is to fail$/);
      assert.equal(sorted(dump(one.place)), sorted(was), `change ${one.tools.failAt} failed`);
    }
    assert.ok(one.tools.failAt > 1, 'there was something to do');
    assert.equal(sorted(dump(one.place)), sorted(fresh), 'it is as if it were made from nothing');
    assert.equal(await one.apply(next), false, 'a second time there is nothing to do');
    await one.remove();
    assert.equal(dump(one.place), empty);
  });
}

/** What somebody may do to a set-up of `all of it`. */
const damage: Readonly<Record<string, (place: Namespace) => void>> = {
  'flushed chain': (place) => nft(place, 'flush chain inet dualport mark_answers\n'),
  'another interface': (place) => nft(place, 'add element inet dualport answering_interfaces { "eth7" }\n'),
  'flushed ruleset': (place) => nft(place, 'flush ruleset\n'),
  'a second rule': (place) =>
    nft(place, 'add rule inet dualport mark_answers counter comment "dualport transparent 0x1000/0x1000"\n'),
  'another hook': (place) =>
    nft(place, 'delete chain inet dualport mark_answers\nadd chain inet dualport mark_answers\n'),
  'a rule without its interface': (place) =>
    ipEach(place, ['rule del pref 60', 'rule add pref 60 fwmark 0x1000/0x1000 lookup 24000 proto 240']),
  'a rule of ours too many': (place) =>
    ipEach(place, ['rule add pref 60 fwmark 0x1000/0x1000 lookup 24000 proto 240']),
  'a route of ours too many': (place) =>
    ipEach(place, ['route add local 198.18.0.0/15 dev lo table 24003 proto 240']),
  'another source': (place) =>
    ipEach(place, ['-6 route replace local ::/0 dev lo table 24001 src 2001:db8:1::1 proto 240']),
};

for (const [what, spoil] of Object.entries(damage)) {
  test(`${what}: up mends it, and down removes what is left`, options, async (t) => {
    const one = ready(new Stage(t));
    await mended(one, () => spoil(one.place));
  });
}

test('every piece that is missing is made again, or not missed by a removal', options, async (t) => {
  const one = ready(new Stage(t));
  const all = await wanted(one, 'all of it');
  const script = undoScript(all.plan, all.config.transparent);
  const commands = script.match(/^nft -f - <<'END'\n[\s\S]*?\nEND$|^ip .*$/gm) ?? [];
  assert.equal(commands.length, 12);
  const empty = dump(one.place);
  await one.apply(all);
  const whole = dump(one.place);
  for (const command of commands) {
    inside(quick(one.place), ['sh', '-ec', command]);
    assert.notEqual(dump(one.place), whole);
    assert.equal(await one.apply(all), true, command);
    assert.equal(sorted(dump(one.place)), sorted(whole), command);
  }
  for (const [from, to] of [
    [0, 6],
    [6, 12],
    [4, 8],
  ] as const) {
    inside(quick(one.place), ['sh', '-ec', commands.slice(from, to).join('\n')]);
    await one.remove();
    assert.equal(dump(one.place), empty);
    await one.apply(all);
  }
});

/** By another `up`; and by a removal, it is gone. */
async function mended(one: Ready, spoil: () => void): Promise<void> {
  const all = await wanted(one, 'all of it');
  const empty = dump(one.place);
  await one.apply(all);
  const whole = dump(one.place);
  spoil();
  assert.notEqual(dump(one.place), whole);
  assert.equal(await one.apply(all), true);
  assert.equal(sorted(dump(one.place)), sorted(whole));
  spoil();
  await one.remove();
  assert.equal(dump(one.place), empty);
}

test('a removal goes on behind a command that fails, and tries that one again', options, async (t) => {
  const one = ready(new Stage(t));
  const all = await wanted(one, 'one interface');
  const empty = dump(one.place);
  await one.apply(all);
  one.tools.changes = 0;
  await one.remove();
  const most = one.tools.changes;
  for (one.tools.failAt = 1; one.tools.failAt <= most; one.tools.failAt++) {
    await one.apply(all);
    one.tools.changes = 0;
    await one.remove();
    assert.equal(one.tools.changes, most + 1);
    assert.equal(dump(one.place), empty);
  }
});

test('what cannot be removed is said, and the rest is gone', options, async (t) => {
  const one = ready(new Stage(t));
  const { transparent } = loadConfig({ flags: { publish: ['80:80'], to: ['198.18.0.1'] }, env: {} });
  await one.apply(await wanted(one, 'all of it'));
  const stubborn: Run = async (command) => {
    const isRoute = command.args.includes('route') && command.args.includes('del');
    return isRoute ? { status: 2, stdout: '', stderr: 'no\n' } : one.tools.run(command);
  };
  await assert.rejects(removeAll(stubborn, transparent), {
    code: 'SETUP',
    message: /^not everything could be removed: .*ip -4 route del local .*: no \(and \d+ more\)$/,
  });
  assert.doesNotMatch(dump(one.place), /mark_answers|lookup 24000/);
  assert.match(dump(one.place), /table 24000/);
  await one.remove();
});

test('a set-up that is interrupted is undone, latest first', options, async (t) => {
  const one = ready(new Stage(t));
  const all = await wanted(one, 'all of it');
  const empty = dump(one.place);
  const stop = new AbortController();
  const told = () => one.tools.changes === 4 && stop.abort();
  const { transparent } = all.config;
  const changes: string[] = [];
  const watched: Run = async (command) => {
    if (isChange(command)) changes.push(command.args.join(' '));
    return one.tools.run(command);
  };
  await assert.rejects(applyPlan(watched, all.plan, transparent, told, stop.signal), {
    message: 'the set-up was interrupted',
  });
  const made = changes.slice(0, 4);
  const unmade = made.map((words) => words.replace(' add ', ' del ')).reverse();
  assert.deepEqual(changes, [...made, ...unmade]);
  assert.equal(dump(one.place), empty);
});

test('an undo that fails is said with what made it necessary', options, async (t) => {
  const one = ready(new Stage(t));
  const { plan, config } = await wanted(one, 'one interface');
  const broken: Run = async (command) =>
    command.args.includes('del') || command.tool === 'nft'
      ? { status: 2, stdout: '', stderr: 'broken\n' }
      : one.tools.run(command);
  const start: Run = async (command) =>
    command.tool === 'nft' && command.args[0] !== '-f' ? one.tools.run(command) : broken(command);
  await assert.rejects(applyPlan(start, plan, config.transparent), {
    code: 'SETUP',
    message:
      /nft -f -: broken; and not everything could be undone \(.*ip -6 rule del.*\): run dualport transparent down$/,
  });
  await one.remove();
});
