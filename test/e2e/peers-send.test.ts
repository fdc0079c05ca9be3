/**
 * nginx and HAProxy in front of dualport: every header they write is taken, the client they name is the one
 * in the log and in the access rules, and health checks are no trouble.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import tls from 'node:tls';
import { until } from '../engine/harness.ts';
import { here, Stage } from '../support/dualport.ts';
import {
  accepting,
  bodyOf,
  echoServer,
  exchange,
  families,
  receivingNginx,
  request,
  senders,
  sendingHaproxy,
} from '../support/dualport-peers.ts';
import { startHaproxy } from '../support/haproxy.ts';
import { freePort } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const options = { skip: skipUnless('linux', 'ipv6', 'nginx-stream', 'haproxy'), timeout: 30_000 };
const withOpenssl = { ...options, skip: skipUnless('linux', 'haproxy', 'openssl') };

/** Begins like a header, which must not be taken for a second one. */
const payload = Buffer.concat([
  Buffer.from('PROXY TCP4 192.0.2.66 192.0.2.67 1 2\r\n'),
  randomBytes(256 * 1024),
]);

for (const { title, start } of senders) {
  test(`${title} names its clients, and what they say stays whole`, options, async (t) => {
    const stage = new Stage(t);
    const [dualport, to] = await accepting(stage, await echoServer(stage));
    const port = await freePort();
    await start(stage, port, to);
    for (const { client, dialled } of families) {
      const { answer, localPort } = await exchange(client, dialled, port, payload);
      assert.equal(Buffer.compare(answer, payload), 0, 'the echo is what was said');
      const flow = await dualport.flow((line) => line['client.port'] === localPort);
      assert.equal(flow['client.address'], client);
      assert.equal(flow['network.peer.address'], '127.0.0.1');
      assert.equal(flow['dualport.bytes.from_client'], payload.length);
      assert.equal(flow['dualport.close_reason'], 'done');
    }
    assert.deepEqual(dualport.complaints, []);
  });
}

test('access rules judge the client that a proxy names, not the proxy', options, async (t) => {
  const stage = new Stage(t);
  const [dualport, to] = await accepting(stage, await echoServer(stage), ['--deny', '127.0.0.9']);
  const port = await freePort();
  await sendingHaproxy('send-proxy-v2')(stage, port, to);
  const { answer } = await exchange('::1', '::1', port, Buffer.from('let in'));
  assert.equal(String(answer), 'let in');
  const refused = await exchange('127.0.0.9', '127.0.0.1', port, Buffer.from('kept out')).catch(
    () => undefined,
  );
  assert.equal(String(refused?.answer ?? ''), '');
  const flow = await dualport.flow((line) => line['client.address'] === '127.0.0.9');
  assert.equal(flow['dualport.close_reason'], 'denied');
});

test('HAProxy that ends TLS names its client along with what it knows of TLS', withOpenssl, async (t) => {
  const stage = new Stage(t);
  const [dualport, to] = await accepting(stage, await echoServer(stage));
  const port = await freePort();
  const known = 'ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority,crc32c,unique-id';
  const sections = `
listen sender
  mode tcp
  bind 127.0.0.1:${port} ssl crt ${await certificate(stage)} alpn h2
  unique-id-format %ci:%cp
  server dualport 127.0.0.1:${to} send-proxy-v2 proxy-v2-options ${known}`;
  await startHaproxy(stage, here, sections, [['tcp', port]]);
  const { localPort, answer } = await exchangeTls(port, 'over TLS');
  assert.equal(answer, 'over TLS');
  const flow = await dualport.flow();
  assert.equal(flow['client.port'], localPort);
  assert.deepEqual(dualport.complaints, []);
});

/** A self-signed one, with its key in the file beside it where HAProxy looks. */
async function certificate(stage: Stage): Promise<string> {
  const directory = stage.directory();
  const [file, key] = [join(directory, 'certificate.pem'), join(directory, 'certificate.pem.key')];
  const kind = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  const subject = ['-subj', '/CN=dualport.example'];
  const args = ['req', ...kind, ...subject, '-keyout', key, '-out', file];
  const { code, stderr } = await stage.run(here, 'openssl', args);
  assert.equal(code, 0, stderr);
  return file;
}

/** Closes as soon as the answer is there: HAProxy's half-close over TLS is not what is asked here. */
async function exchangeTls(
  port: number,
  says: string,
): Promise<{ answer: string; localPort: number | undefined }> {
  const socket = tls.connect({
    host: '127.0.0.1',
    port,
    servername: 'dualport.example',
    ALPNProtocols: ['h2'],
    rejectUnauthorized: false,
  });
  await once(socket, 'secureConnect');
  const { localPort } = socket;
  socket.write(says);
  const [answer] = await once(socket, 'data');
  socket.destroy();
  return { answer: String(answer), localPort };
}

const checks = [
  { title: 'version 1, the header alone', how: 'send-proxy', probe: '' },
  { title: 'version 2, the header alone', how: 'send-proxy-v2', probe: '' },
  { title: 'version 1, with a request', how: 'send-proxy', probe: 'option httpchk GET /health' },
  { title: 'version 2, with a request', how: 'send-proxy-v2', probe: 'option httpchk GET /health' },
];

for (const { title, how, probe } of checks) {
  test(`HAProxy's health checks pass, and neither side complains (${title})`, options, async (t) => {
    const stage = new Stage(t);
    const [port, web, to] = [await freePort(), await freePort(), await freePort()];
    const nginx = await receivingNginx(stage, web);
    const sections = `
listen sender
  mode tcp
  ${probe}
  bind 127.0.0.1:${port}
  server dualport 127.0.0.1:${to} check inter 40ms fall 1 rise 10 ${how}`;
    const proxy = await startHaproxy(stage, here, sections, [['tcp', port]]);
    await until(() => proxy.stdout.includes('is DOWN'), 'HAProxy to find nobody there');
    const [dualport] = await accepting(stage, web, ['--source', 'proxy-v2'], to);
    await until(() => proxy.stdout.includes('is UP'), 'ten checks that pass, one after the other');
    const { answer, localPort } = await exchange('127.0.0.9', '127.0.0.1', port, request);
    assert.equal(bodyOf(answer), `127.0.0.9 ${localPort} 127.0.0.1 ${port}`);
    assert.deepEqual(dualport.complaints, []);
    assert.deepEqual(nginx.complaints, []);
    assert.equal(proxy.stdout.split('is DOWN').length, 2, 'no check failed later');
    const asked = nginx.log.filter((line) => line.endsWith('200 /health')).length;
    assert.ok(probe === '' || asked >= 10, `checks went all the way to nginx: ${asked}`);
  });
}
