/**
 * nginx and HAProxy behind dualport: they must take every header it writes, and find the client's own address
 * and port in it. Both look once and refuse a header that comes in two segments, so one split in hundreds of
 * connections would show.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { here, Stage } from '../support/dualport.ts';
import { startHaproxy } from '../support/haproxy.ts';
import { announced, type Nginx, startNginx } from '../support/nginx.ts';
import { freePort, type Running } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const skip = skipUnless('linux', 'ipv6', 'nginx-stream', 'haproxy');

interface Receiver {
  readonly title: string;
  /** What the client says first; to nothing, only the header makes the receiver answer. */
  readonly says: string;
  port: number;
}

const request = 'GET / HTTP/1.0\r\n\r\n';
const nginxHttp: Receiver = { title: 'nginx (http)', says: request, port: 0 };
const nginxStream: Receiver = { title: 'nginx (stream)', says: '', port: 0 };
const haproxy: Receiver = { title: 'HAProxy', says: request, port: 0 };
const receivers = [nginxHttp, nginxStream, haproxy];

const headers = [
  { title: 'version 1', settings: 'source: proxy-v1' },
  { title: 'version 2', settings: 'source: proxy-v2' },
  {
    title: 'version 2 with checksum and unique id',
    settings: 'source: proxy-v2, proxyCrc32c: true, proxyUniqueId: true',
  },
];

const paths = [
  { title: '4→4', dialled: '127.0.0.1', client: '127.0.0.9', upstream: '127.0.0.1' },
  { title: '6→6', dialled: '::1', client: '::1', upstream: '::1' },
  { title: '6→4', dialled: '::1', client: '::1', upstream: '127.0.0.1' },
];

interface Case {
  readonly receiver: Receiver;
  readonly header: (typeof headers)[number];
  readonly path: (typeof paths)[number];
  /** Where dualport publishes it. */
  port: number;
}

const cases: readonly Case[] = receivers.flatMap((receiver) =>
  headers.flatMap((header) => paths.map((path) => ({ receiver, header, path, port: 0 }))),
);

const connections = 200;
const atOnce = 20;

describe('behind dualport', { skip }, () => {
  const stage = new Stage({ after });
  let nginx: Nginx;
  let proxy: Running;

  before(async () => {
    for (const place of [...receivers, ...cases]) place.port = await freePort();
    nginx = await receivingNginx(stage);
    proxy = await receivingHaproxy(stage);
    await publishAll(stage);
  });

  for (const each of cases) {
    const { receiver, header, path } = each;
    test(`${receiver.title} sees the client in each of ${connections} headers, ${header.title}, ${path.title}`, async () => {
      const answers = await many(each, receiver.says);
      assert.deepEqual(
        answers.filter(({ text, expected }) => text !== expected),
        [],
      );
      assert.deepEqual(nginx.complaints, []);
      assert.doesNotMatch(proxy.stdout, /PROXY/, 'HAProxy has no complaint about a header');
    });
  }

  test('HAProxy reads a unique id of its own for every connection', async () => {
    const each = cases.find(
      ({ receiver, header }) => receiver === haproxy && header.settings.includes('proxyUniqueId'),
    );
    const answers = await many(each as Case, 'GET /id HTTP/1.0\r\n\r\n');
    const ids = answers.map(({ text }) => text);
    for (const id of ids) assert.match(id, /^[0-9a-f-]{36}$/);
    assert.equal(new Set(ids).size, connections);
  });
});

function receivingNginx(stage: Stage): Promise<Nginx> {
  const listen = ({ port }: Receiver) =>
    `listen 127.0.0.1:${port} proxy_protocol; listen [::1]:${port} proxy_protocol;`;
  return startNginx(
    stage,
    here,
    {
      http: `server { ${listen(nginxHttp)} return 200 "${announced}"; }`,
      stream: `server { ${listen(nginxStream)} return "${announced}"; }`,
    },
    [nginxHttp, nginxStream].flatMap(({ port }) => [
      ['tcp', port],
      ['tcp6', port],
    ]),
  );
}

function receivingHaproxy(stage: Stage): Promise<Running> {
  const { port } = haproxy;
  const answer = (text: string) =>
    `http-request return status 200 content-type text/plain lf-string "${text}"`;
  const sections = `
frontend receiver
  mode http
  bind 127.0.0.1:${port} accept-proxy
  bind [::1]:${port} accept-proxy
  ${answer('%[fc_pp_unique_id]')} if { path /id }
  ${answer('%[src] %[src_port] %[dst] %[dst_port]')}`;
  return startHaproxy(stage, here, sections, [
    ['tcp', port],
    ['tcp6', port],
  ]);
}

/** One dualport with a rule for each case. */
async function publishAll(stage: Stage): Promise<void> {
  const file = join(stage.directory(), 'dualport.yaml');
  const rules = cases.map(({ receiver, header, path, port }) => {
    const host = path.dialled.includes(':') ? `[${path.dialled}]` : path.dialled;
    return `  - { ports: "${host}:${port}:${receiver.port}", to: "${path.upstream}", ${header.settings} }`;
  });
  writeFileSync(file, `publish:\n${rules.join('\n')}\n`);
  await stage.dualport(here, ['-c', file]);
}

interface Seen {
  /** The body of the answer. */
  readonly text: string;
  readonly expected: string;
}

async function many(each: Case, says: string): Promise<readonly Seen[]> {
  const answers: Seen[] = [];
  const worker = async () => {
    while (answers.length < connections) {
      const place = answers.push({ text: '', expected: 'an answer' }) - 1;
      answers[place] = await ask(each, says);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return answers;
}

function ask({ path, port }: Case, says: string): Promise<Seen> {
  const socket = net.connect({ host: path.dialled, port, localAddress: path.client });
  const chunks: Buffer[] = [];
  let expected = '';
  socket.on('connect', () => {
    expected = `${path.client} ${socket.localPort} ${path.dialled} ${port}`;
    if (says !== '') socket.write(says);
  });
  socket.on('data', (chunk) => chunks.push(chunk));
  return new Promise((resolve) => {
    socket.on('error', (error) => resolve({ text: error.message, expected }));
    socket.on('close', () => resolve({ text: bodyOf(Buffer.concat(chunks).toString()), expected }));
  });
}

function bodyOf(answer: string): string {
  return answer.slice(answer.indexOf('\r\n\r\n') < 0 ? 0 : answer.indexOf('\r\n\r\n') + 4);
}
