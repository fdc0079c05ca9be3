/** Of which rules it is said that their programs see every client under one address, and how it is said. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { namesToTell } from '../../../src/config/hidden-clients.ts';
import { type Config, loadConfig } from '../../../src/config/load.ts';
import type { Environment, Flags } from '../../../src/config/sources.ts';

const to = ['172.17.0.2'];
const containers = 'ports of containers whose labels name no source';

function hiding(flags: Flags, env: Environment = {}, file?: string): Config['hidesClients'] {
  if (file === undefined) return loadConfig({ flags, env }).hidesClients;
  const readFile = () => new TextEncoder().encode(file);
  return loadConfig({ flags: { config: 'd.yaml', ...flags }, env, readFile }).hidesClients;
}

const told: readonly [string, string][] = [
  ['every address', '25:25/tcp'],
  ['every IPv6 address', '[::]:25:25/tcp'],
  ['an IPv6 address of the host', '[2001:db8::1]:25:25/tcp'],
  ['every IPv4 address', '0.0.0.0:53:53/udp'],
];
for (const [what, port] of told) {
  test(`a rule on ${what}, of which nobody has said how its program learns who calls, is told of`, () => {
    assert.deepEqual(hiding({ publish: [port], to }), [port]);
  });
}

const untold: readonly [string, Flags, Environment?, string?][] = [
  ['sends a PROXY header', { publish: ['25:25'], to, source: 'proxy-v2' }],
  ['gives clients pseudo addresses', { publish: ['25:25'], to, source: 'pseudo' }],
  ['is said to need none', { publish: ['25:25'], to, source: 'none' }],
  ['is said to need none, by a variable', { publish: ['25:25'], to }, { DUALPORT_SOURCE: 'none' }],
  [
    'is said to need none, by the defaults of a file',
    {},
    {},
    'defaults: {source: none, to: 10.0.0.1}\npublish: [{ports: "25:25"}]',
  ],
  [
    'is said to need none, by its entry in a file',
    {},
    {},
    'publish: [{ports: "25:25", source: none, to: 10.0.0.1}]',
  ],
  ['lets nobody in but some', { publish: ['25:25'], to, allow: ['2001:db8::/32'] }],
  ['is on loopback alone', { publish: ['[::1]:25:25'], to }],
  ['is on loopback alone, with IPv4', { publish: ['127.0.0.2:25:25'], to }],
];
for (const [what, flags, env, file] of untold) {
  test(`a rule that ${what} is not told of`, () => assert.deepEqual(hiding(flags, env, file), []));
}

test('of the rules of a file those are told of that say nothing', () => {
  const file =
    'publish: [{ports: "25:25", source: none}, {ports: "26:26"}, {ports: "27:27", allow: 10.0.0.0/8}]';
  assert.deepEqual(hiding({ to }, {}, file), ['26:26/tcp']);
});

test('ports that labels and launchers bring are told of before there are any', () => {
  assert.deepEqual(hiding({ docker: true }), [containers]);
  assert.deepEqual(hiding({ dockerProxySocket: '/run/dualport/docker-proxy.sock' }), [containers]);
  assert.deepEqual(hiding({ docker: true, source: 'none' }), []);
  assert.deepEqual(hiding({ docker: true, allow: ['10.0.0.0/8'] }), []);
  assert.deepEqual(hiding({ docker: true, dockerBind: ['127.0.0.1', '[::1]'] }), []);
});

test('ten are named, and how many more there are', () => {
  const names = Array.from({ length: 12 }, (_, i) => `${i}`);
  assert.deepEqual(namesToTell(names), { named: names.slice(0, 10), more: 2 });
  assert.deepEqual(namesToTell(names.slice(2)), { named: names.slice(2), more: 0 });
});
