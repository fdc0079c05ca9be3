/** A host whose IPv6 is switched off, as an operator would by sysctl. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Stage } from '../support/dualport.ts';
import { addresses, namespacesOf, openWorld } from '../support/namespace.ts';
import type { Answer, Echo } from '../support/namespace-programs.ts';
import { client as clientProgram, curl, serve } from '../support/namespace-traffic.ts';
import { announced, startNginx } from '../support/nginx.ts';
import { skipUnless } from '../support/requirements.ts';

const { client, host, container } = addresses;
const options = { skip: skipUnless('root', 'netns', 'curl'), timeout: 30_000 };
const withNginx = { ...options, skip: skipUnless('root', 'netns', 'nginx-stream') };

if (options.skip === false) {
  after(() => assert.deepEqual(namespacesOf(process.pid), [], 'no namespace was left behind'));
}

test('a host without IPv6 serves IPv4, TCP and UDP, with one warning', options, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage, { ipv6: false });
  await serve(stage, world.container, 'web', { host: '0.0.0.0', port: 80 });
  await serve(stage, world.container, 'udpEcho', { host: '0.0.0.0', port: 53 });
  const targets = ['-t', container.v4, '-t', container.v6];
  const dualport = await stage.dualport(world.host, [
    '-p',
    '8080:80',
    '-p',
    '5300:53/udp',
    '--admin',
    '9090',
    '--source',
    'none',
    ...targets,
  ]);
  const answer = await curl(stage, world.client, `http://${host.v4}:8080/`);
  assert.equal(answer.body, `${container.v4} was asked by 198.18.2.1\n`);
  const echo = await clientProgram<Echo>(stage, world.client, 'udpAsk', { host: host.v4, port: 5300 });
  assert.deepEqual(echo, { text: 'echo hello', from: host.v4 });
  const warnings = dualport.complaints.map(({ msg }) => msg);
  assert.deepEqual(warnings, ['this host has no IPv6: ports without an address are published on IPv4 only']);
});

for (const published of ['[::]:8080:80', '[::]:8080:80/udp', '[2001:db8:1::1]:8080:80', '[::1]:8080:80']) {
  test(`a host without IPv6 refuses -p ${published} and names the sysctl`, options, async (t) => {
    const stage = new Stage(t);
    const world = openWorld(stage, { ipv6: false });
    const args = ['-p', published, '-t', container.v4];
    const { code, stdout, stderr } = await stage.refusedDualport(world.host, args);
    assert.equal(code, 78, stderr);
    assert.match(stderr, /net\.ipv6\.conf\.all\.disable_ipv6/);
    assert.equal(stderr.trimEnd().split('\n').length, 1, 'one line says it all');
    assert.doesNotMatch(stdout, /listening/);
  });
}

/** Version 2 for TCP over IPv6, from [2001:db8::c]:4660 to [2001:db8::d]:443, written by hand. */
const ipv6Header =
  '0d0a0d0a000d0a515549540a2121' +
  '0024' +
  '20010db800000000000000000000000c' +
  '20010db800000000000000000000000d' +
  '1234' +
  '01bb';

test('a host without IPv6 takes and passes on a header with IPv6 addresses', withNginx, async (t) => {
  const stage = new Stage(t);
  const world = openWorld(stage, { ipv6: false });
  const http = `server { listen ${container.v4}:80 proxy_protocol; return 200 "${announced}"; }`;
  const nginx = await startNginx(stage, world.container, { http }, [['tcp', 80]]);
  const dualport = await stage.dualport(world.host, [
    ...['-p', '8080:80', '-t', container.v4],
    ...['--accept-proxy', `${client.v4}/32`, '--source', 'proxy-v2'],
  ]);
  const hex = ipv6Header + Buffer.from('GET / HTTP/1.0\r\n\r\n').toString('hex');
  const asked = { host: host.v4, port: 8080, hex };
  const answer = await clientProgram<Answer>(stage, world.client, 'say', asked);
  assert.match(answer.text, /\r\n\r\n2001:db8::c 4660 2001:db8::d 443$/);
  assert.equal(answer.ending, 'end');
  const flow = await dualport.flow();
  assert.equal(flow['client.address'], '2001:db8::c');
  assert.equal(flow['network.peer.address'], client.v4);
  assert.deepEqual(nginx.complaints, []);
});
