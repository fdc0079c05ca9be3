/**
 * From any state to any other: plans applied to a real kernel, in network namespaces with every command made to
 * fail in its turn. What counts is all that the kernel has afterwards.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { loadConfig } from '../../src/config/load.ts';
import { applyPlan, removeAll } from '../../src/transparent/apply.ts';
import type { Command, Run } from '../../src/transparent/system.ts';
import { Stage } from '../support/dualport.ts';
import { namespacesOf } from '../support/namespace.ts';
import { skipUnless } from '../support/requirements.ts';
import { dump } from '../support/transparent.ts';
import { sorted } from '../support/transparent-arguments.ts';
import { isChange, ready, type State, wanted } from '../support/transparent-states.ts';

const options = { skip: skipUnless('root', 'netns', 'nft'), timeout: 60_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
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
  const shown: string[] = [];
  const told = ({ args }: Command) => {
    shown.push(args.join(' '));
    if (one.tools.changes === 4) stop.abort();
  };
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
  assert.deepEqual(shown, changes, 'who asked for it sees both');
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
