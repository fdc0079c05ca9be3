/** Several Linux engines that share an address. They are all on this thread, which none of them knows. */
import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import test from 'node:test';
import type { Listener, Plan } from '../../src/engine/engine.ts';
import { type LinuxEngine, makeLinuxEngine } from '../../src/engine/linux/linux.ts';
import { loadNative } from '../../src/engine/linux/load.ts';
import type { Protocol } from '../../src/flow/flow.ts';
import type { Endpoint } from '../../src/net/address.ts';
import { descriptorsSettled, openDescriptors } from '../support/fds.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import { at, Harness, until } from './harness.ts';

const loaded = loadNative();
const skip = skipWithoutCore();

/** Three engines, each in a harness of its own; what is left open is found out. */
async function withEngines(
  run: (harnesses: readonly Harness[], engines: readonly LinuxEngine[]) => Promise<void>,
): Promise<void> {
  assert.ok('native' in loaded);
  const before = openDescriptors();
  const engines = Array.from({ length: 3 }, () => makeLinuxEngine(loaded.native, 1000));
  const harnesses = engines.map((engine) => new Harness(engine));
  try {
    await run(harnesses, engines);
  } finally {
    for (const harness of harnesses) await harness.close();
  }
  assert.equal(await descriptorsSettled(before), before);
}

/** One address for all of them. */
async function share(
  protocol: Protocol,
  host: string,
  upstream: Endpoint,
  harnesses: readonly Harness[],
  engines: readonly LinuxEngine[],
): Promise<readonly Listener[]> {
  const sockets = engines[0]?.bindGroup(protocol, at(host, 0), engines.length) ?? [];
  const plans = harnesses.map((harness) => harness.plan([upstream]));
  return Promise.all(engines.map((engine, i) => engine.adopt(protocol, sockets[i] ?? -1, plans[i] as Plan)));
}

for (const host of ['127.0.0.1', '::1']) {
  test(`connections to ${host} are spread over the engines`, { skip }, () =>
    withEngines(async (harnesses, engines) => {
      const [first] = harnesses as readonly [Harness];
      const listeners = await share('tcp', host, await first.echo('127.0.0.1'), harnesses, engines);
      const [local, ...others] = listeners.map((listener) => listener.local);
      assert.ok(local);
      assert.deepEqual(others, [local, local]);
      const clients = await Promise.all(Array.from({ length: 50 }, () => first.connect(local)));
      for (const [i, { socket }] of clients.entries()) socket.end(`client ${i}`);
      for (const [i, client] of clients.entries()) {
        assert.equal(await client.ending, 'end');
        assert.equal(String(client.received), `client ${i}`);
      }
      const flows = harnesses.map((harness) => harness.count('tcpFlows'));
      assert.ok(
        flows.every((count) => count > 0),
        String(flows),
      );
      assert.equal(
        flows.reduce((sum, count) => sum + count),
        clients.length,
      );
    }),
  );

  test(`UDP peers of ${host} are spread over the engines, and stay where they are`, { skip }, () =>
    withEngines(async (harnesses, engines) => {
      const [first] = harnesses as readonly [Harness];
      const echo = await first.udpEcho('127.0.0.1');
      const listeners = await share('udp', host, echo.local, harnesses, engines);
      const local = listeners[0]?.local as Endpoint;
      const clients = await Promise.all(Array.from({ length: 30 }, () => first.udp(host, local)));
      for (const text of ['one', 'two', 'three']) {
        for (const client of clients) client.send(text);
        for (const client of clients) await until(() => client.texts.includes(text), text);
      }
      const flows = harnesses.map((harness) => harness.count('udpFlows'));
      assert.ok(
        flows.every((count) => count > 0),
        String(flows),
      );
      assert.equal(
        flows.reduce((sum, count) => sum + count),
        clients.length,
      );
    }),
  );
}

test('an address that is shared is in use for others, and free again once all have closed it', { skip }, () =>
  withEngines(async (harnesses, engines) => {
    const [first] = harnesses as readonly [Harness];
    const [engine, other] = engines as readonly [LinuxEngine, LinuxEngine];
    for (const protocol of ['tcp', 'udp'] as const) {
      const listeners = await share(protocol, '127.0.0.1', at('127.0.0.1', 9), harnesses, engines);
      const local = listeners[0]?.local as Endpoint;
      for (const listener of listeners) {
        await assert.rejects(engine.listen(protocol, local, first.plan([])), { code: 'EADDRINUSE' });
        assert.throws(() => other.bindGroup(protocol, local, 2), { code: 'EADDRINUSE', syscall: 'listen' });
        await listener.close();
      }
      await (await engine.listen(protocol, local, first.plan([]))).close();
    }
  }),
);

test('what does not listen cannot be taken over, and is closed', { skip }, () =>
  withEngines(async (harnesses, [engine]) => {
    const file = openSync('/dev/null', 'r');
    const plan = harnesses[0]?.plan([]);
    assert.ok(engine && plan);
    await assert.rejects(engine.adopt('tcp', file, plan), { code: 'EINVAL', syscall: 'take over' });
    assert.throws(() => closeSync(file), { code: 'EBADF' });
  }),
);
