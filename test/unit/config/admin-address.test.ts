import assert from 'node:assert/strict';
import test from 'node:test';
import { parseAdminAddress } from '../../../src/config/admin-address.ts';
import { DualportError } from '../../../src/errors.ts';
import { formatEndpoint } from '../../../src/net/address.ts';

function described(text: string): readonly string[] {
  const admin = parseAdminAddress(text);
  return admin.kind === 'path' ? [admin.path] : admin.endpoints.map(formatEndpoint);
}

for (const text of [':9090', '9090', 'localhost:9090', 'LOCALHOST:9090']) {
  test(`the admin address ${text} is loopback of both families`, () => {
    assert.deepEqual(described(text), ['127.0.0.1:9090', '[::1]:9090']);
  });
}

for (const text of ['127.0.0.1:9090', '0.0.0.0:65535', '[::]:1', '[2001:db8::1]:80', '[fe80::1%eth0]:80']) {
  test(`the admin address ${text} is the one that was written`, () =>
    assert.deepEqual(described(text), [text]));
}

for (const text of ['/run/dualport.sock', './dualport.sock', `/${'a'.repeat(106)}`]) {
  test(`the admin address ${text.slice(0, 20)} is a unix socket`, () => {
    assert.deepEqual(parseAdminAddress(text), { kind: 'path', path: text });
  });
}

for (const text of [
  '',
  ':',
  ':0',
  ':65536',
  ':-1',
  'dualport.sock',
  'example.com:9090',
  '::1:9090',
  '::1',
  '[::1]',
  '[127.0.0.1]:9090',
  '127.0.0.1',
  '127.0.0.1:http',
  '/a\0b',
  `/${'a'.repeat(107)}`,
  `/${'ä'.repeat(60)}`,
]) {
  test(`${JSON.stringify(text.slice(0, 20))} is refused as an admin address`, () => {
    assert.throws(
      () => parseAdminAddress(text),
      (error) =>
        error instanceof DualportError && /^found .*; allowed: a unix socket path/s.test(error.message),
    );
  });
}
