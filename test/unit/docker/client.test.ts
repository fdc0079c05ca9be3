/** The one call to Docker, against an engine that is played on a unix socket. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import type { EngineAddress } from '../../../src/config/docker-options.ts';
import { containersOf } from '../../../src/docker/client.ts';
import { formatAddress } from '../../../src/net/address.ts';

const directory = mkdtempSync(join(tmpdir(), 'dualport-test-'));
const path = join(directory, 'docker.sock');
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
let server: Server | undefined;

afterEach(() => {
  server?.close().closeAllConnections();
  server = undefined;
});

async function engine(answer: RequestListener, port?: number): Promise<number> {
  server = createServer(answer);
  server.listen(port === undefined ? { path } : { port, host: '127.0.0.1' });
  await once(server, 'listening');
  return port === undefined ? 0 : (server.address() as AddressInfo).port;
}

const here: EngineAddress = { kind: 'socket', path };
const list = (engine: EngineAddress = here) => containersOf(engine)(new AbortController().signal);

const listed = [
  {
    Id: 'c0de'.repeat(16),
    Names: ['/web'],
    Labels: { 'io.dualport.source': 'proxy-v2', other: 'x' },
    NetworkSettings: {
      Networks: {
        bridge: { IPAddress: '172.17.0.2', GlobalIPv6Address: '' },
        front: { IPAddress: '172.18.0.2', GlobalIPv6Address: 'fd00::2' },
      },
    },
  },
  { Id: 'f00d'.repeat(16), Names: null, Labels: null, NetworkSettings: {} },
  { Names: ['/nobody'] },
  null,
  'text',
];

test('containers are read with their labels and addresses; what is none is left out', async () => {
  let asked = '';
  await engine((request, response) => {
    asked = `${request.method} ${request.url}`;
    response.end(JSON.stringify(listed));
  });
  const [web, nameless, ...more] = await list();
  assert.equal(asked, 'GET /containers/json');
  assert.deepEqual(more, []);
  assert.equal(web?.name, 'web');
  assert.deepEqual([...(web?.labels ?? [])], [['io.dualport.source', 'proxy-v2']]);
  assert.deepEqual(
    web?.networks.map(({ addresses }) => addresses.map(formatAddress)),
    [['172.17.0.2'], ['172.18.0.2', 'fd00::2']],
  );
  assert.deepEqual([nameless?.name, nameless?.labels.size, nameless?.networks], ['f00df00df00d', 0, []]);
});

test('an engine may be at a port of a host, as a socket proxy is', async () => {
  const port = await engine((_, response) => response.end('[]'), 0);
  assert.deepEqual(await list({ kind: 'tcp', host: '127.0.0.1', port }), []);
});

for (const { what, answer, message } of [
  {
    what: 'a refusal',
    answer: [403, 'not for you'],
    message: /403.*not for you/,
  },
  { what: 'garbage', answer: [200, '<html>'], message: /with what is no list/ },
  { what: 'a list without its end', answer: [200, '[{}'], message: /hung up in the middle of its answer/ },
  {
    what: 'something else',
    answer: [200, '{}'],
    message: /with what is no list/,
  },
] as const) {
  test(`${what} is an error that says so`, async () => {
    await engine((_, response) => void response.writeHead(answer[0]).end(answer[1]));
    await assert.rejects(list(), { message });
  });
}

test('an engine that hangs up in the middle is an error', async () => {
  await engine((_, response) => {
    response.writeHead(200, { 'content-length': '100' }).write('[{');
    setTimeout(() => response.destroy(), 20);
  });
  await assert.rejects(list(), { message: /hung up in the middle of an answer/ });
});

test('an engine that is not there is an error', async () => {
  await assert.rejects(list({ kind: 'socket', path: '/nonexistent/docker.sock' }), {
    message: /^the Docker Engine at unix:\/\/\/nonexistent\/docker\.sock is not there/,
  });
});

test('an engine that takes the call and does not answer is an error after five seconds', async () => {
  await engine(() => {});
  const began = performance.now();
  await assert.rejects(list(), { message: /did not answer GET \/containers\/json within 5 s/ });
  assert.ok(performance.now() - began < 8000);
});

test('a container with too many labels is passed over, and the others are found', async () => {
  const long = {
    ...(listed[0] as object),
    Id: 'bad0'.repeat(16),
    Labels: { text: 'x'.repeat(2 * 1024 * 1024) },
  };
  await engine((_, response) => void response.end(JSON.stringify([long, listed[1]])));
  assert.deepEqual(
    (await list()).map(({ name }) => name),
    ['f00df00df00d'],
  );
});

test('an answer without end is given up', async () => {
  const chunk = Buffer.alloc(1024 * 1024, ' ');
  await engine((_, response) => {
    const more = () => {
      while (response.write(chunk));
    };
    response.on('drain', more);
    more();
  });
  await assert.rejects(list(), { message: /with more than is read/ });
});

test('whoever asks may give up', async () => {
  await engine(() => {});
  const life = new AbortController();
  const asked = containersOf(here)(life.signal);
  life.abort();
  await assert.rejects(asked, { message: /abort/ });
});
