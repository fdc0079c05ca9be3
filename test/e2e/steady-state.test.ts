/**
 * What the Linux engine does not do while flows are established: allocate on JavaScript's heap. The data path is C; per
 * flow only the sweep looks at it twice a second, and V8 has nothing to collect. Asked of the built program, by
 * `--trace-gc` and by a few lines that are loaded into it and tell how much lies in the young generation, where
 * everything that is allocated comes first.
 *
 * STEADY_SECONDS is how long it is watched, 5 if not said.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { busyPeers } from '../support/busy-peers.ts';
import { here, Stage } from '../support/dualport.ts';
import { freePort, main, type Running } from '../support/process.ts';
import { skipWithoutCore } from '../support/requirements.ts';

const seconds = Number(process.env['STEADY_SECONDS'] ?? 5);
const flows = { bulk: 8, datagrams: 16, open: 500 };
/**
 * A turn of Node's event loop leaves 56 bytes, of which the core makes a hundred a second do, and its timers leave some:
 * measured 9 to 13 KB/s. One number that a sweep makes for each flow would be 32 KB/s more.
 */
const mostPerSecond = 20_000;

const probe = `
const { writeSync } = require('node:fs');
const v8 = require('node:v8');
process.on('SIGUSR2', () => {
  const young = v8.getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space').space_used_size;
  writeSync(1, JSON.stringify({ msg: 'young generation', young }) + '\\n');
});
process.on('SIGWINCH', () => {
  gc({ type: 'minor' });
  writeSync(1, JSON.stringify({ msg: 'collected' }) + '\\n');
});`;

/** Bytes in the young generation. */
async function young(dualport: Running): Promise<number> {
  const asked = dualport.said('young generation').length + 1;
  dualport.signal('SIGUSR2');
  return (await dualport.says('young generation', asked))['young'] as number;
}

/** Bytes that are allocated in this time; a collection would show in the trace. */
async function allocated(dualport: Running, ms: number): Promise<number> {
  const before = await young(dualport);
  await sleep(ms);
  return (await young(dualport)) - before;
}

const collections = ({ stdout }: Running) => stdout.match(/^\[\d+:0x\w+\].* ms: .*$/gm) ?? [];

test('established flows are relayed without anything being allocated for them', {
  skip: skipWithoutCore(),
  timeout: 90_000 + seconds * 1000,
}, async (context) => {
  const stage = new Stage(context);
  const peers = await busyPeers();
  stage.undo(() => peers.close());
  const preload = join(stage.directory(), 'probe.cjs');
  writeFileSync(preload, probe);
  const port = await freePort();
  const rule = `127.0.0.1:${port}:${peers.upstreamPort}`;
  const dualport = stage.start(here, process.execPath, [
    // What start-up has left V8 collects at leisure, 8 s later or when there is less to do.
    ...['--trace-gc', '--expose-gc', '--no-memory-reducer', '--require', preload, main, 'serve'],
    ...['--engine', 'linux', '--to', '127.0.0.1', '-p', `${rule}/tcp`, '-p', `${rule}/udp`],
    ...['--max-flows', '2000', '--max-flows-per-source', '2000'],
  ]);
  await dualport.says('ready');
  assert.notEqual(collections(dualport).length, 0, 'the trace tells of the collections of start-up');
  await peers.begin({ port, ...flows });

  // Numbers lie on the heap until the sweep is compiled.
  let perSecond = Number.POSITIVE_INFINITY;
  for (let tries = 0; tries < 20 && perSecond > mostPerSecond; tries++) {
    dualport.signal('SIGWINCH');
    await dualport.says('collected', tries + 1);
    perSecond = await allocated(dualport, 1000);
  }
  assert.ok(perSecond <= mostPerSecond, `${perSecond} bytes in a second`);

  const [before, passed] = [collections(dualport).length, peers.passed()];
  const total = await allocated(dualport, seconds * 1000);
  const now = peers.passed();
  assert.deepEqual(collections(dualport).slice(before), []);
  assert.ok(total <= seconds * mostPerSecond, `${total} bytes in ${seconds} s`);
  context.diagnostic(
    `${Math.round(total / seconds)} bytes/s allocated; ${now.bytes - passed.bytes} bytes and ${now.datagrams - passed.datagrams} datagrams relayed`,
  );
  assert.ok(now.bytes - passed.bytes > 100e6 && now.datagrams - passed.datagrams > 1000);
});
