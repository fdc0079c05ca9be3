/**
 * Accepting again after a pause takes memory of the kernel (epoll_ctl), which it may not have. The built program
 * is refused that once by strace; whoever waits in the backlog has to be served all the same.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net, { type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { here, Stage } from '../support/dualport.ts';
import { freePort } from '../support/process.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import { until } from './harness.ts';

async function echo(stage: Stage, port: number): Promise<void> {
  const server = net.createServer((socket) => socket.on('error', () => {}).pipe(socket));
  stage.undo(() => server.close());
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
}

/** Its answers are read by nobody else. */
function asking(stage: Stage, port: number): Socket {
  const socket = net.connect(port, '127.0.0.1');
  stage.undo(() => socket.destroy());
  socket.write('?');
  return socket;
}

test('a listener that could not be watched again after the pause at the limit is tried again', {
  skip: skipWithoutCore('strace'),
  timeout: 60_000,
}, async (context) => {
  const stage = new Stage(context);
  const [port, upstreamPort] = [await freePort(), await freePort()];
  await echo(stage, upstreamPort);
  const rule = `127.0.0.1:${port}:${upstreamPort}`;
  const { running } = await stage.dualport(here, [
    ...['serve', '--engine', 'linux', '--max-flows', '1', '--to', '127.0.0.1', '-p', rule],
  ]);
  const first = asking(stage, port);
  await once(first, 'data');
  const log = join(stage.directory(), 'strace');
  const strace = stage.start(here, 'strace', [
    ...['-f', '-p', String(running.child.pid), '-o', log],
    ...['-e', 'trace=epoll_ctl', '-e', 'inject=epoll_ctl:error=ENOMEM:when=1'],
  ]);
  await until(() => strace.stderr.includes('attached'), `strace: ${strace.stderr}`);
  const second = asking(stage, port);
  const served = once(second, 'data');
  first.end();
  await served;
  assert.match(readFileSync(log, 'utf8'), /EPOLL_CTL_ADD.*ENOMEM.*INJECTED/);
});
