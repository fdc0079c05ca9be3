/**
 * What is left of a flow, and what reaches the client of it: no socket with its address, since that would swallow what is
 * sent to it later, and no ICMP message about packets that it has never sent.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { type Dualport, listening, Stage } from '../support/dualport.ts';
import { addresses, ip, namespacesOf, setSysctl, type World } from '../support/namespace.ts';
import { programFile } from '../support/namespace-programs.ts';
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

const { client, host } = addresses;
const options = { skip: skipWithoutCore('root', 'netns', 'nft'), timeout: 60_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

/** As /proc/net has them. */
const hexClient = { 4: '020112C6', 6: 'B80D0120000001000000000002000000' } as const;
const timeWait = '06';

/** Sockets in dualport's namespace that have the client's address for their own. */
function socketsAs({ running }: Dualport, protocol: 'tcp' | 'udp', family: Family): readonly string[] {
  const table = family === 4 ? protocol : `${protocol}6`;
  const lines = readFileSync(`/proc/${running.child.pid}/net/${table}`, 'utf8').split('\n');
  return lines.flatMap((line) => {
    const [, local = '', , state = ''] = line.trim().split(/\s+/);
    return local.startsWith(`${hexClient[family]}:`) && state !== timeWait ? [`${local} ${state}`] : [];
  });
}

const transparent = ['-t', containerAddress[4], '-t', containerAddress[6], '--source', 'transparent'];

for (const family of [4, 6] as const) {
  test(`no socket with the client's address outlives its flow (IPv${family})`, options, async (t) => {
    const stage = new Stage(t);
    const world = openSourceWorld(stage);
    await startPrograms(stage, world);
    const soon = ['--udp-stream-timeout', '1s'];
    const dualport = await startDualport(stage, world, [...ports, ...transparent, ...soon]);
    await ask(stage, world, 'udp', family);
    assert.equal(socketsAs(dualport, 'udp', family).length, 1);
    await ask(stage, world, 'tcp', family);
    await dualport.flow((line) => line['network.transport'] === 'tcp');
    assert.deepEqual(socketsAs(dualport, 'tcp', family), []);
    await dualport.flow((line) => line['network.transport'] === 'udp');
    assert.deepEqual(socketsAs(dualport, 'udp', family), []);
  });

  test(`nor does one of a connection that came to nothing (IPv${family})`, options, async (t) => {
    const stage = new Stage(t);
    const world = openSourceWorld(stage);
    const dualport = await startDualport(stage, world, [
      ...ports,
      '-t',
      containerAddress[family],
      '--source',
      'transparent',
    ]);
    assert.equal((await ask(stage, world, 'tcp', family)).ending, 'ECONNRESET');
    const line = await dualport.flow();
    assert.equal(line['dualport.close_reason'], 'connect-refused');
    assert.equal(line['dualport.source.address'], family === 4 ? client.v4 : client.v6);
    assert.deepEqual(socketsAs(dualport, 'tcp', family), []);
  });
}

/** How many ICMP messages have come to the client, of both families and every kind. */
function icmpAt(stage: Stage, world: World): Promise<number> {
  return stage.run(world.client, 'sh', ['-c', 'cat /proc/net/snmp /proc/net/snmp6']).then(({ stdout }) => {
    const [names = '', values = ''] = stdout.split('\n').filter((line) => line.startsWith('Icmp:'));
    const ipv4 = Number(values.split(' ')[names.split(' ').indexOf('InMsgs')]);
    // Neighbours are asked for by ICMP, too.
    const ipv6 = /^Icmp6InDestUnreachs\s+(\d+)$/m.exec(stdout)?.[1];
    return ipv4 + Number(ipv6);
  });
}

for (const family of [4, 6] as const) {
  test(
    `an upstream's ICMP refusal comes to dualport and not to the client (IPv${family})`,
    options,
    async (t) => {
      const stage = new Stage(t);
      const world = openSourceWorld(stage);
      // A router, over which the container could reach the client.
      setSysctl(world.host, 'ipv4/ip_forward', 1);
      setSysctl(world.host, 'ipv6/conf/all/forwarding', 1);
      ip(world.client, [`route add 198.18.2.0/24 via ${host.v4}`, `route add fd00:2::/64 via ${host.v6}`]);
      const soon = ['--udp-timeout', '1s'];
      const dualport = await startDualport(stage, world, [
        ...ports,
        '-t',
        containerAddress[family],
        '--source',
        'transparent',
        ...soon,
      ]);
      const before = await icmpAt(stage, world);
      assert.equal((await ask(stage, world, 'udp', family)).ending, 'silence');
      const line = await dualport.flow();
      assert.equal(line['dualport.close_reason'], 'connect-refused');
      assert.equal(line['dualport.source.address'], family === 4 ? client.v4 : client.v6);
      assert.equal(await icmpAt(stage, world), before);
    },
  );

  test(`nor does one about a flow whose program has gone (IPv${family})`, options, async (t) => {
    const stage = new Stage(t);
    const world = openSourceWorld(stage);
    setSysctl(world.host, 'ipv4/ip_forward', 1);
    setSysctl(world.host, 'ipv6/conf/all/forwarding', 1);
    const at = JSON.stringify({ host: containerAddress[family], port: 53 });
    const program = stage.background(world.container, process.execPath, [programFile, 'udpWho', at]);
    await listening(program, family === 4 ? 'udp' : 'udp6', 53);
    const dualport = await startDualport(stage, world, [
      ...ports,
      '-t',
      containerAddress[family],
      '--source',
      'transparent',
      '--udp-timeout',
      '1s',
    ]);
    const before = await icmpAt(stage, world);
    const asking = { fromPort: 40_000 };
    assert.equal((await ask(stage, world, 'udp', family, asking)).ending, 'answer');
    program.signal('SIGKILL');
    await program.exit;
    assert.equal((await ask(stage, world, 'udp', family, asking)).ending, 'silence');
    await until(() => dualport.flows.length > 0, 'the end of the flow');
    assert.equal(await icmpAt(stage, world), before);
  });
}
