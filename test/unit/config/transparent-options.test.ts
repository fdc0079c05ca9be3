import assert from 'node:assert/strict';
import test from 'node:test';
import { loadConfig, loadTransparentConfig } from '../../../src/config/load.ts';
import {
  formatMark,
  isInterfaceName,
  lastPriority,
  lastRouteTable,
  parseInterface,
  parseMark,
  parseTable,
} from '../../../src/config/transparent-options.ts';

test('a mark is a value, or a value and a mask', () => {
  assert.deepEqual(parseMark('0x1000'), { value: 0x1000, mask: 0x1000 });
  assert.deepEqual(parseMark('4096'), { value: 0x1000, mask: 0x1000 });
  assert.deepEqual(parseMark('0x5/0xF'), { value: 5, mask: 15 });
  assert.deepEqual(parseMark('0x80000000/0xffffffff'), { value: 0x8000_0000, mask: 0xffff_ffff });
});

test('a mark that marks nothing, or not what its mask tells, is refused', () => {
  for (const text of ['', '0', '0x0', '0x100000000', '5000000000', '1/0', '-1', 'x', '1/2/3', '0x', '1/']) {
    assert.throws(
      () => parseMark(text),
      { code: 'USAGE', message: /allowed: a number of up to 32 bits/ },
      text,
    );
  }
  assert.throws(() => parseMark('0x3/0x1'), { message: /whose value has bits its mask has not/ });
  assert.throws(() => parseMark('0x80000000/0x40000000'), {
    message: /whose value has bits its mask has not/,
  });
});

test('a mark is written with its mask', () => {
  assert.equal(formatMark({ value: 0x1000, mask: 0x1000 }), '0x1000/0x1000');
  assert.equal(formatMark({ value: 0x8000_0000, mask: 0xffff_ffff }), '0x80000000/0xffffffff');
});

test('a table has a name that nft takes without quotes', () => {
  for (const name of ['dualport', 'a', 'A_1', 'x'.repeat(31)]) assert.equal(parseTable(name), name);
  for (const name of ['', '1a', '_a', 'a-b', 'a b', 'a;b', 'x'.repeat(32), 'a{']) {
    assert.throws(
      () => parseTable(name),
      { code: 'USAGE', message: /allowed: the name of an nft table/ },
      name,
    );
  }
});

test('an interface has a name that the kernel can give and nft can be told', () => {
  for (const name of ['docker0', 'br-0123456789ab', 'eth0.100', 'wan+1', 'a@b', 'ä'])
    assert.deepEqual(parseInterface(name), [name]);
  for (const name of ['', 'a b', 'a/b', 'a"b', 'a*', 'a\\b', 'x'.repeat(16), '.', '..', 'a\u0007']) {
    assert.ok(!isInterfaceName(name), name);
    assert.throws(
      () => parseInterface(name),
      { code: 'USAGE', message: /allowed: names of network interfaces/ },
      name,
    );
  }
});

const flags = { publish: ['8080:80'], to: ['172.17.0.2'] };

test('the configuration has the names of what is made in the kernel', () => {
  assert.deepEqual(loadConfig({ flags, env: {} }).transparent, {
    setup: false,
    interfaces: [],
    table: 'dualport',
    mark: { value: 0x1000, mask: 0x1000 },
    priority: 60,
    routeTable: 24_000,
  });
  const env = {
    DUALPORT_TRANSPARENT_SETUP: 'yes',
    DUALPORT_TRANSPARENT_INTERFACE: 'docker0, br-1 docker0',
    DUALPORT_TRANSPARENT_TABLE: 'mine',
    DUALPORT_TRANSPARENT_MARK: '0x1/0x3',
    DUALPORT_TRANSPARENT_PRIORITY: '90',
    DUALPORT_TRANSPARENT_ROUTE_TABLE: '900',
  };
  const expected = {
    setup: true,
    interfaces: ['docker0', 'br-1'],
    table: 'mine',
    mark: { value: 1, mask: 3 },
    priority: 90,
    routeTable: 900,
  };
  assert.deepEqual(loadConfig({ flags, env }).transparent, expected);
  assert.deepEqual(loadTransparentConfig({ flags: {}, env }), expected, 'and so without a rule');
});

test('a file names them at its top', () => {
  const readFile = () =>
    new TextEncoder().encode('transparentTable: mine\ntransparentInterface: [br-1, br-2]\n');
  const { table, interfaces } = loadTransparentConfig({ flags: { config: 'x' }, env: {}, readFile });
  assert.deepEqual([table, interfaces], ['mine', ['br-1', 'br-2']]);
});

test('priorities and tables leave room for what is used of them, and for the kernel', () => {
  for (const [key, good, bad] of [
    [
      'transparentPriority',
      ['1', String(lastPriority)],
      ['0', String(lastPriority + 1), '-1', 'x', '1.5', ''],
    ],
    [
      'transparentRouteTable',
      ['256', String(lastRouteTable)],
      ['255', '0', String(lastRouteTable + 1), 'main'],
    ],
  ] as const) {
    for (const text of good) loadTransparentConfig({ flags: { [key]: text }, env: {} });
    for (const text of bad) {
      const load = () => loadTransparentConfig({ flags: { [key]: text }, env: {} });
      assert.throws(load, { code: 'USAGE', message: /allowed: a whole number from \d+ to \d+$/ }, text);
    }
  }
  assert.equal(lastPriority, 32_761);
});
