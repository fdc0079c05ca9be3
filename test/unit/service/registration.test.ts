/** What a launcher may say, and the rule that makes of it. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { optionDefaults, type RuleOptionValues } from '../../../src/config/options.ts';
import { formatTarget } from '../../../src/config/target.ts';
import { DualportError } from '../../../src/errors.ts';
import { formatEndpoint, parseAddress } from '../../../src/net/address.ts';
import { nameOf, readRegistration, ruleOf } from '../../../src/service/registration.ts';

const values: RuleOptionValues = optionDefaults;

for (const { text, name, container } of [
  {
    text: 'dualport 1 tcp 0.0.0.0 8080 172.17.0.2 80',
    name: '0.0.0.0:8080:80/tcp',
    container: '172.17.0.2:80',
  },
  { text: 'dualport 1 udp :: 53 fd00::2 5353', name: '[::]:53:5353/udp', container: '[fd00::2]:5353' },
  { text: 'dualport 1 tcp ::1 65535 10.0.0.1 1', name: '[::1]:65535:1/tcp', container: '10.0.0.1:1' },
  {
    text: 'dualport 1 tcp ::ffff:127.0.0.1 80 10.0.0.1 80',
    name: '127.0.0.1:80:80/tcp',
    container: '10.0.0.1:80',
  },
]) {
  test(`${text} is the rule ${name}`, () => {
    const registration = readRegistration(text);
    assert.equal(nameOf(registration), name);
    assert.equal(formatEndpoint(registration.container), container);
    assert.equal(ruleOf(registration, values).name, name);
  });
}

for (const text of [
  '',
  'dualport 2 tcp 0.0.0.0 8080 172.17.0.2 80',
  'dualport 1 sctp 0.0.0.0 8080 172.17.0.2 80',
  'dualport 1 TCP 0.0.0.0 8080 172.17.0.2 80',
  'dualport 1 tcp 0.0.0.0 0 172.17.0.2 80',
  'dualport 1 tcp 0.0.0.0 8080 172.17.0.2 0',
  'dualport 1 tcp 0.0.0.0 65536 172.17.0.2 80',
  'dualport 1 tcp 0.0.0.0 -1 172.17.0.2 80',
  'dualport 1 tcp localhost 8080 172.17.0.2 80',
  'dualport 1 tcp 0.0.0.0 8080 app 80',
  'dualport 1 tcp 0.0.0.0 8080 0.0.0.0 80',
  'dualport 1 tcp 0.0.0.0 8080 224.0.0.1 80',
  'dualport 1 tcp [::] 8080 172.17.0.2 80',
  'dualport 1 tcp 0.0.0.0 8080 172.17.0.2 80 more',
  'dualport 1 tcp 0.0.0.0 8080 172.17.0.2 80\n',
  ' dualport 1 tcp 0.0.0.0 8080 172.17.0.2 80',
  'dualport 1 tcp  0.0.0.0 8080 172.17.0.2 80',
]) {
  test(`${JSON.stringify(text)} is refused`, () => {
    assert.throws(() => readRegistration(text), {
      code: 'USAGE',
      message: /^found ".*"; allowed: dualport 1 tcp\|udp /,
    });
  });
}

test('whatever is said, it is a registration or a refusal', () => {
  const word = fc.oneof(
    fc.string(),
    fc.ipV4(),
    fc.ipV6(),
    fc.nat(70_000).map(String),
    fc.constantFrom('tcp', 'udp'),
  );
  const record = fc.oneof(
    fc.string(),
    fc.array(word).map((words) => `dualport 1 ${words.join(' ')}`),
  );
  fc.assert(
    fc.property(record, (text) => {
      try {
        nameOf(readRegistration(text));
      } catch (error) {
        assert.ok(error instanceof DualportError);
        assert.ok(error.message.length < 1000, 'of a long text only the beginning is said');
      }
    }),
  );
});

const registration = readRegistration('dualport 1 tcp :: 80 10.0.0.1 80');

test('the address that dockerd gave comes first, whatever family a client or the configuration is of', () => {
  const rule = ruleOf(registration, { ...values, family: 'v6' }, [parseAddress('fd00::1')]);
  assert.deepEqual(rule.to.map(formatTarget), ['10.0.0.1', 'fd00::1']);
  assert.equal(rule.family, 'prefer-v4');
  const other = readRegistration('dualport 1 tcp 0.0.0.0 80 fd00::1 80');
  assert.equal(ruleOf(other, values).family, 'prefer-v6');
});

test('upstreams of the configuration are not those of a launcher, its other options are', () => {
  const to = [{ kind: 'address', address: parseAddress('192.0.2.1'), zone: '' } as const];
  const rule = ruleOf(registration, { ...values, to, source: 'proxy-v1', connectTimeout: 77 });
  assert.deepEqual(rule.to.map(formatTarget), ['10.0.0.1']);
  assert.equal(rule.source, 'proxy-v1');
  assert.equal(rule.timeouts.connectMs, 77);
  assert.equal(ruleOf(registration, { ...values, source: 'proxy-v1' }, [], 'none').source, 'none');
});

test('what does not go together is refused by the port', () => {
  const udp = readRegistration('dualport 1 udp :: 80 10.0.0.1 80');
  assert.throws(() => ruleOf(udp, values, [], 'proxy-v1'), {
    message: /^dockerd: .*version 1 .* has no UDP/,
  });
  const self = readRegistration('dualport 1 tcp 127.0.0.1 80 127.0.0.1 80');
  assert.throws(() => ruleOf(self, values), { code: 'SELF_CONNECT' });
});
