/** The datagrams of a program and its client, when it sees the client through a foreign or a pseudo address. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { Stage } from '../support/dualport.ts';
import { namespacesOf } from '../support/namespace.ts';
import type { Transfer } from '../support/namespace-programs.ts';
import { client as clientProgram, serve } from '../support/namespace-traffic.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import { argumentsOf, paths, titled } from '../support/source-paths.ts';
import {
  hostAddress,
  openSourceWorld,
  startDualport,
  stopDualport,
  wildcard,
} from '../support/source-world.ts';

const options = { skip: skipWithoutCore('root', 'netns', 'nft'), timeout: 60_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

const bytes = 64 * 1024 * 1024;

for (const path of paths.filter(({ source, from, to }) => source === 'transparent' || from !== to)) {
  test(`${titled(path)}: 64 MiB each way in datagrams arrive whole and in order`, options, async (t) => {
    const stage = new Stage(t);
    const world = openSourceWorld(stage);
    const at = { host: wildcard[path.to], port: 53, bytes };
    const server = await serve(stage, world.container, 'udpTransferServer', at);
    const dualport = await startDualport(stage, world, ['-p', '5300:53/udp', ...argumentsOf(path)]);
    const asked = { host: hostAddress[path.from], port: 5300, bytes };
    const atClient = await clientProgram<Transfer>(stage, world.client, 'udpTransferClient', asked);
    assert.equal(atClient.ending, 'end');
    await until(() => server.stdout.endsWith('\n'), 'the server to be done');
    const { peer, ...atServer }: Transfer = JSON.parse(server.stdout);
    assert.deepEqual(atClient, { sent: atServer.received, received: atServer.sent, ending: 'end' });
    await stopDualport(dualport);
    const flow = await dualport.flow();
    assert.equal(flow['dualport.bytes.from_client'], bytes);
    assert.equal(flow['dualport.bytes.from_upstream'], bytes);
    assert.equal(flow['dualport.source.address'], peer);
    assert.match(String(peer), new RegExp(path.peer));
  });
}
