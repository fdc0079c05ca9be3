/** What a transparent rule does with a client that is not of the upstream's family, and when it is told to decide. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type Dualport, Stage } from '../support/dualport.ts';
import { addresses, ip, namespacesOf, openWorld, type World } from '../support/namespace.ts';
import { serve } from '../support/namespace-traffic.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import {
  divertAnswers,
  pseudoIpv4Route,
  pseudoIpv6Route,
  routeThroughHost,
} from '../support/source-rules.ts';
import {
  ask,
  clientAddress,
  containerAddress,
  embeddedClient,
  type Family,
  openSourceWorld,
  ports,
  pseudoIpv4,
  startDualport,
  startPrograms,
  wildcard,
} from '../support/source-world.ts';

const { gateway } = addresses;
const options = { skip: skipWithoutCore('root', 'netns', 'nft'), timeout: 60_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

const transparent = ['--source', 'transparent'];
const other = (family: Family): Family => (family === 4 ? 6 : 4);

/** Both programs say what they were told first: a header, or the client's hello. */
async function tellAll(stage: Stage, world: World): Promise<void> {
  for (const address of Object.values(wildcard)) {
    await serve(stage, world.container, 'whoSaysWhat', { host: address, port: 80 });
    await serve(stage, world.container, 'udpWhoSaysWhat', { host: address, port: 53 });
  }
}

const hello = Buffer.from('hello').toString('hex');
const peers = {
  4: { pseudo: embeddedClient, plain: gateway.v6 },
  6: { pseudo: pseudoIpv4, plain: gateway.v4 },
};

for (const [mismatch, kind] of [
  ['pseudo', 'pseudo'],
  ['auto', 'pseudo'],
  ['plain', 'plain'],
  ['proxy-v2', 'plain'],
] as const) {
  test(`mismatch ${mismatch}: ${kind} between the families, transparent within one`, options, async (t) => {
    const stage = new Stage(t);
    const world = openSourceWorld(stage);
    await tellAll(stage, world);
    for (const from of [4, 6] as const) {
      const to = containerAddress[other(from)];
      const args = [...ports, '-t', to, ...transparent, '--mismatch', mismatch];
      const dualport = await startDualport(stage, world, args);
      for (const protocol of ['tcp', 'udp'] as const) {
        const seen = await ask(stage, world, protocol, from);
        const expected = peers[from][kind];
        if (typeof expected === 'string') assert.equal(seen.peer, expected);
        else assert.match(seen.peer, expected);
        assert.equal(
          seen.told,
          mismatch === 'proxy-v2' ? headerOf(protocol, from, seen.clientPort) + hello : hello,
        );
        const same = await ask(stage, world, protocol, other(from));
        assert.deepEqual([same.peer, same.told], [clientAddress[other(from)], hello]);
      }
      await endAll(dualport);
    }
  });
}

/** The next one needs the ports. */
async function endAll({ running }: Dualport): Promise<void> {
  running.signal('SIGKILL');
  await running.exit;
}

/** A header of version 2 with both addresses of the client's side, in hexadecimal. */
function headerOf(protocol: 'tcp' | 'udp', family: Family, port: number): string {
  const kind = (family === 4 ? 0x10 : 0x20) + (protocol === 'tcp' ? 1 : 2);
  const hex = (number: number, digits: number) => number.toString(16).padStart(digits, '0');
  const from = family === 4 ? 'c6120102' : '20010db8000100000000000000000002';
  const to = family === 4 ? 'c6120101' : '20010db8000100000000000000000001';
  const addressesAndPorts = from + to + hex(port, 4) + hex(protocol === 'tcp' ? 8080 : 5300, 4);
  return `0d0a0d0a000d0a515549540a21${hex(kind, 2)}${hex(addressesAndPorts.length / 2, 4)}${addressesAndPorts}`;
}

test('mismatch refuse resets the other family, and serves the same', options, async (t) => {
  const stage = new Stage(t);
  const world = openSourceWorld(stage);
  await startPrograms(stage, world);
  const args = [...ports, '-t', containerAddress[4], ...transparent, '--mismatch', 'refuse'];
  const dualport = await startDualport(stage, world, args);
  assert.equal((await ask(stage, world, 'tcp', 6)).ending, 'ECONNRESET');
  assert.equal((await ask(stage, world, 'udp', 6)).ending, 'silence');
  for (const protocol of ['tcp', 'udp'] as const) {
    assert.equal((await ask(stage, world, protocol, 4)).peer, clientAddress[4]);
    const refused = await dualport.flow(
      (line) => line['network.transport'] === protocol && line['network.type'] === 'ipv6',
    );
    assert.equal(refused['dualport.close_reason'], 'family-mismatch');
  }
});

/** Everything for transparent sockets, nothing for pseudo addresses. */
function openWithoutPseudo(stage: Stage): World {
  const world = openWorld(stage);
  routeThroughHost(world);
  divertAnswers(world);
  return world;
}

const says =
  'packets to pseudo addresses of IPv4 do not come here, so IPv6 clients are not sent to IPv4 upstreams';

test(
  'mismatch auto refuses where pseudo addresses are not set up, says how, and serves after a reload',
  options,
  async (t) => {
    const stage = new Stage(t);
    const world = openWithoutPseudo(stage);
    await startPrograms(stage, world);
    const dualport = await startDualport(stage, world, [...ports, '-t', containerAddress[4], ...transparent]);
    const warnings = dualport.complaints.map(({ rule, command, msg }) => ({ rule, command, msg }));
    const expected = { command: `ip ${pseudoIpv4Route}`, msg: `${says}; see the command` };
    assert.deepEqual(warnings, [
      { rule: '8080:80/tcp', ...expected },
      { rule: '5300:53/udp', ...expected },
    ]);
    assert.equal((await ask(stage, world, 'tcp', 6)).ending, 'ECONNRESET');
    assert.equal((await ask(stage, world, 'tcp', 4)).peer, clientAddress[4]);
    ip(world.host, [pseudoIpv4Route]);
    dualport.running.signal('SIGHUP');
    await dualport.running.says('configuration reloaded');
    for (const protocol of ['tcp', 'udp'] as const) {
      assert.match((await ask(stage, world, protocol, 6)).peer, pseudoIpv4);
    }
    assert.equal(dualport.running.said('packets to pseudo addresses of IPv4 come here now').length, 2);
  },
);

test('a route that comes and goes while dualport runs is seen in time', options, async (t) => {
  const stage = new Stage(t);
  const world = openWithoutPseudo(stage);
  await serve(stage, world.container, 'who', { host: '::', port: 80 });
  const args = ['-p', '8080:80', '-t', containerAddress[6], ...transparent];
  const dualport = await startDualport(stage, world, args);
  assert.deepEqual(
    dualport.complaints.map(({ command }) => command),
    [`ip -6 ${pseudoIpv6Route}`],
  );
  assert.equal((await ask(stage, world, 'tcp', 4)).ending, 'ECONNRESET');
  ip(world.host, [pseudoIpv6Route]);
  await dualport.running.says('packets to pseudo addresses of IPv6 come here now', 1, 15_000);
  assert.equal((await ask(stage, world, 'tcp', 4)).peer, embeddedClient);
  ip(world.host, [pseudoIpv6Route.replace('add', 'del')]);
  const warning =
    'packets to pseudo addresses of IPv6 do not come here, so IPv4 clients are not sent to IPv6 upstreams; see the command';
  await dualport.running.says(warning, 2, 15_000);
  assert.equal((await ask(stage, world, 'tcp', 4)).ending, 'ECONNRESET');
  assert.equal((await ask(stage, world, 'tcp', 6)).peer, clientAddress[6]);
});
