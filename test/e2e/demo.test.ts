/** `npm start`: what a newcomer sees first. */
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, test } from 'node:test';
import { until } from '../engine/harness.ts';
import { freePort, Running, runToEnd } from '../support/process.ts';

const started: Running[] = [];
after(async () => {
  for (const process of started) await process.end();
});

function get(port: number): Promise<{ body: string; localPort: number }> {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: '::1', port, agent: false }, (response) => {
      let body = '';
      const localPort = response.socket.localPort ?? 0;
      response.on('data', (chunk) => (body += chunk));
      response.on('end', () => resolve({ body, localPort }));
    });
    request.on('error', reject);
  });
}

test('the demonstration says what to try, and its answer shows both addresses', async () => {
  const port = await freePort();
  const demo = new Running(['demo', String(port)]);
  started.push(demo);
  await until(() => demo.stdout.includes('Ctrl-C'), 'the explanation');
  assert.ok(demo.stdout.includes(`curl 'http://[::1]:${port}/'`));
  const { body, localPort } = await get(port);
  assert.match(body, /its peer, as the socket says: +127\.0\.0\.1:\d+\n/);
  assert.ok(body.includes(`you, as the PROXY header says:  [::1]:${localPort}\n`), body);
  demo.signal('SIGINT');
  const exit = await demo.exit;
  assert.equal(exit.code, 0);
  assert.equal(exit.stderr, '');
});

test('a demonstration on a busy port says so', async () => {
  const port = await freePort();
  const first = new Running(['demo', String(port)]);
  started.push(first);
  await until(() => first.stdout.includes('Ctrl-C'), 'the first one');
  const { code, stderr } = await runToEnd(['demo', String(port)]);
  assert.equal(code, 69);
  assert.match(stderr, new RegExp(`\\[::\\]:${port}: another program holds this port`));
  assert.match(stderr, /another port, as in npm start -- \d+ \(dualport demo \d+\)\n$/);
});
