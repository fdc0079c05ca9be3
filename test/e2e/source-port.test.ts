/** `sourcePort: keep`: the program sees the client's port too, unless that is taken. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { Stage } from '../support/dualport.ts';
import { namespacesOf } from '../support/namespace.ts';
import type { Seen } from '../support/namespace-programs.ts';
import { client as clientProgram } from '../support/namespace-traffic.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import {
  ask,
  clientAddress,
  containerAddress,
  hostAddress,
  openSourceWorld,
  ports,
  startDualport,
  startPrograms,
} from '../support/source-world.ts';

const options = { skip: skipWithoutCore('root', 'netns', 'nft'), timeout: 60_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

const keep = ['--source-port', 'keep'];

const modes = [
  { source: 'transparent', engine: 'linux' },
  { source: 'pseudo', engine: 'linux' },
  { source: 'pseudo', engine: 'portable' },
] as const;

for (const { source, engine } of modes) {
  const args = ['--source', source, '--engine', engine, ...keep];

  test(
    `the program sees the client's port, one connection after the other (${source}, ${engine})`,
    options,
    async (t) => {
      const stage = new Stage(t);
      const world = openSourceWorld(stage);
      await startPrograms(stage, world);
      const both = ['-t', containerAddress[4], '-t', containerAddress[6]];
      const dualport = await startDualport(stage, world, [
        ...ports,
        ...both,
        ...args,
        '--udp-timeout',
        '500ms',
        '--udp-stream-timeout',
        '500ms',
      ]);
      for (const family of [4, 6] as const) {
        for (const protocol of ['tcp', 'udp'] as const) {
          // Of TCP it is the client that must wait with its port; native/test/source.c has this side of it.
          for (let again = 0; again < (protocol === 'udp' ? 2 : 1); again++) {
            const before = dualport.flows.length;
            const seen = await ask(stage, world, protocol, family, { fromPort: 40_000 });
            assert.equal(seen.port, 40_000, `${protocol} ${family} ${again}`);
            if (source === 'transparent') assert.equal(seen.peer, clientAddress[family]);
            // The next one may have the port when this one is over.
            await until(() => dualport.flows.length > before, 'the end of the flow');
          }
        }
      }
    },
  );

  test(`a port that is taken is given up for another, once (${source}, ${engine})`, options, async (t) => {
    const stage = new Stage(t);
    const world = openSourceWorld(stage);
    await startPrograms(stage, world);
    // Two ways to the same program: what the client may do twice its address can do once.
    const twice = ['-p', '8080:80', '-p', '8081:80', '-p', '5300:53/udp', '-p', '5301:53/udp'];
    await startDualport(stage, world, [...twice, '-t', containerAddress[4], ...args]);
    for (const [name, port, secondPort] of [
      ['whoAmITwice', 8080, 8081],
      ['udpWhoAmITwice', 5300, 5301],
    ] as const) {
      const asked = { host: hostAddress[4], port, secondPort, fromPort: 40_000 };
      const answers = await clientProgram<readonly Seen[]>(stage, world.client, name, asked);
      assert.deepEqual(new Set(answers.map(({ peer }) => peer)).size, 1);
      assert.equal(answers[0]?.port, 40_000);
      assert.notEqual(answers[1]?.port, 40_000);
      assert.ok(answers[1]?.port);
    }
  });
}
