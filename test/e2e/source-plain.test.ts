/**
 * Clients that a transparent rule cannot show, because the answers to them would not come back: they are served all the
 * same, counted, and told of once.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type Dualport, Stage } from '../support/dualport.ts';
import { addresses, ip, namespacesOf, type World } from '../support/namespace.ts';
import type { ProgramArguments } from '../support/namespace-programs.ts';
import { curl } from '../support/namespace-traffic.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import {
  ask,
  containerAddress,
  type Family,
  openSourceWorld,
  ports,
  startDualport,
  startPrograms,
} from '../support/source-world.ts';

const { gateway, host, container } = addresses;
const options = { skip: skipWithoutCore('root', 'netns', 'nft', 'curl'), timeout: 60_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

interface Client {
  readonly kind: string;
  readonly at: keyof World;
  readonly family: Family;
  readonly asks: Pick<ProgramArguments, 'host'> & Partial<ProgramArguments>;
  /** What the container has for its peer: dualport's own address towards it. */
  readonly reason: string;
}

const neighbour = { 4: '198.18.2.3', 6: 'fd00:2::3' } as const;

const clients: readonly Client[] = [
  { kind: 'a program on the host', at: 'host', family: 4, asks: { host: host.v4 }, reason: 'own-address' },
  { kind: 'a program on the host', at: 'host', family: 6, asks: { host: host.v6 }, reason: 'own-address' },
  {
    kind: 'a program on loopback',
    at: 'host',
    family: 4,
    asks: { host: '127.0.0.1' },
    reason: 'own-address',
  },
  {
    kind: 'a neighbour of the container',
    at: 'container',
    family: 4,
    asks: { host: gateway.v4, from: neighbour[4] },
    reason: 'same-subnet',
  },
  {
    kind: 'a neighbour of the container',
    at: 'container',
    family: 6,
    asks: { host: gateway.v6, from: neighbour[6] },
    reason: 'same-subnet',
  },
  {
    kind: 'the container itself',
    at: 'container',
    family: 4,
    asks: { host: gateway.v4, from: container.v4 },
    reason: 'upstream-itself',
  },
  {
    kind: 'the container itself',
    at: 'container',
    family: 6,
    asks: { host: gateway.v6, from: container.v6 },
    reason: 'upstream-itself',
  },
  {
    kind: 'a client by a link-local address',
    at: 'client',
    family: 6,
    asks: { host: `${host.linkLocal}%eth0` },
    reason: 'link-local',
  },
];

for (const { kind, at, family, asks, reason } of clients) {
  test(`${kind} goes plain: ${reason} (IPv${family})`, options, async (t) => {
    const stage = new Stage(t);
    const world = openSourceWorld(stage);
    // Not preferred, or programs on every address would answer from it.
    ip(world.container, [
      `address add ${neighbour[4]}/24 dev eth0`,
      `address add ${neighbour[6]}/64 dev eth0 nodad preferred_lft 0`,
    ]);
    await startPrograms(stage, world);
    const both = ['-t', containerAddress[4], '-t', containerAddress[6], '--admin', '127.0.0.1:9090'];
    const dualport = await startDualport(stage, world, [...ports, ...both, '--source', 'transparent']);
    for (const protocol of ['tcp', 'udp', 'tcp'] as const) {
      const { peer } = await ask(stage, world, protocol, family, { at, ...asks });
      assert.equal(peer, gateway[`v${family}`], protocol);
    }
    const line = await dualport.flow();
    assert.equal(line['dualport.source.plain'], reason);
    assert.equal(line['dualport.source.address'], undefined);
    await isCounted(stage, world, { tcp: 2, udp: 1 }, reason.replaceAll('-', '_'));
    isToldOnce(dualport, reason);
  });
}

async function isCounted(
  stage: Stage,
  world: World,
  flows: Record<'tcp' | 'udp', number>,
  reason: string,
): Promise<void> {
  const { body } = await curl(stage, world.host, 'http://127.0.0.1:9090/metrics');
  const counted = body
    .split('\n')
    .filter((line) => line.startsWith('dualport_source_plain_total{') && !line.endsWith(' 0'));
  assert.deepEqual(counted, [
    `dualport_source_plain_total{rule="8080:80/tcp",reason="${reason}"} ${flows.tcp}`,
    `dualport_source_plain_total{rule="5300:53/udp",reason="${reason}"} ${flows.udp}`,
  ]);
}

/** Of the TCP rule; the UDP flow has not ended. */
function isToldOnce(dualport: Dualport, reason: string): void {
  const told = dualport.running.lines.filter((line) => line['reason'] === reason);
  assert.equal(told.length, 1);
  assert.match(
    String(told[0]?.['msg']),
    /^the upstream saw dualport and not this client, and so with all like it: /,
  );
}
