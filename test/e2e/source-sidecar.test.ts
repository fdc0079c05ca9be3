/** A program that is on the host itself, beside dualport, on its loopback addresses: what a sidecar has before it. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Stage } from '../support/dualport.ts';
import { ip, namespacesOf, openWorld, setSysctl, type World } from '../support/namespace.ts';
import { serve } from '../support/namespace-traffic.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import { divertLoopbackAnswers, pseudoIpv4Route, pseudoIpv6Route } from '../support/source-rules.ts';
import {
  ask,
  clientAddress,
  ports,
  pseudoIpv4,
  pseudoIpv6,
  startDualport,
  stopDualport,
} from '../support/source-world.ts';

const options = { skip: skipWithoutCore('root', 'netns', 'nft'), timeout: 60_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

/** A program on the host itself, beside dualport, on these addresses. */
async function besides(stage: Stage, world: World, on: readonly string[]): Promise<void> {
  for (const address of on) {
    await serve(stage, world.host, 'who', { host: address, port: 80 });
    await serve(stage, world.host, 'udpWho', { host: address, port: 53 });
  }
}

test('a sidecar on loopback sees its clients transparently', options, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  divertLoopbackAnswers(world);
  await besides(stage, world, ['127.0.0.1', '::1']);
  await startDualport(stage, world, [...ports, '--source', 'transparent']);
  for (const family of [4, 6] as const) {
    for (const protocol of ['tcp', 'udp'] as const) {
      assert.equal(
        (await ask(stage, world, protocol, family)).peer,
        clientAddress[family],
        `${protocol} ${family}`,
      );
    }
  }
});

for (const engine of ['linux', 'portable'] as const) {
  test(
    `a sidecar sees pseudo addresses, its programs on every address (${engine} engine)`,
    options,
    async (t) => {
      const stage = new Stage(t);
      const world = openWorld(stage);
      // An answer of a wildcard socket has no source until it is routed: without src it would have the pseudo address.
      ip(world.host, [`${pseudoIpv4Route} src 127.0.0.1`, `${pseudoIpv6Route} src ::1`]);
      setSysctl(world.host, 'ipv6/ip_nonlocal_bind', 1);
      await besides(stage, world, ['0.0.0.0', '::']);
      for (const to of ['127.0.0.1', '::1']) {
        const peers =
          to === '::1' ? { 4: /^fd5f:bf90:309::c612:102$/, 6: pseudoIpv6 } : { 4: pseudoIpv4, 6: pseudoIpv4 };
        const dualport = await startDualport(stage, world, [
          ...ports,
          '-t',
          to,
          '--source',
          'pseudo',
          '--engine',
          engine,
        ]);
        for (const family of [4, 6] as const) {
          for (const protocol of ['tcp', 'udp'] as const) {
            const { peer } = await ask(stage, world, protocol, family);
            assert.match(peer, peers[family], `${protocol} ${family} to ${to}`);
          }
        }
        await stopDualport(dualport);
      }
    },
  );
}
