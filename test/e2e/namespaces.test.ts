/**
 * A client, a host and a container, each in its own network namespace: who the server in the container takes
 * the client for, and who may come in. The sockets, addresses and programs are real; so are the log lines.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { type Dualport, here, Stage } from '../support/dualport.ts';
import { addresses, namespacesOf, openWorld, type World } from '../support/namespace.ts';
import { worldProcess } from '../support/namespace-holder.ts';
import { curl, type Fetched, serve, wasReset } from '../support/namespace-traffic.ts';
import { announced, type Nginx, startNginx } from '../support/nginx.ts';
import type { Running } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const { client, host, container } = addresses;
const options = { skip: skipUnless('root', 'netns', 'curl'), timeout: 30_000 };
const withNginx = { ...options, skip: skipUnless('root', 'netns', 'curl', 'nginx-stream') };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

/** nginx on the container's IPv4 address and nowhere else. */
function ipv4Nginx(stage: Stage, world: World): Promise<Nginx> {
  const http = `server {
    listen ${container.v4}:80 proxy_protocol;
    location / { return 200 "${announced}"; }
  }`;
  return startNginx(stage, world.container, { http }, [['tcp', 80]]);
}

const everywhere = ['-p', '[::]:8080:80', '-p', '0.0.0.0:8080:80', '-t', container.v4];

/** The answer and the log of nginx both name this client, to the port. */
async function isKnown(nginx: Nginx, answer: Fetched, from: string, dialled: string): Promise<void> {
  assert.equal(answer.error, '');
  assert.equal(answer.body, `${from} ${answer.localPort} ${dialled} 8080`);
  await nginx.logged((line) => line === `${from} ${answer.localPort} 198.18.2.1 200 /known`);
}

for (const source of ['proxy-v1', 'proxy-v2']) {
  test(
    `an IPv6 client of an IPv4-only nginx stands in its log under its own address (${source})`,
    withNginx,
    async (t) => {
      const stage = new Stage(t);
      const world = openWorld(stage);
      const nginx = await ipv4Nginx(stage, world);
      await stage.dualport(world.host, [...everywhere, '--source', source]);
      const answer = await curl(stage, world.client, `http://[${host.v6}]:8080/known`);
      await isKnown(nginx, answer, client.v6, host.v6);
    },
  );

  test(
    `an IPv4 client stands in the log of nginx under its own address (${source})`,
    withNginx,
    async (t) => {
      const stage = new Stage(t);
      const world = openWorld(stage);
      const nginx = await ipv4Nginx(stage, world);
      await stage.dualport(world.host, [...everywhere, '--source', source]);
      const answer = await curl(stage, world.client, `http://${host.v4}:8080/known`);
      await isKnown(nginx, answer, client.v4, host.v4);
    },
  );
}

test('curl over [::1] reaches the IPv4-only nginx and stands in its log as ::1', withNginx, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  const nginx = await ipv4Nginx(stage, world);
  await stage.dualport(world.host, [...everywhere, '--source', 'proxy-v2']);
  await isKnown(nginx, await curl(stage, world.host, 'http://[::1]:8080/known'), '::1', '::1');
});

test('a client may call by a link-local address, and no zone gets into the header', withNginx, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  const nginx = await ipv4Nginx(stage, world);
  const dualport = await stage.dualport(world.host, [...everywhere, '--source', 'proxy-v1']);
  const answer = await curl(stage, world.client, `http://[${host.linkLocal}%25eth0]:8080/known`);
  await isKnown(nginx, answer, client.linkLocal, host.linkLocal);
  const flow = await dualport.flow();
  assert.match(String(flow['client.address']), /^fe80::2(%client0)?$/);
  assert.equal(flow['client.port'], answer.localPort);
});

test('without a header the IPv4-only program takes every client for the host', options, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  await serve(stage, world.container, 'web', { host: '0.0.0.0', port: 80 });
  await stage.dualport(world.host, everywhere);
  const answer = await curl(stage, world.client, `http://[${host.v6}]:8080/`);
  assert.equal(answer.body, '198.18.2.2 was asked by 198.18.2.1\n');
});

/** Both families ask; says which of them were answered, and why not. */
async function whoGetsIn(stage: Stage, access: readonly string[]): Promise<Record<'v4' | 'v6', unknown>> {
  const world = openWorld(stage);
  await serve(stage, world.container, 'web', { host: '0.0.0.0', port: 80 });
  const dualport = await stage.dualport(world.host, [...everywhere, ...access]);
  const v4 = await curl(stage, world.client, `http://${host.v4}:8080/`);
  const v6 = await curl(stage, world.client, `http://[${host.v6}]:8080/`);
  return { v4: await outcome(dualport, v4, client.v4), v6: await outcome(dualport, v6, client.v6) };
}

async function outcome(dualport: Dualport, answer: Fetched, from: string): Promise<unknown> {
  const flow = await dualport.flow((line) => line['client.address'] === from);
  if (answer.status === 0) return answer.body.includes('was asked by') && flow['dualport.close_reason'];
  wasReset(answer);
  return flow['dualport.close_reason'];
}

test('--allow lets the clients of its prefix in and resets all others', options, async (t) => {
  const outcomes = await whoGetsIn(new Stage(t), ['--allow', '2001:db8:1::/64']);
  assert.deepEqual(outcomes, { v4: 'not-allowed', v6: 'done' });
});

test('--deny resets the clients of its prefix and no others', options, async (t) => {
  const outcomes = await whoGetsIn(new Stage(t), ['--deny', '2001:db8:1::2']);
  assert.deepEqual(outcomes, { v4: 'done', v6: 'denied' });
});

test('a prefix in v4-mapped spelling lets IPv4 clients in', options, async (t) => {
  const outcomes = await whoGetsIn(new Stage(t), ['--allow', '::ffff:198.18.0.0/112']);
  assert.deepEqual(outcomes, { v4: 'done', v6: 'not-allowed' });
});

test('a prefix in v4-mapped spelling keeps IPv4 clients out', options, async (t) => {
  const outcomes = await whoGetsIn(new Stage(t), ['--deny', '::ffff:198.18.0.0/112']);
  assert.deepEqual(outcomes, { v4: 'denied', v6: 'done' });
});

test('an upstream that is the host itself is refused, at the start and at a reload', options, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage);
  const itself = (at: string) =>
    `would connect to its own listener at udp ${at}:53, an address of this host; name`;
  for (const [to, at] of [
    [host.v4, host.v4],
    [host.v6, `[${host.v6}]`],
  ] as const) {
    const { code, stderr } = await stage.refusedDualport(world.host, ['-p', '53:53/udp', '-t', to]);
    assert.equal(code, 78);
    assert.ok(stderr.includes(itself(at)), stderr);
  }
  const file = join(stage.directory(), 'dualport.yaml');
  const write = (to: string) => writeFileSync(file, `publish: [{ ports: "53:53/udp", to: "${to}" }]`);
  write(container.v4);
  const { running } = await stage.dualport(world.host, ['-c', file]);
  write(host.v4);
  running.signal('SIGHUP');
  const { reason } = await running.says('configuration not reloaded: the old one stays in force');
  assert.ok(String(reason).includes(itself(host.v4)), String(reason));
});

test('a world is gone when its test is over', options, async () => {
  let close = async () => {};
  const stage = new Stage({ after: (closing) => (close = closing) });
  const world = openWorld(stage);
  await serve(stage, world.container, 'web', { host: '0.0.0.0', port: 80 });
  assert.equal(namespacesOf(process.pid).length, 3);
  await close();
  assert.deepEqual(namespacesOf(process.pid), []);
});

/** Another process with a world of its own, once that is open. */
async function otherWorld(stage: Stage): Promise<Running> {
  const other = stage.background(here, process.execPath, [worldProcess]);
  await until(() => other.stdout.includes('open'), `a world in another process: ${other.stderr}`);
  assert.equal(namespacesOf(pidOf(other)).length, 3);
  return other;
}

const pidOf = ({ child }: Running): number => child.pid ?? 0;

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`a world is gone when ${signal} ends its process in the middle`, options, async (t) => {
    const other = await otherWorld(new Stage(t));
    other.signal(signal);
    await other.exit;
    assert.deepEqual(namespacesOf(pidOf(other)), []);
  });
}

test('the world of a process that was killed goes when the next one is made', options, async (t) => {
  const stage = new Stage(t);
  const other = await otherWorld(stage);
  other.signal('SIGKILL');
  await other.exit;
  openWorld(stage);
  assert.deepEqual(namespacesOf(pidOf(other)), []);
});
