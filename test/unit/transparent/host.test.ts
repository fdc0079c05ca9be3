/** Ways to upstreams, names and commands. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { parseWay } from '../../../src/transparent/host.ts';
import { commandText, must, type Run, run } from '../../../src/transparent/system.ts';
import { skipUnless } from '../../support/requirements.ts';

test('a way is read from what the kernel says', () => {
  assert.deepEqual(parseWay('[{"dst":"172.17.0.2","dev":"docker0","prefsrc":"172.17.0.1"}]'), {
    kind: 'interface',
    name: 'docker0',
    gateway: undefined,
  });
  assert.deepEqual(parseWay('[{"dst":"10.0.0.1","gateway":"192.0.2.1","dev":"eth0"}]'), {
    kind: 'interface',
    name: 'eth0',
    gateway: '192.0.2.1',
  });
  assert.deepEqual(parseWay('[{"dst":"10.0.0.1","via":{"family":"inet6","host":"fe80::1"},"dev":"eth0"}]'), {
    kind: 'interface',
    name: 'eth0',
    gateway: 'fe80::1',
  });
  assert.deepEqual(parseWay('[{"type":"local","dst":"192.0.2.1","dev":"lo"}]'), { kind: 'local' });
});

test('what is no way is none', () => {
  for (const text of [
    '[]',
    '[{"type":"blackhole","dst":"10.0.0.1"}]',
    '[{"type":"multicast","dev":"eth0"}]',
    '[{"dev":"a\\"b"}]',
  ]) {
    assert.equal(parseWay(text), undefined, text);
  }
});

test('a command is written as it is typed', () => {
  assert.equal(
    commandText({ tool: 'ip', args: ['-4', 'rule', 'add', 'iif', 'wan+1'] }),
    'ip -4 rule add iif wan+1',
  );
  assert.equal(commandText({ tool: 'ip', args: ['iif', "a'b$(x)"] }), `ip iif 'a'\\''b$(x)'`);
});

const answering =
  (status: number | null, stderr: string): Run =>
  async () => ({ status, stdout: '', stderr });
const command = { tool: 'ip', args: ['rule', 'add'] } as const;

test('a command that fails is said with what it said', async () => {
  await assert.rejects(must(answering(2, 'RTNETLINK answers: File exists\nmore\n'), command), {
    code: 'SETUP',
    message: "the kernel's rules cannot be read or changed: ip rule add: RTNETLINK answers: File exists",
  });
  await assert.rejects(must(answering(null, ''), command), { message: /: it ended with a signal$/ });
  await assert.rejects(must(answering(3, ''), command), { message: /: it ended with 3$/ });
  await assert.rejects(must(answering(2, 'RTNETLINK answers: Operation not permitted'), command), {
    code: 'PRIVILEGE',
  });
});

test("a tool that is BusyBox's is not taken for iproute2's", { skip: skipUnless('ip') }, async () => {
  const { stderr } = await run({ tool: 'ip', args: ['BusyBox'] }).catch((error: Error) => ({
    stderr: error.message,
  }));
  assert.match(stderr, /ip cannot be run: it is BusyBox's, and not that of iproute2/);
});
