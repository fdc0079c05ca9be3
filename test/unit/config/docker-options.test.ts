import assert from 'node:assert/strict';
import test from 'node:test';
import {
  defaultBind,
  defaultPorts,
  formatEngineAddress,
  parseBindHost,
  parseEngineAddress,
  parsePortRange,
} from '../../../src/config/docker-options.ts';
import { formatBindHost } from '../../../src/config/port-spec.ts';
import { DualportError } from '../../../src/errors.ts';

/** What each text is written as once it is read. */
const engines: Readonly<Record<string, string>> = {
  'unix:///var/run/docker.sock': 'unix:///var/run/docker.sock',
  '/run/user/1000/docker.sock': 'unix:///run/user/1000/docker.sock',
  './docker.sock': 'unix://./docker.sock',
  'unix://./docker.sock': 'unix://./docker.sock',
  'tcp://socket-proxy:2375': 'tcp://socket-proxy:2375',
  'tcp://socket_proxy:2375/': 'tcp://socket_proxy:2375',
  'tcp://10.0.0.1:1': 'tcp://10.0.0.1:1',
  'tcp://[fd00::1]:65535': 'tcp://[fd00::1]:65535',
};
for (const [text, canonical] of Object.entries(engines)) {
  test(`${text} is the engine ${canonical}`, () => {
    const address = parseEngineAddress(text);
    assert.equal(formatEngineAddress(address), canonical);
    assert.deepEqual(parseEngineAddress(canonical), address);
  });
}

for (const text of [
  '',
  'docker.sock',
  'unix://docker.sock',
  'tcp://proxy',
  'tcp://proxy:0',
  'tcp://proxy:65536',
  'tcp://fd00::1:2375',
  'tcp://user@proxy:2375',
  'tcp://proxy:2375/v1.41',
  'http://proxy:2375',
  'ssh://host',
  'npipe:////./pipe/docker_engine',
  '/run/a\0b',
  `/${'x'.repeat(107)}`,
]) {
  test(`${JSON.stringify(text.slice(0, 30))} is no engine`, () => {
    assert.throws(
      () => parseEngineAddress(text),
      /allowed: unix:\/\/\/path or a path that starts with \/ or \.\//,
    );
  });
}

test('a socket may have a path of 107 bytes, as the kernel allows', () => {
  assert.equal(parseEngineAddress(`/${'x'.repeat(106)}`).kind, 'socket');
});

test('host ports are one, or a range', () => {
  assert.deepEqual(parsePortRange('8080'), { first: 8080, last: 8080 });
  assert.deepEqual(parsePortRange('1-65535'), { first: 1, last: 65535 });
  for (const text of ['', '0', '0-5', '65536', '9-8', '1-2-3', '-5', '5-', ' 5', 'http', '1e3']) {
    assert.throws(() => parsePortRange(text), /allowed: ports from 1 to 65535/, text);
  }
});

test('without a word labels get neither privileged ports, nor those of clients, nor those of Docker', () => {
  const allowed = (port: number) => defaultPorts.some(({ first, last }) => first <= port && port <= last);
  const ports = [22, 80, 1023, 1024, 2374, 2375, 2376, 2377, 2378, 8080, 32767, 32768, 60999];
  assert.deepEqual(ports.filter(allowed), [1024, 2374, 2378, 8080, 32767]);
});

test('an address to bind is one of this host could have', () => {
  for (const [text, canonical] of Object.entries({
    '0.0.0.0': '0.0.0.0',
    '::': '[::]',
    '[::1]': '[::1]',
    '192.0.2.1': '192.0.2.1',
    '[2001:DB8::1]': '[2001:db8::1]',
    'fe80::1%eth0': '[fe80::1%eth0]',
  })) {
    assert.equal(formatBindHost(parseBindHost(text)), canonical);
  }
  for (const text of [
    '',
    'localhost',
    '224.0.0.1',
    'ff02::1',
    '255.255.255.255',
    '10.0.0.0/8',
    '[1.2.3.4]',
  ]) {
    assert.throws(() => parseBindHost(text), /allowed: addresses to listen on/, text);
  }
  for (const text of ['fe80::1', '2001:db8::1%eth0']) {
    assert.throws(() => parseBindHost(text), /a zone for a link-local address/, text);
  }
});

test('without a word labels get every address, or the host alone', () => {
  assert.deepEqual(defaultBind.map(formatBindHost), ['0.0.0.0', '[::]', '127.0.0.1', '[::1]']);
});

test('what is refused is an error of usage', () => {
  assert.throws(
    () => parseEngineAddress('x'),
    (error) => error instanceof DualportError && error.code === 'USAGE',
  );
});
