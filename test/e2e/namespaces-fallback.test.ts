/**
 * A container that has addresses of both families and answers on one of them only, for every reason there is:
 * the client gets its answer, soon, and the log says that it was a fallback.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type Dualport, Stage } from '../support/dualport.ts';
import { addresses, filterInput, ip, namespacesOf, openWorld, type World } from '../support/namespace.ts';
import type { Answer } from '../support/namespace-programs.ts';
import {
  client as clientProgram,
  curl,
  type Fetched,
  serve,
  wasReset,
} from '../support/namespace-traffic.ts';
import { skipUnless } from '../support/requirements.ts';

const { client, host, container } = addresses;
const options = { skip: skipUnless('root', 'netns', 'curl'), timeout: 30_000 };
const withFilter = { ...options, skip: skipUnless('root', 'netns', 'curl', 'nft') };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

/** Published on both families, with an upstream of each. */
const bothFamilies = ['-p', '8080:80', '-t', container.v4, '-t', container.v6];
const overIpv4 = `http://${host.v4}:8080/`;
const overIpv6 = `http://[${host.v6}]:8080/`;

const answeredByIpv4 = `${container.v4} was asked by 198.18.2.1\n`;
const answeredByIpv6 = `${container.v6} was asked by fd00:2::1\n`;

interface Scene {
  readonly stage: Stage;
  readonly world: World;
  readonly dualport: Dualport;
}

/** @param listens the wildcard addresses of the program in the container */
async function scene(stage: Stage, listens: readonly string[], args: readonly string[] = []): Promise<Scene> {
  const world = openWorld(stage);
  for (const address of listens) await serve(stage, world.container, 'web', { host: address, port: 80 });
  return { stage, world, dualport: await stage.dualport(world.host, [...bothFamilies, ...args]) };
}

function fetchFrom({ stage, world }: Scene, url: string): Promise<Fetched> {
  return curl(stage, world.client, url);
}

async function isFallback({ dualport }: Scene, from: string, to: string): Promise<void> {
  const flow = await dualport.flow((line) => line['client.address'] === from);
  assert.equal(flow['dualport.fallback'], true);
  assert.equal(flow['server.address'], to);
  assert.equal(flow['dualport.close_reason'], 'done');
}

function within(answer: Fetched, least: number, most: number): void {
  assert.ok(
    answer.seconds >= least && answer.seconds < most,
    `first byte after ${answer.seconds} s, expected ${least} to ${most} s`,
  );
}

test('each client is sent to the address of its own family when both answer', options, async (t) => {
  const at = await scene(new Stage(t), ['0.0.0.0', '::']);
  assert.equal((await fetchFrom(at, overIpv4)).body, answeredByIpv4);
  assert.equal((await fetchFrom(at, overIpv6)).body, answeredByIpv6);
  for (const from of [client.v4, client.v6]) {
    const flow = await at.dualport.flow((line) => line['client.address'] === from);
    assert.equal(flow['dualport.fallback'], false);
  }
});

test('an IPv6 client of a program on 0.0.0.0 only is answered within a second', options, async (t) => {
  const at = await scene(new Stage(t), ['0.0.0.0']);
  const answer = await fetchFrom(at, overIpv6);
  assert.equal(answer.body, answeredByIpv4);
  within(answer, 0, 1);
  await isFallback(at, client.v6, container.v4);
});

test('an IPv4 client of a program on [::] only (V6ONLY) is answered within a second', options, async (t) => {
  const at = await scene(new Stage(t), ['::']);
  const answer = await fetchFrom(at, overIpv4);
  assert.equal(answer.body, answeredByIpv6);
  within(answer, 0, 1);
  await isFallback(at, client.v4, container.v6);
});

for (const { family, url, body, from, to } of [
  { family: 'ipv6', url: overIpv6, body: answeredByIpv4, from: client.v6, to: container.v4 },
  { family: 'ipv4', url: overIpv4, body: answeredByIpv6, from: client.v4, to: container.v6 },
]) {
  test(
    `when the container drops ${family} the other family answers after a quarter of a second, then at once`,
    withFilter,
    async (t) => {
      const at = await scene(new Stage(t), ['0.0.0.0', '::']);
      filterInput(at.world.container, [`meta nfproto ${family} tcp dport 80 drop`]);
      const first = await fetchFrom(at, url);
      assert.equal(first.body, body);
      within(first, 0.24, 1);
      const second = await fetchFrom(at, url);
      assert.equal(second.body, body);
      within(second, 0, 0.24);
      await isFallback(at, from, to);
    },
  );
}

test('an upstream without a route is passed over at once', options, async (t) => {
  const at = await scene(new Stage(t), ['0.0.0.0', '::']);
  ip(at.world.host, [`route add unreachable ${container.v6}`]);
  const answer = await fetchFrom(at, overIpv6);
  assert.equal(answer.body, answeredByIpv4);
  within(answer, 0, 0.24);
  await isFallback(at, client.v6, container.v4);
});

for (const { gone, url, body, from, to } of [
  { gone: `${container.v6}/64`, url: overIpv6, body: answeredByIpv4, from: client.v6, to: container.v4 },
  { gone: `${container.v4}/24`, url: overIpv4, body: answeredByIpv6, from: client.v4, to: container.v6 },
]) {
  test(`when the container loses ${gone} its other address answers within a second`, options, async (t) => {
    const at = await scene(new Stage(t), ['0.0.0.0', '::']);
    ip(at.world.container, [`address del ${gone} dev eth0`]);
    const answer = await fetchFrom(at, url);
    assert.equal(answer.body, body);
    within(answer, 0, 1);
    await isFallback(at, from, to);
  });
}

/** Neither family reaches anything. */
const dead: readonly { how: string; reason: string; args?: string[]; kill?: (world: World) => void }[] = [
  { how: 'refuses both families', reason: 'connect-refused' },
  {
    how: 'has no route to either family',
    reason: 'connect-unreachable',
    kill: ({ host: namespace }) =>
      ip(
        namespace,
        Object.values(container).map((address) => `route add unreachable ${address}`),
      ),
  },
  {
    how: 'is silent on both families',
    reason: 'connect-timeout',
    args: ['--connect-timeout', '600ms'],
    kill: ({ container: namespace }) => ip(namespace, ['link set eth0 down']),
  },
];

for (const { how, reason, args, kill } of dead) {
  test(`when the container ${how} the client is reset, not given an empty answer`, options, async (t) => {
    const at = await scene(new Stage(t), [], args);
    kill?.(at.world);
    for (const [url, address, from] of [
      [overIpv4, host.v4, client.v4],
      [overIpv6, host.v6, client.v6],
    ] as const) {
      const asked = { host: address, port: 8080, hex: '00' };
      const answer = await clientProgram<Answer>(at.stage, at.world.client, 'say', asked);
      assert.deepEqual(answer, { text: '', ending: 'ECONNRESET' });
      const flow = await at.dualport.flow((line) => line['client.address'] === from);
      assert.equal(flow['dualport.close_reason'], reason);
      wasReset(await fetchFrom(at, url));
    }
  });
}
