/**
 * `dualport transparent print`, `up` and `down`: what they leave in the kernel, compared by everything it has. All or
 * nothing, once or twice, and nothing of anybody else's.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type Place, Stage } from '../support/dualport.ts';
import { addresses, type Namespace, namespacesOf, nft } from '../support/namespace.ts';
import { skipUnless } from '../support/requirements.ts';
import { dump, inside, ipEach, transparent, transparently } from '../support/transparent.ts';
import { as, containerRules, elsewhere, first, openHost, second } from '../support/transparent-arguments.ts';

const options = { skip: skipUnless('root', 'netns', 'nft'), timeout: 60_000 };
const { container } = addresses;

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

for (const [name, args] of Object.entries({ interface: first, local: second })) {
  test(`up twice is up once, and down leaves nothing (${name})`, options, async (t) => {
    const stage = new Stage(t);
    const place = openHost(stage);
    const before = dump(place);
    await transparently(stage, place, 'up', args);
    const once = dump(place);
    assert.notEqual(once, before);
    assert.equal(await transparently(stage, place, 'up', args), 'everything is in place already\n');
    assert.equal(dump(place), once);
    await transparently(stage, place, 'down');
    assert.equal(dump(place), before);
    assert.equal(await transparently(stage, place, 'down'), 'there is nothing to remove\n');
  });

  test(
    `what print prints does the same as up, and its undo the same as down (${name})`,
    options,
    async (t) => {
      const stage = new Stage(t);
      const place = openHost(stage);
      const before = dump(place);
      const script = await transparently(stage, place, 'print', args);
      inside(place, ['sh'], script);
      const printed = dump(place);
      assert.equal(await transparently(stage, place, 'up', args), 'everything is in place already\n');
      inside(place, ['sh'], await transparently(stage, place, 'print', [...args, '--undo']));
      assert.equal(dump(place), before);
      const said = await transparently(stage, place, 'up', args);
      assert.equal(dump(place), printed);
      await transparently(stage, place, 'down');
      inside(place, ['sh', '-e'], said);
      assert.equal(dump(place), printed, 'and so does what up says it does');
    },
  );
}

test('print needs no privilege and changes nothing', options, async (t) => {
  const stage = new Stage(t);
  const place = openHost(stage);
  const before = dump(place);
  const script = await transparently(stage, unprivileged(place), 'print', first);
  assert.match(script, /^#!\/bin\/sh\n# dualport: .+\nset -e\n\n# .+\nip -4 route add local /);
  assert.match(script, /iif container0 fwmark 0x1000\/0x1000 lookup 24000/);
  assert.equal(dump(place), before);
});

test('rules that need nothing take all of it away', options, async (t) => {
  const stage = new Stage(t);
  const place = openHost(stage);
  const before = dump(place);
  await transparently(stage, place, 'up', first);
  const { code, stderr } = await transparent(stage, place, 'up', containerRules);
  assert.equal(code, 0);
  assert.match(stderr, /note: nothing has to be set up: the rules have source none/);
  assert.equal(dump(place), before);
});

/** Root without capabilities, as in a container that has dropped them. */
function unprivileged({ prefix }: Place): Place {
  return { prefix: [...prefix, 'setpriv', '--bounding-set', '-all', '--inh-caps', '-all', '--no-new-privs'] };
}

test(
  'without the capability up and down say what they need, and nothing is half done',
  options,
  async (t) => {
    const stage = new Stage(t);
    const place = openHost(stage);
    for (const [command, args] of [
      ['up', first],
      ['up', second],
      ['up', as('pseudo', containerRules)],
      ['down', []],
    ] as const) {
      if (command === 'down') await transparently(stage, place, 'up', first);
      const before = dump(place);
      const { code, stdout, stderr } = await transparent(stage, unprivileged(place), command, args);
      assert.equal(code, 77, stderr);
      assert.match(
        stderr,
        /Operation not permitted.*CAP_NET_ADMIN.*cap_add: \[NET_ADMIN\].*transparent print/,
      );
      assert.equal(stdout, '');
      assert.equal(dump(place), before);
    }
  },
);

test(
  'what the portable engine needs beside routes is said, and nothing of the whole host is set',
  options,
  async (t) => {
    const stage = new Stage(t);
    const place = openHost(stage);
    const print = (...args: readonly string[]) =>
      transparently(stage, place, 'print', ['-p', '8080:80', '--source', 'pseudo', ...args]);
    const note = /^# Note: sockets of the portable engine .* sysctl -w net\.ipv6\.ip_nonlocal_bind=1$/m;
    assert.match(await print('--to', container.v6, '--engine', 'portable'), note);
    assert.doesNotMatch(await print('--to', container.v6), note);
    assert.doesNotMatch(await print('--to', container.v4, '--engine', 'portable'), note);
  },
);

test('a name is set up by its address, and one that has none is said', options, async (t) => {
  const stage = new Stage(t);
  const place = openHost(stage);
  const to = (host: string) => ['-p', '8080:80', '--to', host, '--source', 'transparent'];
  const known = await transparently(stage, place, 'print', to('localhost'));
  assert.match(known, /ip -4 rule add pref 61 from 127\.0\.0\.0\/8 iif lo|ip -6 rule add pref 61 from ::1/);
  const unknown = await transparently(stage, place, 'print', to('no-such-name.invalid'));
  assert.match(unknown, /^# Note: 8080:80\/tcp has no upstream yet: run this again when its name resolves/m);
  assert.match(unknown, /^# Nothing has to be set up\.$/m);
});

/** A place where a directory of tools is empty; `ip` is also in another one. */
function withoutNft({ prefix }: Place): Place {
  const script = 'mount -t tmpfs tmpfs /usr/sbin && exec "$@"';
  return { prefix: [...prefix, 'unshare', '--mount', 'sh', '-c', script, 'sh'] };
}

test('without nft it says what to install, and what needs no nft is made and removed', options, async (t) => {
  const stage = new Stage(t);
  const place = openHost(stage);
  const before = dump(place);
  const { code, stdout, stderr } = await transparent(stage, withoutNft(place), 'up', first);
  assert.equal(code, 78);
  assert.match(stderr, /nft is not installed.*install the package nftables/);
  assert.equal(stdout, '');
  assert.equal(dump(place), before);
  await transparently(stage, withoutNft(place), 'up', second);
  assert.notEqual(dump(place), before);
  await transparently(stage, withoutNft(place), 'down');
  assert.equal(dump(place), before);
});

/** What somebody else may have in our place, and the name of it. */
const strangers: Readonly<Record<string, readonly [make: (place: Namespace) => void, says: RegExp]>> = {
  'a rule at our priority': [
    (place) => ipEach(place, ['rule add pref 60 from 198.18.9.9 lookup main']),
    /the priority 60 of ip -4 rule belongs to somebody else, who has there: from 198\.18\.9\.9\/32 lookup 254/,
  ],
  'an IPv6 rule at our priority': [
    (place) => ipEach(place, ['-6 rule add pref 64 to fd00::9 lookup main']),
    /the priority 64 of ip -6 rule/,
  ],
  'a rule of ours by its protocol, and not by what it does': [
    (place) => ipEach(place, ['rule add pref 61 not from 198.18.9.9 lookup 24000 proto 240']),
    /the priority 61 of ip -4 rule/,
  ],
  'a route in our table': [
    (place) => ipEach(place, ['route add blackhole default table 24000']),
    /route table of dualport's has a route of somebody else \(ip -4 route\): blackhole 0\.0\.0\.0\/0 .*table 24000/,
  ],
  'a table of our name': [
    (place) => nft(place, 'add table inet dualport\nadd chain inet dualport theirs\n'),
    /the nft table inet dualport belongs to somebody else, who has there the chain "theirs"/,
  ],
};

for (const [what, [make, says]] of Object.entries(strangers)) {
  test(`${what} is left alone, and nothing is done beside it`, options, async (t) => {
    const stage = new Stage(t);
    const place = openHost(stage);
    const empty = dump(place);
    make(place);
    const before = dump(place);
    const { code, stdout, stderr } = await transparent(stage, place, 'up', first);
    assert.equal(code, 78);
    assert.match(stderr, says);
    assert.match(stderr, /--transparent-priority, --transparent-route-table, --transparent-table$/m);
    assert.equal(stdout, '');
    assert.equal(dump(place), before);
    await transparently(stage, place, 'up', [...first, ...elsewhere]);
    await transparently(stage, place, 'down', elsewhere);
    assert.equal(dump(place), before);
    const { stderr: left } = await transparent(stage, place, 'down');
    if (!what.includes('route')) assert.match(left, says);
    assert.equal(dump(place), before);
    assert.notEqual(before, empty);
  });
}

test('an empty table of our name is taken, for there is nothing in it to lose', options, async (t) => {
  const stage = new Stage(t);
  const place = openHost(stage);
  nft(place, 'add table inet dualport\n');
  await transparently(stage, place, 'up', first);
  await transparently(stage, place, 'down');
  assert.doesNotMatch(dump(place), /dualport/);
});
