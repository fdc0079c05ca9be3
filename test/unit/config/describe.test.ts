import assert from 'node:assert/strict';
import test from 'node:test';
import { effectiveRules } from '../../../src/config/describe.ts';
import { loadConfig } from '../../../src/config/load.ts';
import type { Flags } from '../../../src/config/sources.ts';

function rows(flags: Flags) {
  return effectiveRules(loadConfig({ flags, env: {} }));
}

test('a row has every value of its rule as text or number', () => {
  const [row] = rows({
    publish: '[::]:8080:80',
    to: ['10.0.0.2', 'fd00::2', 'app'],
    source: 'proxy-v2',
    proxyCrc32c: true,
    acceptProxy: '192.0.2.0/24',
    allow: '2001:db8::/32,10.0.0.0/8',
    deny: '10.0.0.1',
    connectTimeout: '250ms',
    maxFlowsPerSource: '7',
  });
  assert.deepEqual(row, {
    name: '[::]:8080:80/tcp',
    protocol: 'tcp',
    listen: ['[::]:8080'],
    upstreams: ['10.0.0.2:80', '[fd00::2]:80', 'app:80'],
    family: 'same',
    source: 'proxy-v2',
    mismatch: 'auto',
    sourcePort: 'any',
    udpHeader: 'every',
    proxyCrc32c: true,
    proxyUniqueId: false,
    acceptProxy: ['192.0.2.0/24'],
    allow: ['2001:db8::/32', '10.0.0.0/8'],
    deny: ['10.0.0.1/32'],
    timeouts: {
      connectMs: 250,
      headerMs: 5000,
      idleMs: 0,
      halfCloseMs: 120_000,
      udpMs: 30_000,
      udpStreamMs: 180_000,
    },
    udpReplies: 'limited',
    maxFlowsPerRule: null,
    maxFlowsPerSource: 7,
  });
  assert.deepEqual(JSON.parse(JSON.stringify(row)), row);
});

test('a row lists the sockets it stands for, with what is not chosen yet', () => {
  const listen = rows({ publish: ['80:80', '81', '8000-9000:82', '[fe80::1%eth0]:83:83/udp'], to: 'app' });
  assert.deepEqual(
    listen.map((row) => row.listen),
    [
      ['0.0.0.0:80', '[::]:80'],
      ['0.0.0.0:*', '[::]:*'],
      ['0.0.0.0:8000-9000', '[::]:8000-9000'],
      ['[fe80::1%eth0]:83'],
    ],
  );
});
