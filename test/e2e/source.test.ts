/**
 * Who the program in the container has for its peer: the client itself (transparent), or an address that stands for it
 * (pseudo). The rules of the kernel are set by hand; addresses, sockets and programs are real.
 */
import assert from 'node:assert/strict';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { type Dualport, here, Stage } from '../support/dualport.ts';
import { addresses, namespacesOf } from '../support/namespace.ts';
import type { Answer, Seen } from '../support/namespace-programs.ts';
import { client as clientProgram, serve } from '../support/namespace-traffic.ts';
import { main } from '../support/process.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import { argumentsOf, type Path, paths, titled } from '../support/source-paths.ts';
import {
  ask,
  clientAddress,
  containerAddress,
  embeddedClient,
  openSourceWorld,
  ports,
  pseudoIpv4,
  startDualport,
  startPrograms,
  stopDualport,
} from '../support/source-world.ts';

const { client, host } = addresses;
const options = { skip: skipWithoutCore('root', 'netns', 'nft'), timeout: 60_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

for (const path of paths) {
  test(
    `${titled(path)}: the program's peer is ${path.peer}, and the same after a restart`,
    options,
    async (t) => {
      const stage = new Stage(t);
      const world = openSourceWorld(stage);
      await startPrograms(stage, world);
      const state = ['--state-dir', join(stage.directory(), 'state')];
      const peers = new Set<string>();
      for (let start = 0; start < 2; start++) {
        const dualport = await startDualport(stage, world, [...ports, ...argumentsOf(path), ...state]);
        for (const protocol of ['tcp', 'udp', 'tcp', 'udp'] as const) {
          const seen = await ask(stage, world, protocol, path.from);
          peers.add(seen.peer);
          if (protocol === 'tcp') await isLogged(dualport, path, seen);
        }
        assert.deepEqual(dualport.complaints, []);
        await stopDualport(dualport);
        const ended = dualport.flows.filter((line) => line['network.transport'] === 'udp');
        assert.equal(ended.length, 2);
        for (const line of ended)
          assert.ok(peers.has(String(line['dualport.source.address'])), JSON.stringify(line));
      }
      const [peer = '', ...others] = peers;
      assert.deepEqual(others, []);
      if (typeof path.peer === 'string') assert.equal(peer, path.peer);
      else assert.match(peer, path.peer);
    },
  );
}

/** The line of a flow has both addresses: the client's, and the one the program saw, to the port. */
async function isLogged(dualport: Dualport, { from }: Path, seen: Seen): Promise<void> {
  const line = await dualport.flow((flow) => flow['client.port'] === seen.clientPort);
  assert.equal(line['client.address'], clientAddress[from]);
  assert.equal(line['dualport.source.address'], seen.peer);
  assert.equal(line['dualport.source.port'], seen.port);
  assert.equal(line['dualport.close_reason'], 'done');
}

test('an upstream of the other family is fallen back to, under a pseudo address', options, async (t) => {
  const stage = new Stage(t);
  const world = openSourceWorld(stage);
  await serve(stage, world.container, 'who', { host: '0.0.0.0', port: 80 });
  await serve(stage, world.container, 'udpWho', { host: '0.0.0.0', port: 53 });
  const both = ['-t', containerAddress[4], '-t', containerAddress[6]];
  const dualport = await startDualport(stage, world, [...ports, ...both, '--source', 'transparent']);
  const tcp = await ask(stage, world, 'tcp', 6);
  assert.match(tcp.peer, pseudoIpv4);
  assert.equal((await ask(stage, world, 'udp', 6)).peer, tcp.peer);
  const line = await dualport.flow();
  assert.equal(line['dualport.fallback'], true);
  assert.equal(line['dualport.source.address'], tcp.peer);
});

test('a client that a PROXY header names is shown, and not the proxy', options, async (t) => {
  const stage = new Stage(t);
  const world = openSourceWorld(stage);
  await serve(stage, world.container, 'web', { host: '0.0.0.0', port: 80 });
  const accept = ['--accept-proxy', client.v4, '--source', 'transparent'];
  await startDualport(stage, world, ['-p', '8080:80', '-t', containerAddress[4], ...accept]);
  const said = 'PROXY TCP4 203.0.113.77 198.18.1.1 40000 8080\r\nGET / HTTP/1.0\r\n\r\n';
  const asked = { host: host.v4, port: 8080, hex: Buffer.from(said).toString('hex') };
  const { text } = await clientProgram<Answer>(stage, world.client, 'say', asked);
  assert.match(text, /was asked by 203\.0\.113\.77\n$/);
});

/** `dualport pseudo` on what a running dualport keeps. */
async function lookUp(
  stage: Stage,
  state: string,
  address: string,
): Promise<{ code: number | null; said: string }> {
  const args = [main, 'pseudo', address, '--state-dir', state];
  const { code, stdout, stderr } = await stage.run(here, process.execPath, args);
  return { code, said: stdout + stderr };
}

test('dualport pseudo leads from what the program saw to the client, and back', options, async (t) => {
  const stage = new Stage(t);
  const world = openSourceWorld(stage);
  await startPrograms(stage, world);
  const state = join(stage.directory(), 'state');
  await startDualport(stage, world, [
    ...ports,
    '-t',
    containerAddress[4],
    '--source',
    'pseudo',
    '--state-dir',
    state,
  ]);
  const { peer } = await ask(stage, world, 'tcp', 6);
  const sentence = new RegExp(
    String.raw`^client 2001:db8:1::/64 is ${peer.replaceAll('.', '\\.')} to IPv4 upstreams and fd5f:bf90:309::\S+ to IPv6 upstreams \(last used 20\S+Z\)\n$`,
  );
  const table = join(state, 'pseudo.table');
  await until(() => existsSync(table) && statSync(table).size > 0, 'the address on disk');
  for (const address of [peer, client.v6, '2001:db8:1::ffff']) {
    const { code, said } = await lookUp(stage, state, address);
    assert.equal(code, 0, said);
    assert.match(said, sentence);
  }
  const embedded = await lookUp(stage, state, embeddedClient);
  assert.match(
    embedded.said,
    /^client 198\.18\.1\.2\/32 is 2[45]\d\.\S+ to IPv4 upstreams and fd5f:bf90:309::c612:102 /,
  );
  const nobody = await lookUp(stage, state, '240.9.9.9');
  assert.deepEqual(nobody, {
    code: 1,
    said: `dualport: 240.9.9.9 was given to nobody that ${state} knows of\n`,
  });
});
