import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { groupCpu, groupMemory, membersOf, systemCpu, untilListening } from '../../bench/proc.ts';
import { Processes } from '../../bench/processes.ts';
import { until } from '../engine/harness.ts';
import { freePort, freeRange } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const skip = skipUnless('linux');

function open(context: TestContext): Processes {
  const processes = new Processes();
  context.after(() => processes.close());
  return processes;
}

test('a process is ended with its children', { skip }, async (context) => {
  const processes = open(context);
  const child = processes.start({}, ['sh', '-c', 'sleep 60 & sleep 60 & wait']);
  await until(() => membersOf([child]).length === 3, 'three processes');
  const members = membersOf([child]);
  await child.end();
  assert.deepEqual(
    members.filter((pid) => existsSync(`/proc/${pid}/exe`)),
    [],
  );
});

test('one that ignores SIGTERM is killed', { skip }, async (context) => {
  const processes = open(context);
  const child = processes.start({}, ['sh', '-c', 'trap "" TERM; echo ready; while :; do sleep 0.1; done']);
  await until(() => child.stdout.includes('ready'), 'ready');
  await child.end();
  assert.equal(child.process.signalCode, 'SIGKILL');
});

test('close ends whatever runs, and nothing starts afterwards', { skip }, async () => {
  const processes = new Processes();
  const children = [1, 2, 3].map(() => processes.start({}, ['sleep', '60']));
  await processes.close();
  assert.ok(children.every(({ alive }) => !alive));
  assert.throws(() => processes.start({}, ['true']), /the run is ending/);
});

test('a command that fails gives its last words', { skip }, async (context) => {
  const processes = open(context);
  const failing = processes.run({}, ['sh', '-c', 'echo one >&2; echo two >&2; exit 3']);
  await assert.rejects(failing, { message: 'sh exit 3: one | two' });
  await assert.rejects(processes.run({}, ['no-such-program']), /no-such-program/);
});

test('a command that does not end is ended', { skip }, async (context) => {
  const started = performance.now();
  await assert.rejects(open(context).run({}, ['sleep', '60'], 0.2), {
    message: 'sleep did not end within 0.2 s',
  });
  assert.ok(performance.now() - started < 2000);
});

test('what is started may open as many files as the run believes', { skip }, async (context) => {
  const processes = open(context);
  assert.equal(Number(await processes.run({}, ['sh', '-c', 'ulimit -n'])), processes.openFileLimit);
  assert.ok(processes.openFileLimit >= 1024);
});

test('CPU time is that of the group, with children that have ended', { skip }, async (context) => {
  const processes = open(context);
  const busy = 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done';
  const before = systemCpu();
  const child = processes.start({}, ['sh', '-c', `(${busy}); echo done; sleep 60; :`]);
  const idle = processes.start({}, ['sleep', '60']);
  await until(() => child.stdout.includes('done'), 'done');
  assert.ok(groupCpu([child]) >= 0.05, `${groupCpu([child])}`);
  assert.ok(groupCpu([idle]) <= 0.02);
  assert.ok(systemCpu() - before >= 0.05);
});

test('memory is that of the group', { skip }, async (context) => {
  const processes = open(context);
  const keep = `const kept = Buffer.alloc(${64 * 2 ** 20}, 1); console.log('ready'); setInterval(() => kept, 1e6)`;
  const child = processes.start({}, [process.execPath, '-e', keep]);
  await until(() => child.stdout.includes('ready'), 'ready', 5000);
  const { pss, rss } = groupMemory([child]);
  assert.ok(pss > 64 * 2 ** 20 && rss >= pss, `${pss} ${rss}`);
  assert.deepEqual(groupMemory([]), { pss: 0, rss: 0 });
});

for (const address of ['127.0.0.1', '::1']) {
  test(`a listener on ${address} is seen, TCP and UDP`, {
    skip: skip || skipUnless('ipv6'),
  }, async (context) => {
    const first = await freeRange(2);
    const [tcp, udp] = [first, first + 1];
    const serve = `require('net').createServer().listen(${tcp}, '${address}');
      require('dgram').createSocket('${address === '::1' ? 'udp6' : 'udp4'}').bind(${udp}, '${address}')`;
    const child = open(context).start({}, [process.execPath, '-e', serve]);
    await untilListening(
      [child],
      [
        { protocol: 'tcp', address, port: tcp },
        { protocol: 'udp', address, port: udp },
      ],
    );
    const wrong = { protocol: 'tcp', address, port: udp } as const;
    const said = `${child.command} does not listen on ${address} port ${udp}`;
    await assert.rejects(untilListening([child], [wrong], 0.05), { message: said });
  });
}

test('waiting for a listener ends when its process ends', { skip }, async (context) => {
  const child = open(context).start({}, ['sh', '-c', 'sleep 0.1; echo no >&2; exit 1']);
  const port = await freePort();
  await assert.rejects(untilListening([child], [{ protocol: 'tcp', address: '::1', port }]), /sh exit 1: no/);
});
