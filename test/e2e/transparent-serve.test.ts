/**
 * `serve --transparent-setup`: there before the first connection, kept equal to the rules that run, and gone at the end,
 * whichever way that comes about; compared by everything the kernel has.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../engine/harness.ts';
import { type Place, Stage } from '../support/dualport.ts';
import { addresses, namespacesOf, openWorld } from '../support/namespace.ts';
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
import { as, elsewhere, first, openHost, second, sorted } from '../support/transparent-arguments.ts';

const options = { skip: skipWithoutCore('root', 'netns', 'nft', 'gcc', 'curl'), timeout: 120_000 };
const { container, client, host } = addresses;

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

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

test('a sidecar has its set-up where IPv6 is switched off, as in most containers', options, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage, { ipv6: false });
  const before = dump(world.host);
  await listenOn(stage, buildTools(stage), world.host, ['tcp 127.0.0.1 80']);
  const seen = async () => (await curl(stage, world.client, `http://${host.v4}:8080/`)).body;
  for (const [source, peer] of [
    ['transparent', client.v4],
    ['pseudo', '2(?:4\\d|5[0-5])(?:\\.\\d+){3}'],
  ] as const) {
    // Its targets are 127.0.0.1 and ::1.
    const args = as(source, ['-p', '8080:80']);
    const running = await startServing(stage, world.host, args);
    assert.match(await seen(), new RegExp(` was asked by ${peer} `));
    const found = await transparently(stage, world.host, 'check', args);
    assert.match(found, /^ok .*127\.0\.0\.1:80/m);
    assert.match(found, /^note: IPv6 is switched off here/m);
    assert.doesNotMatch(found, /::1/);
    await ended(running, 'SIGTERM');
    assert.equal(dump(world.host), before);
  }
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
  await transparently(stage, place, 'up', [...second, ...elsewhere]);
  await ended(running, 'SIGTERM');
  assert.match(dump(place), /lookup 900/);
  assert.doesNotMatch(dump(place), /lookup 24000/);
  await transparently(stage, place, 'down', elsewhere);
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

/** Longer than a while passes between two looks. */
const soonMs = 40_000;

test(
  'what somebody removes while it runs is made again, and what is in the way is said once',
  options,
  async (t) => {
    const stage = new Stage(t);
    const place = openHost(stage);
    const before = dump(place);
    const running = await startServing(stage, place, first);
    const up = dump(place);
    // As firewalls and network services do that start anew.
    inside(place, ['nft', 'flush', 'ruleset']);
    ipEach(place, ['rule del pref 60', '-6 rule del pref 60', 'route flush table 24000']);
    await until(() => sorted(dump(place)) === sorted(up), 'what was removed', soonMs);
    await running.says('somebody has removed a part of the transparent set-up: it is made again');

    inside(place, ['nft', 'flush', 'ruleset']);
    ipEach(place, ['rule add pref 60 from 198.18.9.9 lookup main']);
    const line = await running.says('the transparent set-up could not be kept in force', 1, soonMs);
    assert.match(String(line['reason']), /the priority 60 of ip -4 rule belongs to somebody else/);
    // It is found there once more.
    await sleep(12_000);
    ipEach(place, ['rule del pref 60 from 198.18.9.9']);
    await until(() => sorted(dump(place)) === sorted(up), 'it to be mended', soonMs);
    assert.equal(running.said('the transparent set-up could not be kept in force').length, 1);
    await ended(running, 'SIGTERM');
    assert.equal(dump(place), before);
  },
);

test('a bridge that comes up behind dualport is set up', options, async (t) => {
  const stage = new Stage(t);
  const world = openRoutedWorld(stage);
  await listenOn(stage, buildTools(stage), world.container, ['tcp 0.0.0.0 80']);
  // As docker0 before dockerd has started: the default route leads to the upstream.
  ipEach(world.host, ['link set container0 down', `route add default via ${client.v4}`]);
  const args = ['-p', '8080:80', '--to', container.v4, '--mismatch', 'plain'];
  await startServing(stage, world.host, as('transparent', args));
  assert.doesNotMatch(dump(world.host), /iif container0/);
  ipEach(world.host, ['link set container0 up']);
  await until(() => /iif container0 lookup/.test(dump(world.host)), 'its rule', soonMs);
  const answer = await curl(stage, world.client, `http://${host.v4}:8080/`);
  assert.match(answer.body, new RegExp(` was asked by ${client.v4} `));
});

test('a start that has come to nothing says nothing of a set-up', options, async (t) => {
  const stage = new Stage(t);
  const place = openHost(stage);
  const unprivileged = ['setpriv', '--reuid', '65534', '--clear-groups', '--inh-caps', '-all'];
  const words = [...unprivileged, process.execPath, ...serving(stage, first)];
  const [program = '', ...args] = words;
  const { code, stdout, stderr } = await stage.run(place, program, args);
  assert.equal(code, 77);
  assert.match(stderr, /source transparent needs the capability CAP_NET_RAW/);
  assert.doesNotMatch(stdout, /set-up/);
});

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
