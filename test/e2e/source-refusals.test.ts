/** What cannot be had is refused at start with the reason and the remedy; what needs no privilege runs without one. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Stage } from '../support/dualport.ts';
import { addresses, ip, namespacesOf, openWorld, setSysctl, type World } from '../support/namespace.ts';
import { curl } from '../support/namespace-traffic.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import { pseudoIpv4Route, pseudoIpv6Route, routeThroughHost } from '../support/source-rules.ts';
import {
  ask,
  containerAddress,
  embeddedClient,
  openSourceWorld,
  ports,
  pseudoIpv4,
  startDualport,
  startPrograms,
  stopDualport,
} from '../support/source-world.ts';

const { container } = addresses;
const options = { skip: skipWithoutCore('root', 'netns', 'nft', 'curl', 'setpriv'), timeout: 60_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

/** Root, but without the right to other hosts' addresses. */
const withoutRight = [
  'setpriv',
  '--bounding-set',
  '-net_admin,-net_raw',
  '--inh-caps',
  '-net_admin,-net_raw',
];
const nobody = [
  'setpriv',
  '--reuid',
  '65534',
  '--regid',
  '65534',
  '--clear-groups',
  '--bounding-set',
  '-all',
  '--inh-caps',
  '-all',
];

const transparent = [...ports, '-t', containerAddress[4], '--source', 'transparent'];

async function refused(stage: Stage, world: World, args: readonly string[], prefix: readonly string[] = []) {
  const { prefix: inside } = world.host;
  return stage.refusedDualport({ prefix: [...inside, ...prefix] }, args);
}

test('transparent without the privilege is refused before anything is bound', options, async (t) => {
  const stage = new Stage(t);
  const world = openSourceWorld(stage);
  const { code, stderr, stdout } = await refused(stage, world, transparent, withoutRight);
  assert.equal(code, 77);
  assert.equal(
    stderr,
    'dualport: 8080:80/tcp: source transparent needs the capability CAP_NET_RAW or CAP_NET_ADMIN; grant one of them ' +
      '(systemd: AmbientCapabilities=CAP_NET_RAW, docker run --cap-add NET_RAW with a user that is root), ' +
      'or use source pseudo, which needs neither\n',
  );
  assert.doesNotMatch(stdout, /listening/);
});

for (const capability of ['net_raw', 'net_admin']) {
  test(`${capability} alone is enough`, options, async (t) => {
    const stage = new Stage(t);
    const world = openSourceWorld(stage);
    await startPrograms(stage, world);
    const only = ['setpriv', '--bounding-set', `-all,+${capability}`, '--inh-caps', `-all,+${capability}`];
    await startDualport(stage, world, transparent, only);
    assert.equal((await ask(stage, world, 'tcp', 4)).peer, addresses.client.v4);
    assert.equal((await ask(stage, world, 'udp', 4)).peer, addresses.client.v4);
  });
}

test('transparent on the portable engine is refused, by the configuration alone', options, async (t) => {
  const stage = new Stage(t);
  const world = openSourceWorld(stage);
  const { code, stderr } = await refused(stage, world, [...transparent, '--engine', 'portable']);
  assert.equal(code, 78);
  assert.match(
    stderr,
    /^dualport: 8080:80\/tcp: found source transparent and engine portable, .*; use engine linux, or source pseudo\n$/,
  );
});

test('a reload to what is not allowed changes nothing', options, async (t) => {
  const stage = new Stage(t);
  const world = openSourceWorld(stage);
  await startPrograms(stage, world);
  const file = join(stage.directory(), 'dualport.yaml');
  const write = (source: string) =>
    writeFileSync(file, `publish:\n  - { ports: "8080:80", to: ${container.v4}, source: ${source} }\n`);
  write('none');
  const dualport = await startDualport(stage, world, ['-c', file], withoutRight);
  write('transparent');
  dualport.running.signal('SIGHUP');
  const line = await dualport.running.says('configuration not reloaded: the old one stays in force');
  assert.equal(line['code'], 'PRIVILEGE');
  assert.equal((await ask(stage, world, 'tcp', 4)).peer, addresses.gateway.v4);
});

for (const engine of ['linux', 'portable'] as const) {
  test(`pseudo addresses need no privilege (${engine} engine)`, options, async (t) => {
    const stage = new Stage(t);
    const world = openSourceWorld(stage);
    await startPrograms(stage, world);
    const both = ['-t', containerAddress[4], '-t', containerAddress[6], '--family', 'prefer-v4'];
    const state = join(stage.directory(), 'state');
    const args = [...ports, ...both, '--source', 'pseudo', '--engine', engine, '--state-dir', state];
    const dualport = await startDualport(stage, world, args, nobody);
    const { peer } = await ask(stage, world, 'tcp', 6);
    assert.match(peer, pseudoIpv4);
    assert.equal((await ask(stage, world, 'udp', 6)).peer, peer);
    const [warning, ...others] = dualport.complaints.map(({ msg }) => String(msg));
    assert.deepEqual(others, []);
    assert.match(
      warning ?? '',
      /^pseudo addresses cannot be kept in .*, they change with the next start: EACCES: .*; give --state-dir a directory that this user may write to$/,
    );
    assert.ok(!existsSync(state));
  });
}

test('what is kept where nothing can be written holds, with a warning', options, async (t) => {
  const stage = new Stage(t);
  const world = openSourceWorld(stage);
  await startPrograms(stage, world);
  const parent = stage.directory();
  chmodSync(parent, 0o755);
  const state = join(parent, 'state');
  mkdirSync(state);
  chmodSync(state, 0o777);
  const args = [...ports, '-t', containerAddress[4], '--source', 'pseudo', '--state-dir', state];
  const before = await startDualport(stage, world, args, nobody);
  const { peer } = await ask(stage, world, 'tcp', 6);
  assert.deepEqual(before.complaints, []);
  before.running.signal('SIGTERM');
  await before.running.exit;
  chmodSync(state, 0o555);
  const dualport = await startDualport(stage, world, args, nobody);
  assert.equal((await ask(stage, world, 'tcp', 6)).peer, peer);
  const warnings = dualport.complaints.map(({ msg }) => String(msg));
  assert.equal(warnings.length, 1);
  assert.match(warnings[0] ?? '', /^pseudo addresses cannot be kept in .*, new ones are not kept: EACCES/);
});

/** Starts dualport with what is kept in `state` and ends it: whom the program saw, and what was complained of. */
async function pseudoOnce(
  stage: Stage,
  world: World,
  state: string,
  prefix: readonly string[] = [],
): Promise<{ peer: string; warnings: readonly string[] }> {
  const args = [...ports, '-t', containerAddress[4], '--source', 'pseudo', '--state-dir', state];
  const dualport = await startDualport(stage, world, args, prefix);
  const { peer } = await ask(stage, world, 'tcp', 6);
  await stopDualport(dualport);
  return { peer, warnings: dualport.complaints.map(({ msg }) => String(msg)) };
}

test(
  'a damaged table is a warning at start, is kept aside, and nobody gets another address',
  options,
  async (t) => {
    const stage = new Stage(t);
    const world = openSourceWorld(stage);
    await startPrograms(stage, world);
    const state = join(stage.directory(), 'state');
    const before = await pseudoOnce(stage, world, state);
    assert.deepEqual(before.warnings, []);
    const damaged = Buffer.concat([Buffer.alloc(300), readFileSync(join(state, 'pseudo.table'))]);
    writeFileSync(join(state, 'pseudo.table'), damaged);
    const after = await pseudoOnce(stage, world, state);
    assert.equal(after.peer, before.peer);
    assert.equal(after.warnings.length, 1);
    assert.match(
      after.warnings[0] ?? '',
      /^\d+ lines of the pseudo addresses were damaged and are left out; the file is kept as /,
    );
    const aside = readdirSync(state).filter((name) => name.startsWith('pseudo.table.damaged-'));
    assert.deepEqual(readFileSync(join(state, aside[0] ?? '')), damaged);
    assert.deepEqual(await pseudoOnce(stage, world, state), before);
  },
);

/** A mount of its own over the directory, which root cannot write to either, as in a container that is read-only. */
const readOnly = (directory: string) => [
  'unshare',
  '--mount',
  'sh',
  '-ec',
  `mount --bind ${directory} ${directory}; mount -o remount,bind,ro ${directory}; exec "$@"`,
  'sh',
];

test('a file system that is read-only is a warning at start, and what it has holds', options, async (t) => {
  const stage = new Stage(t);
  const world = openSourceWorld(stage);
  await startPrograms(stage, world);
  const state = join(stage.directory(), 'state');
  const before = await pseudoOnce(stage, world, state);
  const after = await pseudoOnce(stage, world, state, readOnly(state));
  assert.equal(after.peer, before.peer);
  assert.equal(after.warnings.length, 1);
  assert.match(
    after.warnings[0] ?? '',
    /^pseudo addresses cannot be kept in .*, new ones are not kept: EROFS: /,
  );
});

test(
  'pseudo without its route: a warning with the command, resets, and all is well after it',
  options,
  async (t) => {
    const stage = new Stage(t);
    const world = openWorld(stage);
    routeThroughHost(world);
    await startPrograms(stage, world);
    const args = [...ports, '-t', containerAddress[4], '--source', 'pseudo', '--admin', '127.0.0.1:9090'];
    const dualport = await startDualport(stage, world, args);
    const [warning] = dualport.complaints;
    assert.equal(warning?.['command'], `ip ${pseudoIpv4Route}`);
    assert.equal(
      warning?.['msg'],
      'packets to pseudo addresses of IPv4 do not come here, so clients cannot reach IPv4 upstreams; see the command',
    );
    for (const family of [4, 6] as const) {
      assert.equal((await ask(stage, world, 'tcp', family)).ending, 'ECONNRESET');
      assert.equal((await ask(stage, world, 'udp', family)).ending, 'silence');
    }
    const line = await dualport.flow();
    assert.equal(line['dualport.close_reason'], 'source-unavailable');
    assert.match(String(line['dualport.source.address']), pseudoIpv4);
    const { body } = await curl(stage, world.host, 'http://127.0.0.1:9090/metrics');
    for (const rule of ['8080:80/tcp', '5300:53/udp']) {
      assert.ok(
        body.includes(`dualport_upstream_connect_failures_total{rule="${rule}",reason="source"} 2`),
        body,
      );
    }
    ip(world.host, [pseudoIpv4Route]);
    for (const protocol of ['tcp', 'udp'] as const) {
      assert.match((await ask(stage, world, protocol, 6)).peer, pseudoIpv4);
    }
  },
);

test('transparent without a set-up: the first time-out of a rule says what tells why', options, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  routeThroughHost(world);
  await startPrograms(stage, world);
  const args = [...transparent, '--mismatch', 'plain', '--connect-timeout', '500ms'];
  const dualport = await startDualport(stage, world, args);
  for (let i = 0; i < 2; i++) assert.equal((await ask(stage, world, 'tcp', 4)).ending, 'ECONNRESET');
  // A client that is not shown is served, and is no reason.
  assert.equal((await ask(stage, world, 'tcp', 6)).peer, addresses.gateway.v4);
  await dualport.flow((line) => line['client.address'] === addresses.client.v6);
  const said = dualport.complaints.filter(({ msg }) => /^no answer has come/.test(String(msg)));
  assert.deepEqual(
    said.map(({ rule, source, command }) => [rule, source, command]),
    [['8080:80/tcp', addresses.client.v4, 'dualport transparent check']],
  );
});

/** Without the sysctl, which the core does not need. */
for (const [engine, command, works] of [
  ['linux', `ip -6 ${pseudoIpv6Route}`, true],
  ['portable', `ip -6 ${pseudoIpv6Route} && sysctl -w net.ipv6.ip_nonlocal_bind=1`, false],
] as const) {
  test(`before an IPv6 upstream the ${engine} engine says what it needs: ${command}`, options, async (t) => {
    const stage = new Stage(t);
    const world = openWorld(stage);
    routeThroughHost(world);
    await startPrograms(stage, world);
    const args = ['-p', '8080:80', '-t', containerAddress[6], '--source', 'pseudo', '--engine', engine];
    const dualport = await startDualport(stage, world, args);
    assert.deepEqual(
      dualport.complaints.map((line) => line['command']),
      [command],
    );
    // Without the route nothing comes back to the core's sockets, and none of node:net is bound at all.
    ip(world.host, [pseudoIpv6Route]);
    const first = await ask(stage, world, 'tcp', 4);
    assert.deepEqual([first.peer, first.ending], works ? [embeddedClient, 'end'] : ['', 'ECONNRESET']);
    setSysctl(world.host, 'ipv6/ip_nonlocal_bind', 1);
    assert.equal((await ask(stage, world, 'tcp', 4)).peer, embeddedClient);
  });
}
