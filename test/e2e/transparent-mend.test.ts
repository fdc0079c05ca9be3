/** A set-up that somebody has damaged, or of which something is missing: it is made whole again, or removed all the same. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { undoScript } from '../../src/transparent/script.ts';
import { Stage } from '../support/dualport.ts';
import { type Namespace, namespacesOf, nft } from '../support/namespace.ts';
import { skipUnless } from '../support/requirements.ts';
import { dump, inside, ipEach, quick } from '../support/transparent.ts';
import { sorted } from '../support/transparent-arguments.ts';
import { type Ready, ready, wanted } from '../support/transparent-states.ts';

const options = { skip: skipUnless('root', 'netns', 'nft'), timeout: 60_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
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
