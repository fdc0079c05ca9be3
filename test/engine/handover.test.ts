/**
 * Sockets that the launcher (native/docker-proxy.c) hands to the Linux engine: it serves them as its own, and neither
 * of the two ends them for the other.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Giver, Handover } from '../../src/engine/engine.ts';
import { openHandover } from '../../src/engine/linux/handover.ts';
import { makeLinuxEngine } from '../../src/engine/linux/linux.ts';
import { loadNative } from '../../src/engine/linux/load.ts';
import { makeHandover } from '../../src/engine/select.ts';
import type { Protocol } from '../../src/flow/flow.ts';
import { type Endpoint, parseAddress } from '../../src/net/address.ts';
import { descriptorsSettled, openDescriptors } from '../support/fds.ts';
import { freePort } from '../support/process.ts';
import { at, Harness, until } from './harness.ts';

const launcher = fileURLToPath(new URL('../../../native/build/docker-proxy', import.meta.url));
const loaded = loadNative();
// In CI the core must be there.
const skip = 'reason' in loaded && process.env['CI'] !== 'true' ? loaded.reason : false;

/** An engine, a place where launchers come, and those who came. */
class Rig {
  readonly harness: Harness;
  readonly givers: Giver[] = [];
  readonly path = join(mkdtempSync(join(tmpdir(), 'dualport-test-')), 'socket');
  readonly #children: ChildProcess[] = [];
  #handover: Handover;

  constructor() {
    assert.ok('native' in loaded);
    this.harness = new Harness(makeLinuxEngine(loaded.native, 20));
    this.#handover = this.#open();
  }

  #open(): Handover {
    assert.ok('native' in loaded);
    return openHandover(loaded.native, this.path, 100, (giver) => this.givers.push(giver));
  }

  /** Another dualport takes the place of the last one. */
  reopen(): void {
    this.#handover.close();
    rmSync(this.path);
    this.givers.length = 0;
    this.#handover = this.#open();
  }

  /** A launcher, as dockerd starts it; resolves to it and what it says, before it is answered. */
  async launch(
    protocol: Protocol,
    host: string,
    port: number,
  ): Promise<{ child: ChildProcess; giver: Giver }> {
    const place = ['-proto', protocol, '-host-ip', host, '-host-port', String(port)];
    const child = spawn(launcher, [...place, '-container-ip', '198.18.0.2', '-container-port', '80'], {
      env: { DUALPORT_DOCKER_PROXY_SOCKET: this.path },
      stdio: ['ignore', 'inherit', 'inherit', 'ignore'],
    });
    this.#children.push(child);
    const before = this.givers.length;
    await until(() => this.givers.length > before, 'a launcher');
    const giver = this.givers.at(-1);
    assert.ok(giver);
    return { child, giver };
  }

  /** Serves what it has handed over, by upstreams. */
  async serve(giver: Giver, protocol: Protocol, upstreams: readonly Endpoint[]) {
    const { engine } = this.harness;
    assert.ok(engine.adopt);
    const listener = await engine.adopt(protocol, giver.take(), this.harness.plan(upstreams));
    giver.answer('ok');
    return listener;
  }

  async close(): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    await this.harness.close();
    this.#handover.close();
    rmSync(join(this.path, '..'), { recursive: true });
  }
}

function promise(title: string, run: (rig: Rig) => Promise<void>): void {
  test(title, { skip, timeout: 30_000 }, async () => {
    const before = openDescriptors();
    const rig = new Rig();
    try {
      await run(rig);
    } finally {
      await rig.close();
    }
    assert.equal(await descriptorsSettled(before), before, 'every descriptor was given back');
  });
}

const hosts = [
  { host: '127.0.0.1', protocol: 'tcp' },
  { host: '::1', protocol: 'tcp' },
  { host: '0.0.0.0', protocol: 'udp' },
  { host: '::', protocol: 'udp' },
] as const;

for (const { host, protocol } of hosts) {
  promise(`a socket of ${protocol} on ${host} is served until its launcher wants it back`, async (rig) => {
    const { harness } = rig;
    const port = await freePort();
    const { child, giver } = await rig.launch(protocol, host, port);
    assert.equal(giver.text, `dualport 1 ${protocol} ${host} ${port} 198.18.0.2 80`);
    assert.equal(giver.pid, child.pid);
    const upstream =
      protocol === 'tcp' ? await harness.echo('127.0.0.1') : (await harness.udpEcho('127.0.0.1')).local;
    const listener = await rig.serve(giver, protocol, [upstream]);
    assert.deepEqual(listener.local, { address: parseAddress(host), zone: '', port });
    const dialled = at(host.includes(':') ? '::1' : '127.0.0.1', port);
    if (protocol === 'tcp') {
      const client = await harness.connect(dialled);
      client.socket.end('hello');
      assert.equal(await client.text(5), 'hello');
    } else {
      const client = await harness.udp(host.includes(':') ? '::1' : '127.0.0.1', dialled);
      client.send('hello');
      await client.datagrams(1);
    }
    let back = 0;
    giver.onBack(() => back++);
    child.kill('SIGINT');
    await until(() => back === 1, 'the launcher to want it back');
    assert.equal(child.exitCode, null, 'it waits until nothing of its socket is left');
    await listener.close();
    giver.close();
    await once(child, 'exit');
    assert.equal(child.exitCode, 0);
    const next = await rig.launch(protocol, host, port);
    await rig.serve(next.giver, protocol, [upstream]);
    assert.equal(back, 1);
  });
}

promise('clients that come while nobody serves are served by the next', async (rig) => {
  const { harness } = rig;
  const port = await freePort();
  const { giver } = await rig.launch('tcp', '127.0.0.1', port);
  const first = await rig.serve(giver, 'tcp', [await harness.echo('127.0.0.1')]);
  await first.close();
  rig.reopen();
  const clients = await Promise.all([1, 2, 3].map(() => harness.connect(at('127.0.0.1', port))));
  for (const { socket } of clients) socket.write('waited');
  await until(() => rig.givers.length === 1, 'the launcher to come back');
  const [again] = rig.givers;
  assert.ok(again);
  await rig.serve(again, 'tcp', [await harness.echo('127.0.0.1')]);
  for (const client of clients) assert.equal(await client.text(6), 'waited');
});

promise('a launcher that was killed is back as one that ended', async (rig) => {
  const { child, giver } = await rig.launch('tcp', '127.0.0.1', await freePort());
  child.kill('SIGKILL');
  const heard: string[] = [];
  await once(child, 'exit');
  await sleep(50);
  giver.onBack(() => heard.push('late, and still told'));
  await until(() => heard.length === 1, 'its end');
});

promise('a listener that its launcher ends for everybody stops no other', async (rig) => {
  const { harness } = rig;
  const port = await freePort();
  const upstream = await harness.echo('127.0.0.1');
  const own = await harness.listen('tcp', '127.0.0.1', [upstream]);
  const { child, giver } = await rig.launch('tcp', '127.0.0.1', port);
  await rig.serve(giver, 'tcp', [upstream]);
  // Nobody answers it here: it waits for a moment, and then helps itself.
  child.kill('SIGINT');
  await once(child, 'exit');
  assert.equal(child.exitCode, 0);
  await assert.rejects(connected(port), { code: 'ECONNREFUSED' });
  // A pause would come again with each sweep, twice a second.
  const start = performance.now();
  for (let i = 0; i < 6; i++) {
    const client = await harness.connect(own.local);
    client.socket.end('hello');
    assert.equal(await client.text(5), 'hello');
  }
  const ms = performance.now() - start;
  assert.ok(ms < 1000, `took ${ms} ms`);
});

async function connected(port: number): Promise<void> {
  const { connect } = await import('node:net');
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  socket.destroy();
}

promise('what is refused is closed here before the launcher hears of it', async (rig) => {
  const port = await freePort();
  const { child, giver } = await rig.launch('udp', '127.0.0.1', port);
  giver.refuse('refused for a reason');
  // There is no stock program in its PATH.
  await once(child, 'exit');
  assert.equal(child.exitCode, 1);
  assert.equal(giver.take() < 0, true);
});

promise('a socket of another protocol than it is said to be is not adopted', async (rig) => {
  const { giver } = await rig.launch('udp', '127.0.0.1', await freePort());
  const { engine } = rig.harness;
  assert.ok(engine.adopt);
  await assert.rejects(engine.adopt('tcp', giver.take(), rig.harness.plan([])), { code: 'EINVAL' });
});

promise(
  "the socket of launchers is its owner's alone, and nobody takes the place of one that serves",
  async (rig) => {
    assert.equal(statSync(rig.path).mode & 0o777, 0o600);
    assert.ok('native' in loaded);
    const { native } = loaded;
    assert.throws(() => openHandover(native, rig.path, 1, () => {}), { code: 'EADDRINUSE' });
    assert.throws(() => openHandover(native, `/${'x'.repeat(108)}`, 1, () => {}), { code: 'ENAMETOOLONG' });
  },
);

test('the portable engine takes no sockets, and says so', () => {
  const take = (name: 'auto' | 'portable', reason?: string) =>
    makeHandover(name, '/nowhere', 1, () => {}, reason === undefined ? loaded : { reason });
  assert.throws(() => take('portable'), {
    code: 'ENGINE',
    message: /linux engine: (the portable engine cannot take them|.*native part)/,
  });
  assert.throws(() => take('auto', 'it is gone'), {
    code: 'ENGINE',
    message: /linux engine: it is gone; use/,
  });
});
