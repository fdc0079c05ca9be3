import assert from 'node:assert/strict';
import test from 'node:test';
import { defaultBind, defaultPorts } from '../../../src/config/docker-options.ts';
import {
  environmentOf,
  flagOf,
  type OptionKey,
  optionDefaults,
  optionKeys,
  options,
  processKeys,
  ruleKeys,
} from '../../../src/config/options.ts';
import { DualportError } from '../../../src/errors.ts';
import { type Cidr, formatCidr, parseCidr } from '../../../src/net/cidr.ts';

const at = { origin: 'flag', text: '--x' } as const;

function read(key: OptionKey, ...texts: readonly string[]): unknown {
  return options[key].read(
    texts.map((text) => ({ text, at })),
    at,
  );
}

function refuses(key: OptionKey, text: string, why: RegExp): void {
  assert.throws(
    () => read(key, text),
    (error) => {
      assert.ok(error instanceof DualportError);
      assert.match(error.message, /^--x: /);
      assert.match(error.message, why);
      return true;
    },
  );
}

test('a row is a flag in kebab case and a variable in capitals', () => {
  assert.equal(flagOf('udpStreamTimeout'), '--udp-stream-timeout');
  assert.equal(environmentOf('udpStreamTimeout'), 'DUALPORT_UDP_STREAM_TIMEOUT');
  assert.equal(flagOf('proxyCrc32c'), '--proxy-crc32c');
  assert.equal(environmentOf('to'), 'DUALPORT_TO');
});

test('flags, short flags and variables are unique', () => {
  const names = optionKeys.flatMap((key) => [
    flagOf(key),
    environmentOf(key),
    options[key].short ?? flagOf(key),
  ]);
  assert.equal(new Set(names).size, optionKeys.length * 2 + 3);
});

test('every option but publish and config belongs to a rule or to the process', () => {
  assert.deepEqual([...ruleKeys, ...processKeys, 'publish', 'config'].sort(), [...optionKeys].sort());
});

test('every row says what it does, what is allowed and what holds without it', () => {
  for (const key of optionKeys) {
    const { help, allowed, defaultText, group } = options[key];
    for (const text of [help, allowed, defaultText, group]) assert.notEqual(text.trim(), '', key);
    assert.doesNotMatch(help, /\.$/, key);
  }
});

test('the defaults are the documented ones', () => {
  assert.deepEqual(optionDefaults, {
    publish: [],
    to: undefined,
    family: 'same',
    source: 'none',
    mismatch: 'auto',
    sourcePort: 'any',
    udpHeader: 'every',
    proxyCrc32c: false,
    proxyUniqueId: false,
    acceptProxy: [],
    allow: [],
    deny: [],
    connectTimeout: 5000,
    idleTimeout: 0,
    halfCloseTimeout: 120_000,
    udpTimeout: 30_000,
    udpStreamTimeout: 180_000,
    headerTimeout: 5000,
    udpReplies: 'limited',
    maxFlowsPerRule: undefined,
    maxFlowsPerSource: undefined,
    docker: false,
    dockerMirror: false,
    dockerEngine: undefined,
    dockerPorts: defaultPorts,
    dockerBind: defaultBind,
    dockerMaxPorts: undefined,
    maxFlows: undefined,
    engine: 'auto',
    threads: 1,
    drainTimeout: 8000,
    admin: undefined,
    dockerProxySocket: undefined,
    accessLog: false,
    logLevel: 'info',
    logFormat: 'auto',
    pseudoV4: parseCidr('240.0.0.0/4'),
    pseudoV6: parseCidr('fd5f:bf90:309::/96'),
    pseudoUnit: '/64',
    stateDir: undefined,
    transparentNetworks: [],
    transparentSetup: false,
    transparentInterface: [],
    transparentTable: 'dualport',
    transparentMark: { value: 0x1000, mask: 0x1000 },
    transparentPriority: 60,
    transparentRouteTable: 24_000,
    config: undefined,
  });
});

test('the text of a default reads as the default where it is a value', () => {
  for (const key of [
    'family',
    'source',
    'connectTimeout',
    'halfCloseTimeout',
    'accessLog',
    'logFormat',
    'pseudoV4',
    'pseudoV6',
    'threads',
  ] as const) {
    assert.deepEqual(read(key, options[key].defaultText), optionDefaults[key]);
  }
  assert.equal(options.idleTimeout.defaultText, '0 (off)');
});

test('a choice takes its words only, and suggests the nearest', () => {
  assert.equal(read('source', 'proxy-v2'), 'proxy-v2');
  refuses(
    'source',
    'proxyv2',
    /found "proxyv2"; allowed: none, proxy-v1, proxy-v2, transparent, pseudo; did you mean proxy-v2\?$/,
  );
  refuses('source', 'constructor', /allowed: none, proxy-v1, proxy-v2, transparent, pseudo$/);
});

test('a switch takes the usual words in any case', () => {
  for (const text of ['true', 'YES', 'on', '1']) assert.equal(read('accessLog', text), true, text);
  for (const text of ['false', 'No', 'off', '0']) assert.equal(read('accessLog', text), false, text);
  refuses('accessLog', 'maybe', /found "maybe"; allowed: true or false/);
});

test('a duration holds to its bounds, which an error names', () => {
  assert.equal(read('connectTimeout', '10ms'), 10);
  assert.equal(read('connectTimeout', '300'), 300_000);
  refuses('connectTimeout', '9ms', /found "9ms"; allowed: a duration from 10ms to 5m, as 250ms/);
  refuses('connectTimeout', '301s', /from 10ms to 5m/);
  refuses('connectTimeout', '0', /from 10ms to 5m/);
  refuses('connectTimeout', 'soon', /found "soon"/);
  refuses('connectTimeout', '', /found nothing/);
});

test('0 is allowed where it means something', () => {
  assert.equal(read('idleTimeout', '0'), 0);
  assert.equal(read('drainTimeout', '0s'), 0);
  refuses('idleTimeout', '1ms', /0 \(off\) or a duration from 10ms to 168h/);
});

test('a limit is a whole number from 1', () => {
  assert.equal(read('maxFlows', '1'), 1);
  assert.equal(read('maxFlows', '10000000'), 10_000_000);
  for (const text of ['0', '-1', '1.5', '1e3', '10000001', '', 'many']) {
    refuses('maxFlows', text, /allowed: a whole number from 1 to 10000000$/);
  }
});

test('threads are a whole number from 1 to 64', () => {
  assert.equal(read('threads', '64'), 64);
  for (const text of ['0', '65', '-1', '1.5', 'auto', '']) {
    refuses('threads', text, /allowed: a whole number from 1 to 64$/);
  }
});

test('a list is split at commas and white space, and may be repeated', () => {
  const cidrs = read('allow', '10.0.0.0/8, 2001:db8::/32', ' 192.0.2.1\n') as Parameters<
    typeof formatCidr
  >[0][];
  assert.deepEqual(cidrs.map(formatCidr), ['10.0.0.0/8', '2001:db8::/32', '192.0.2.1/32']);
});

test('an item of a list that is wrong is named with its reason', () => {
  refuses('allow', '10.0.0.1/8', /"10\.0\.0\.1\/8" is not an address prefix: .*10\.0\.0\.0\/8/);
  refuses('to', '10.0.0.2,', /"" is not a host/);
  refuses('publish', '80:80 x', /"x" is not a port to publish/);
});

test('a list that needs an item says so', () => {
  assert.throws(() => read('to'), /found nothing; allowed: at least one host/);
  assert.throws(() => read('allow'), /for everybody write 0\.0\.0\.0\/0, ::\/0/);
  assert.throws(() => read('publish'), /at least one port/);
  assert.deepEqual(read('deny'), []);
  assert.deepEqual(read('acceptProxy'), []);
});

test('of a flag that was given twice the last counts', () => {
  assert.equal(read('logLevel', 'warn', 'debug'), 'debug');
});

test('the socket of launchers is an absolute path, and the flag alone the usual one', () => {
  assert.equal(read('dockerProxySocket', '/run/x.sock'), '/run/x.sock');
  assert.equal(read('dockerProxySocket', 'true'), '/run/dualport/docker-proxy.sock');
  for (const text of ['', 'x.sock', './x', 'false', '/a\0b', `/${'x'.repeat(107)}`]) {
    refuses('dockerProxySocket', text, /allowed: an absolute path of at most 107 bytes; without one \/run\//);
  }
  assert.equal(read('dockerProxySocket', `/${'x'.repeat(106)}`), `/${'x'.repeat(106)}`);
});

test('the path of a file is any text that can be one', () => {
  assert.equal(read('config', 'my file.yaml'), 'my file.yaml');
  refuses('config', 'a\0b', /the path of a YAML file/);
  refuses('config', '', /found nothing/);
});

test('pseudo addresses come from a prefix of their family that hosts can have', () => {
  for (const text of ['240.0.0.0/4', '10.0.0.0/8', '198.18.0.0/15', '203.0.113.0/24', '128.0.0.0/4'])
    assert.equal(formatCidr(read('pseudoV4', text) as Cidr), text);
  const refused = ['192.0.0.0/3', '10.0.0.0/25', '127.0.0.0/8', '0.0.0.0/8', '224.0.0.0/4', '112.0.0.0/4'];
  for (const text of [...refused, 'fd00::/96', 'fd00::/8']) {
    refuses('pseudoV4', text, /allowed: an IPv4 prefix of a length from 4 to 24 .* such as 240\.0\.0\.0\/4$/);
  }
  refuses('pseudoV4', '240.0.0.1/4', /it has bits set behind the prefix; write 240\.0\.0\.0\/4/);
});

test('the prefix that IPv4 addresses are embedded in leaves them their 32 bits', () => {
  assert.equal(formatCidr(read('pseudoV6', 'fd00:1::/96') as Cidr), 'fd00:1::/96');
  for (const text of ['fd00::/64', 'fd00::/97', 'ff02::/96', '::/96', '::ffff:0:0/96', '240.0.0.0/4']) {
    refuses('pseudoV6', text, /allowed: an IPv6 prefix of length 96 .* such as fd5f:bf90:309::\/96$/);
  }
});

test('a directory of state has an absolute path', () => {
  assert.equal(read('stateDir', '/var/lib/dual port'), '/var/lib/dual port');
  for (const text of ['state', './state', '', '/a\0b'])
    refuses('stateDir', text, /allowed: an absolute path$/);
});

test('networks are named as Docker names them', () => {
  assert.deepEqual(read('transparentNetworks', 'front, my_app.default'), ['front', 'my_app.default']);
  assert.deepEqual(read('transparentNetworks', '*'), ['*']);
  refuses('transparentNetworks', '-x', /found "-x"; allowed: names of Docker networks, or \* for all/);
});
