/**
 * `dualport transparent up` and `down`, and `serve --transparent-setup`: what they leave in the kernel, compared by
 * everything it has. All or nothing, once or twice, and nothing of anybody else's.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { type Place, Stage } from '../support/dualport.ts';
import { addresses, type Namespace, namespacesOf, nft } from '../support/namespace.ts';
import { curl } from '../support/namespace-traffic.ts';
import { type Exit, main, type Running } from '../support/process.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import {
  buildTools,
  dump,
  inside,
  ipEach,
  listenOn,
  openRoutedWorld,
  transparent,
  transparently,
} from '../support/transparent.ts';

const options = { skip: skipWithoutCore('root', 'netns', 'nft', 'gcc', 'curl'), timeout: 60_000 };
const { container, client, host } = addresses;

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

/** Rules of every recipe: an interface, loopback with UDP, another local address, pseudo addresses. */
const containerRules = ['-p', '8080:80', '-p', '5353:53/udp', '--to', container.v4, '--to', container.v6];
const localRules = [
  '-p',
  '8080:80',
  '-p',
  '5353-5355:53-55/udp',
  '--to',
  '127.0.0.1',
  '--to',
  '::1',
  '--to',
  host.v4,
];
const as = (source: string, args: readonly string[]) => [...args, '--source', source];
const first = as('transparent', containerRules);
const second = as('transparent', localRules);

const openHost = (stage: Stage): Namespace => openRoutedWorld(stage).host;

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

/** Rules of one priority are listed in the order in which they were made. */
function sorted(text: string): string {
  return text.split('\n').sort().join('\n');
}

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

/** As a unit of systemd with a user of its own and AmbientCapabilities. */
function ambient({ prefix }: Place): Place {
  const caps = '+net_admin,+net_raw';
  const user = ['--reuid', '65534', '--regid', '65534', '--clear-groups', '--no-new-privs'];
  const words = [...user, '--inh-caps', caps, '--ambient-caps', caps, '--bounding-set', `-all,${caps}`];
  return { prefix: [...prefix, 'setpriv', ...words] };
}

test('a user of its own with ambient capabilities has all that is needed', options, async (t) => {
  const stage = new Stage(t);
  const place = openHost(stage);
  const before = dump(place);
  await transparently(stage, ambient(place), 'up', first);
  const up = dump(place);
  await transparently(stage, ambient(place), 'down');
  assert.equal(dump(place), before);
  const words = ['--state-dir', '/nonexistent', '--transparent-setup', ...first];
  const running = stage.background(ambient(place), process.execPath, [main, ...words]);
  await running.says('ready');
  assert.equal(dump(place), up);
  await ended(running, 'SIGTERM');
  assert.equal(dump(place), before);
});

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
    const others = [
      '--transparent-priority',
      '90',
      '--transparent-route-table',
      '900',
      '--transparent-table',
      'mine',
    ];
    await transparently(stage, place, 'up', [...first, ...others]);
    await transparently(stage, place, 'down', others);
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

const serving = (stage: Stage, args: readonly string[]) => [
  ...[main, ...args, '--transparent-setup'],
  ...['--state-dir', stage.directory(), '--access-log'],
];

async function startServing(stage: Stage, place: Place, args: readonly string[]): Promise<Running> {
  const running = stage.background(place, process.execPath, serving(stage, args));
  await running.says('ready');
  return running;
}

async function ended(running: Running, signal: NodeJS.Signals): Promise<Exit> {
  running.signal(signal);
  return running.exit;
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`serve --transparent-setup is up when it is ready, and down after ${signal}`, options, async (t) => {
    const stage = new Stage(t);
    const place = openHost(stage);
    const before = dump(place);
    await transparently(stage, place, 'up', first);
    const up = dump(place);
    await transparently(stage, place, 'down');
    const running = await startServing(stage, place, first);
    assert.equal(dump(place), up);
    const { code, stdout } = await ended(running, signal);
    assert.equal(code, 0);
    assert.equal(dump(place), before);
    assert.match(stdout, /"transparent set-up removed"/);
  });
}

test('the first connection to a port shows the client, by either kind of address', options, async (t) => {
  const stage = new Stage(t);
  const world = openRoutedWorld(stage);
  await listenOn(stage, buildTools(stage), world.container, ['tcp 0.0.0.0 80']);
  const args = ['-p', '8080:80', '--to', container.v4];
  const running = await startServing(stage, world.host, as('transparent', args));
  const seen = async (to: string) => (await curl(stage, world.client, `http://${to}:8080/`)).body;
  assert.match(await seen(`[${host.v6}]`), / was asked by 2(4\d|5[0-5])(\.\d+){3} /);
  assert.match(await seen(host.v4), new RegExp(` was asked by ${client.v4} `));
  await ended(running, 'SIGTERM');
});

test('a second signal ends the drain, and the set-up is removed all the same', options, async (t) => {
  const stage = new Stage(t);
  const world = openRoutedWorld(stage);
  const before = dump(world.host);
  stage.background(world.container, 'socat', ['-u', 'TCP-LISTEN:80,reuseaddr', 'OPEN:/dev/null']);
  const args = as('pseudo', [
    '-p',
    '8080:80',
    '--to',
    container.v4,
    '--drain-timeout',
    '1h',
    '--pseudo-unit',
    '/128',
  ]);
  const running = await startServing(stage, world.host, args);
  stage.background(world.client, 'socat', ['-u', `TCP:${host.v4}:8080`, 'OPEN:/dev/null']);
  await until(
    () => /:8080/.test(inside(world.client, ['ss', '-Htn', 'state', 'established'])),
    'a connection',
  );
  running.signal('SIGTERM');
  await running.says('stopping');
  assert.notEqual(dump(world.host), before);
  const { code } = await ended(running, 'SIGTERM');
  assert.equal(code, 0);
  assert.equal(dump(world.host), before);
});

test('a start that fails leaves nothing, and so does one that is told to end at once', options, async (t) => {
  const stage = new Stage(t);
  const place = openHost(stage);
  stage.start(place, 'socat', ['TCP-LISTEN:8080,fork', 'EXEC:true']);
  await until(() => /:8080/.test(inside(place, ['ss', '-Htln'])), 'a listener');
  const before = dump(place);
  const { code } = await stage.run(place, process.execPath, serving(stage, first));
  assert.equal(code, 69);
  assert.equal(dump(place), before);
  const early = stage.background(place, process.execPath, serving(stage, second));
  await until(() => dump(place) !== before, 'the set-up to begin');
  early.signal('SIGTERM');
  await early.exit;
  assert.equal(dump(place), before);
});

test('serve does not start where it cannot set up', options, async (t) => {
  const stage = new Stage(t);
  const place = openHost(stage);
  ipEach(place, ['rule add pref 60 from 198.18.9.9 lookup main']);
  const before = dump(place);
  const { code, stderr } = await stage.run(place, process.execPath, serving(stage, first));
  assert.equal(code, 78);
  assert.match(stderr, /the priority 60 of ip -4 rule/);
  assert.equal(dump(place), before);
});

test(
  'what a killed process has left is taken over by the next one, or removed by down',
  options,
  async (t) => {
    const stage = new Stage(t);
    const place = openHost(stage);
    const before = dump(place);
    await ended(await startServing(stage, place, first), 'SIGKILL');
    const left = dump(place);
    assert.notEqual(left, before);
    const next = await startServing(stage, place, second);
    assert.notEqual(dump(place), left);
    assert.doesNotMatch(dump(place), /container0 lookup/);
    await ended(next, 'SIGTERM');
    assert.equal(dump(place), before);
    await ended(await startServing(stage, place, first), 'SIGKILL');
    await transparently(stage, place, 'down');
    assert.equal(dump(place), before);
  },
);

test('while one has the place nobody else gets it, and beside it there is room', options, async (t) => {
  const stage = new Stage(t);
  const place = openHost(stage);
  const before = dump(place);
  const running = await startServing(stage, place, first);
  const up = dump(place);
  for (const [command, args] of [
    ['up', second],
    ['down', []],
  ] as const) {
    const { code, stderr } = await transparent(stage, place, command, args);
    assert.equal(code, 75);
    assert.match(stderr, /another dualport has set up this network namespace.*--transparent-table/);
    assert.equal(dump(place), up);
  }
  const names = [
    '--transparent-priority',
    '90',
    '--transparent-route-table',
    '900',
    '--transparent-table',
    'mine',
  ];
  await transparently(stage, place, 'up', [...second, ...names]);
  await ended(running, 'SIGTERM');
  assert.match(dump(place), /lookup 900/);
  assert.doesNotMatch(dump(place), /lookup 24000/);
  await transparently(stage, place, 'down', names);
  assert.equal(dump(place), before);
});

test(
  'the set-up follows the rules at a reload, mends itself, and leaves what flows may need',
  options,
  async (t) => {
    const stage = new Stage(t);
    const place = openHost(stage);
    const before = dump(place);
    const file = `${stage.directory()}/dualport.yaml`;
    const write = (to: readonly string[]) =>
      inside(
        place,
        ['tee', file],
        JSON.stringify({ publish: [{ ports: '8080:80', to, source: 'transparent', mismatch: 'plain' }] }),
      );
    write([container.v4]);
    const running = await startServing(stage, place, ['-c', file]);
    assert.match(dump(place), /iif container0/);
    write([client.v4]);
    running.signal('SIGHUP');
    await running.says('transparent set-up changed', 2);
    assert.match(dump(place), /iif client0/);
    assert.match(dump(place), /iif container0/, 'connections to the old upstream go on');
    const both = dump(place);
    inside(place, ['nft', 'flush', 'ruleset']);
    ipEach(place, ['rule del pref 60 iif client0']);
    running.signal('SIGHUP');
    await until(() => sorted(dump(place)) === sorted(both), 'what was removed');
    await ended(running, 'SIGTERM');
    assert.equal(dump(place), before);
  },
);
