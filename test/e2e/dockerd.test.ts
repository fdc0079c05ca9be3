/**
 * The dockerd that tests start: it is real, its containers answer as the stock docker-proxy lets them, and nothing
 * of it is left when its test ends, however that comes about.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { startDockerd } from '../support/dockerd.ts';
import { dockerdProcess } from '../support/dockerd-holder.ts';
import { tracesOf } from '../support/dockerd-traces.ts';
import { here, Stage } from '../support/dualport.ts';
import { addresses, namespacesOf, openWorld } from '../support/namespace.ts';
import { curl } from '../support/namespace-traffic.ts';
import { skipUnless } from '../support/requirements.ts';

const options = { skip: skipUnless('root', 'netns', 'dockerd'), timeout: 60_000 };

if (options.skip === false) {
  after(() => assert.deepEqual(tracesOf(process.pid), [], 'no trace was left behind'));
}

test(
  'with the stock docker-proxy a program on 0.0.0.0 of a dual-stack container is not there over IPv6',
  options,
  async (t) => {
    const stage = new Stage(t);
    const world = openWorld(stage);
    const dockerd = await startDockerd(stage, world.host);
    const web = await dockerd.run('web', {
      publish: ['8080:80', '[::]:8081:80'],
      listen: ['tcp 0.0.0.0 80'],
    });
    const { v4, v6 } = await web.addresses();
    assert.deepEqual(dockerd.proxies, [
      `-proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip ${v4} -container-port 80`,
      `-proto tcp -host-ip :: -host-port 8080 -container-ip ${v6} -container-port 80`,
      `-proto tcp -host-ip :: -host-port 8081 -container-ip ${v6} -container-port 80`,
    ]);
    const answer = await curl(stage, world.host, 'http://127.0.0.1:8080/');
    assert.match(answer.body, /^web was asked by 198\.18\.7\.1 \d+\n$/);
    for (const port of [8080, 8081]) {
      const nothing = await curl(stage, world.host, `http://[::1]:${port}/`);
      assert.notEqual(nothing.status, 0);
      assert.equal(nothing.body, '');
    }
    const remote = await curl(stage, world.client, `http://${addresses.host.v4}:8080/`);
    assert.match(remote.body, new RegExp(`^web was asked by ${addresses.client.v4} `), 'past the proxy');
  },
);

test(
  'a container runs on while dockerd restarts it, and is itself reached from its own network',
  options,
  async (t) => {
    const stage = new Stage(t);
    const world = openWorld(stage);
    const dockerd = await startDockerd(stage, world.host);
    const web = await dockerd.run('web', {
      publish: ['127.0.0.1:8080:80', '[::1]:8053:53/udp'],
      listen: ['tcp 0.0.0.0 80', 'udp :: 53'],
      args: ['--restart', 'always'],
    });
    const first = dockerd.pid;
    await dockerd.restart();
    assert.notEqual(dockerd.pid, first);
    assert.equal(dockerd.proxies.length, 2);
    await web.ready();
    const answer = await curl(stage, await web.inside(), 'http://127.0.0.1/');
    assert.match(answer.body, /^web was asked by 127\.0\.0\.1 /);
  },
);

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`a dockerd is gone when ${signal} ends its process in the middle`, options, async (t) => {
    const other = new Stage(t).background(here, process.execPath, [dockerdProcess]);
    await until(() => other.stdout.includes('open'), `a dockerd in another process: ${other.stderr}`, 30_000);
    const pid = other.child.pid ?? 0;
    assert.notDeepEqual(tracesOf(pid), []);
    other.signal(signal);
    await other.exit;
    assert.deepEqual(tracesOf(pid), []);
    assert.deepEqual(namespacesOf(pid), []);
  });
}

test(
  'the dockerd of a process that was killed ends at once, and its traces go when the next one is made',
  options,
  async (t) => {
    const stage = new Stage(t);
    const other = stage.background(here, process.execPath, [dockerdProcess]);
    await until(() => other.stdout.includes('open'), `a dockerd in another process: ${other.stderr}`, 30_000);
    const pid = other.child.pid ?? 0;
    const daemon = Number(/^open (\d+)/.exec(other.stdout)?.[1]);
    other.signal('SIGKILL');
    await other.exit;
    await until(() => !runs(daemon), 'dockerd to be gone');
    await startDockerd(stage, openWorld(stage).host);
    assert.deepEqual(tracesOf(pid), []);
    assert.deepEqual(namespacesOf(pid), []);
  },
);

function runs(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
