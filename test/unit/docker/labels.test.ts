import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { formatPortSpec } from '../../../src/config/port-spec.ts';
import {
  type Exposure,
  isOwnLabel,
  labelNames,
  longestValue,
  readLabels,
} from '../../../src/docker/labels.ts';
import { formatCidr } from '../../../src/net/cidr.ts';

function read(labels: Readonly<Record<string, string>>, maxPorts = 32): Exposure {
  const own = Object.entries(labels).filter(([key]) => isOwnLabel(key));
  return readLabels(new Map(own), maxPorts);
}

/** Ports as text, each with its own source where it has one. */
function ports(exposure: Exposure): readonly string[] {
  return exposure.ports.map(({ port, source }) => `${formatPortSpec(port)}${source ? ` ${source}` : ''}`);
}

/** Labels that withdraw everything, and why. */
function refuses(labels: Readonly<Record<string, string>>, why: RegExp): void {
  const exposure = read({ 'io.dualport.ports': '8080:80', ...labels });
  assert.deepEqual(exposure.ports, [], 'nothing is published');
  assert.equal(exposure.complaints.length, 1);
  assert.match(exposure.complaints[0] ?? '', why);
}

test('without a label of dualport nothing is asked for, whatever other labels there are', () => {
  const none = read({
    'traefik.enable': 'true',
    'io.dualportal.ports': '1:1',
    'xio.dualport.ports': '1:1',
    '': '',
  });
  assert.deepEqual(none, {
    ports: [],
    values: { source: undefined, family: undefined, allow: undefined },
    network: undefined,
    complaints: [],
  });
});

test('ports are in the grammar of docker, between commas, spaces or lines', () => {
  const text = ' [::]:8080:80, 53:53/udp\n9000-9001:90-91\r\n127.0.0.1:1:1,';
  assert.deepEqual(ports(read({ 'io.dualport.ports': text.replace(/,$/, '') })), [
    '[::]:8080:80/tcp',
    '53:53/udp',
    '9000:90/tcp',
    '9001:91/tcp',
    '127.0.0.1:1:1/tcp',
  ]);
});

test('what holds for all ports of a container is read with the parsers of the options', () => {
  const { values, network, complaints } = read({
    'io.dualport.ports': '1:1',
    'io.dualport.source': 'proxy-v2',
    'io.dualport.family': ' prefer-v6 ',
    'io.dualport.network': 'front',
    'io.dualport.allow': '10.0.0.0/8,2001:db8::/32',
  });
  assert.deepEqual([values.source, values.family, network], ['proxy-v2', 'prefer-v6', 'front']);
  assert.deepEqual(values.allow?.map(formatCidr), ['10.0.0.0/8', '2001:db8::/32']);
  assert.deepEqual(complaints, []);
});

test('a port that is wrong is left out alone, and named', () => {
  const exposure = read({ 'io.dualport.ports': '8080:80, 8081:http, 0x50:80, 8082:82/sctp, ,8083:83' });
  assert.deepEqual(ports(exposure), ['8080:80/tcp', '8083:83/tcp']);
  assert.deepEqual(
    exposure.complaints.map((text) => text.slice(0, 60)),
    [
      'io.dualport.ports: "8081:http" is not a port to publish: the ',
      'io.dualport.ports: "0x50:80" is not a port to publish: the h',
      'io.dualport.ports: "8082:82/sctp" is not a port to publish: ',
      'io.dualport.ports: "" is not a port to publish: the containe',
    ].map((text) => text.slice(0, 60)),
  );
});

for (const [label, nearest] of Object.entries({
  'io.dualport.port': 'io.dualport.ports',
  'io.dualport.prots': 'io.dualport.ports',
  'io.dualport.PORTS': 'io.dualport.ports',
  'IO.DualPort.ports': 'io.dualport.ports',
  'io.dualport.alow': 'io.dualport.allow',
  'io.dualport.sources': 'io.dualport.source',
  'io.dualport.port.web.publish': 'io.dualport.port.web.published',
  'io.dualport.port.web.host_ip': 'io.dualport.port.web.host-ip',
  'io.dualport.port.web.tarjet': 'io.dualport.port.web.target',
})) {
  test(`the unknown label ${label} withdraws the ports, and ${nearest} is suggested`, () => {
    refuses(
      { [label]: '1' },
      new RegExp(`^${label}: found an unknown label; did you mean ${nearest}\\?; allowed: io`),
    );
  });
}

test('a label far off any is refused with all there are, and with no guess', () => {
  refuses(
    { 'io.dualport.trust-proxy-headers-from': '0.0.0.0/0' },
    /: found an unknown label; allowed: io\.dualport\.ports, /,
  );
  for (const name of labelNames) refuses({ 'io.dualport.x': '' }, new RegExp(name.replaceAll(/[.<>]/g, '.')));
});

test('what only the operator may grant has no label', () => {
  for (const [label, value] of [
    ['io.dualport.accept-proxy', '0.0.0.0/0'],
    ['io.dualport.acceptProxy', '0.0.0.0/0'],
    ['io.dualport.deny', ''],
    ['io.dualport.to', '10.0.0.9'],
    ['io.dualport.port.web.to', '10.0.0.9'],
    ['io.dualport.maxFlows', '1'],
  ] as const) {
    refuses({ [label]: value }, /found an unknown label/);
  }
  refuses(
    { 'io.dualport.port.80.source': '', 'io.dualport.source': 'pseudo' },
    /allowed: none, proxy-v1, proxy-v2, transparent$/,
  );
});

test('a value that is not allowed withdraws the ports', () => {
  refuses(
    { 'io.dualport.source': 'proxy-v3' },
    /^io\.dualport\.source: found "proxy-v3"; allowed: none, proxy-v1, proxy-v2, transparent; did/,
  );
  refuses(
    { 'io.dualport.family': '6' },
    /^io\.dualport\.family: found "6"; allowed: same, v4, v6, prefer-v4, prefer-v6/,
  );
  refuses(
    { 'io.dualport.allow': '10.0.0.1/8' },
    /^io\.dualport\.allow: "10\.0\.0\.1\/8" is not an address prefix/,
  );
  refuses({ 'io.dualport.allow': '' }, /^io\.dualport\.allow: "" is not an address prefix/);
  refuses(
    { 'io.dualport.network': '' },
    /^io\.dualport\.network: found nothing; allowed: the name of a network$/,
  );
});

test('a named port is one of its own', () => {
  const exposure = read({
    'io.dualport.port.web.target': '80',
    'io.dualport.port.web.published': '8080',
    'io.dualport.port.web.host-ip': '::',
    'io.dualport.port.web.source': 'proxy-v1',
    'io.dualport.port.dns.target': '53',
    'io.dualport.port.dns.published': '5300-5310',
    'io.dualport.port.dns.protocol': 'udp',
    'io.dualport.port.dns.host-ip': '127.0.0.1',
  });
  assert.deepEqual(exposure.complaints, []);
  assert.deepEqual(ports(exposure), ['[::]:8080:80/tcp proxy-v1', '127.0.0.1:5300-5310:53/udp']);
  assert.deepEqual(
    exposure.ports.map(({ askedBy }) => askedBy),
    [
      { origin: 'label', text: 'io.dualport.port.web' },
      { origin: 'label', text: 'io.dualport.port.dns' },
    ],
  );
});

test('a named port describes those of the list that go to the same port of the container', () => {
  const listed = { 'io.dualport.ports': '8080:80, 8081:80, 8053:53/udp, 8053:53' };
  assert.deepEqual(ports(read({ ...listed, 'io.dualport.port.80.source': 'proxy-v2' })), [
    '8080:80/tcp proxy-v2',
    '8081:80/tcp proxy-v2',
    '8053:53/udp',
    '8053:53/tcp',
  ]);
  const dns = {
    ...listed,
    'io.dualport.port.dns.target': '53',
    'io.dualport.port.dns.protocol': 'udp',
    'io.dualport.port.dns.published': '5353',
    'io.dualport.port.dns.host-ip': '[::1]',
  };
  assert.deepEqual(ports(read(dns)), ['8080:80/tcp', '8081:80/tcp', '[::1]:5353:53/udp', '8053:53/tcp']);
});

test('a port its own label is wrong about is not published as it stands in the list', () => {
  const listed = { 'io.dualport.ports': '8080:80, 9090:90' };
  for (const [label, value, why] of [
    ['io.dualport.port.80.source', 'proxy', /^io\.dualport\.port\.80\.source: found "proxy"; allowed: none/],
    ['io.dualport.port.80.host-ip', 'localhost', /^io\.dualport\.port\.80\.host-ip: found "localhost"/],
    ['io.dualport.port.80.host-ip', '', /host-ip: found ""/],
    ['io.dualport.port.80.host-ip', '::1]:22:22,[::', /host-ip: found "::1\]:22:22,\[::"/],
    ['io.dualport.port.80.host-ip', '999.0.0.1', /"999\.0\.0\.1" is not an IP address to listen on/],
    ['io.dualport.port.80.published', '22:22', /published: found "22:22"; allowed: a host port, or a range/],
    ['io.dualport.port.80.published', '', /published: found ""/],
    ['io.dualport.port.80.published', '99999', /is not a number from 0 to 65535/],
  ] as const) {
    const exposure = read({ ...listed, [label]: value });
    assert.deepEqual(ports(exposure), ['9090:90/tcp'], label);
    assert.match(exposure.complaints[0] ?? '', why);
  }
});

test('a host port is not given to two ports at once', () => {
  const exposure = read({ 'io.dualport.ports': '1:80,2:80,3:90', 'io.dualport.port.80.published': '8080' });
  assert.deepEqual(ports(exposure), ['3:90/tcp']);
  assert.match(
    exposure.complaints[0] ?? '',
    /published: 2 ports of io\.dualport\.ports go to 80\/tcp; write it there$/,
  );
});

test('a named port whose target is not known withdraws all, for it may be any', () => {
  const missing = /^io\.dualport\.port\.web: found no target; add io\.dualport\.port\.web\.target, the port/;
  refuses({ 'io.dualport.port.web.source': 'proxy-v2' }, missing);
  for (const target of ['0', '65536', '80-81', '-1', '80 81', '', '8e1', 'http']) {
    refuses(
      { 'io.dualport.port.web.target': target },
      /^io\.dualport\.port\.web\.target: found .*; allowed: one port from 1 to/,
    );
  }
  refuses({ 'io.dualport.port.0.source': 'none' }, /allowed: one port/);
  refuses(
    { 'io.dualport.port.80.protocol': 'sctp' },
    /^io\.dualport\.port\.80\.protocol: found "sctp"; allowed: tcp, udp/,
  );
});

test('names that mean something to the language mean nothing here', () => {
  refuses(
    { 'io.dualport.port.__proto__.target': '80' },
    /found the port name "__proto__"; allowed: lower-case letters/,
  );
  const named = read({
    'io.dualport.port.constructor.target': '80',
    'io.dualport.port.constructor.published': '8080',
    'io.dualport.port.prototype.target': '81',
    'io.dualport.port.prototype.published': '8081',
  });
  assert.deepEqual(ports(named), ['8080:80/tcp', '8081:81/tcp']);
  for (const key of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
    refuses({ [`io.dualport.${key}`]: '1' }, /found an unknown label/);
    refuses({ [`io.dualport.port.web.${key}`]: '1' }, /found an unknown label/);
  }
  const polluting = JSON.parse('{"__proto__": "1:1", "io.dualport.ports": "8080:80"}');
  assert.deepEqual(ports(read(polluting)), ['8080:80/tcp']);
  assert.equal(({} as Record<string, unknown>)['0'], undefined);
});

test('NUL, CRLF and other controls are refused as what they are: no port, no name, no word', () => {
  for (const value of ['8080:80\0', '8080:80\u202e', '8080\0:80']) {
    const exposure = read({ 'io.dualport.ports': value });
    assert.deepEqual(exposure.ports, []);
    assert.equal(exposure.complaints.length, 1);
    assert.doesNotMatch(exposure.complaints[0] ?? '', /\0/, 'it is quoted');
  }
  assert.deepEqual(ports(read({ 'io.dualport.ports': '8080:80\r\n8081:81\r\n' })), [
    '8080:80/tcp',
    '8081:81/tcp',
  ]);
  refuses({ 'io.dualport.source': 'proxy-v2\0' }, /found "proxy-v2\\u0000"/);
  refuses({ 'io.dualport.port.a\r\nb.target': '80' }, /found the port name "a\\r\\nb"/);
});

test('what is too long is not read: a value, a name, the number of labels', () => {
  refuses(
    { 'io.dualport.ports': '8080:80 '.repeat(131_072) },
    /^io\.dualport\.ports: found more than 16384 characters$/,
  );
  refuses(
    { 'io.dualport.source': 'x'.repeat(longestValue + 1) },
    /^io\.dualport\.source: found more than 16384/,
  );
  refuses(
    { [`io.dualport.port.${'x'.repeat(1_000_000)}.target`]: '80' },
    /^io\.dualport\.port\.x+…: found a name of more than 128/,
  );
  const many = Object.fromEntries(
    Array.from({ length: 512 }, (_, i) => [`io.dualport.port.${i + 1}.source`, 'none']),
  );
  refuses(many, /^io\.dualport\.\*: found 513 labels; allowed: 512$/);
});

test('a container gets as many ports as it may, and hears of the rest', () => {
  const list = Array.from({ length: 40 }, (_, i) => `${i + 1}:80`).join(',');
  const exposure = read({ 'io.dualport.ports': list });
  assert.equal(exposure.ports.length, 32);
  assert.match(
    exposure.complaints.join(),
    /^found 33 ports, of which the first 32 count; allowed: at most 32/,
  );
  const named = { 'io.dualport.ports': '1-4:1-4', 'io.dualport.port.9.published': '9' };
  assert.deepEqual(ports(read(named, 4)), ['1:1/tcp', '2:2/tcp', '3:3/tcp', '4:4/tcp']);
  assert.deepEqual(read(named, 5).complaints, []);
});

test('a few characters do not become tens of thousands of ports', () => {
  const range = '1-65535:1-65535';
  const started = performance.now();
  const exposure = read({ 'io.dualport.ports': `${`${range},`.repeat(1000)}8080:80` });
  assert.ok(performance.now() - started < 1000);
  assert.match(
    exposure.complaints[0] ?? '',
    /"1-65535:1-65535" asks for 65535 ports; allowed: at most 32 of one container/,
  );
  assert.ok(exposure.complaints.length <= 33);
  for (const text of ['1-65535', '1-65535/udp', '[::]:1-65535:1-65535/tcp']) {
    assert.match(read({ 'io.dualport.ports': text }).complaints[0] ?? '', /asks for 65535 ports/);
  }
  assert.deepEqual(
    ports(read({ 'io.dualport.ports': '1000-2000:80' })),
    ['1000-2000:80/tcp'],
    'a choice is one port',
  );
});

test('whatever is in the labels, the answer is an answer', () => {
  const key = fc.oneof(
    fc.constantFrom(...labelNames.map((name) => name.replace('<name>', 'web'))),
    fc.string().map((text) => `io.dualport.${text}`),
    fc.tuple(fc.string(), fc.string()).map(([a, b]) => `io.dualport.port.${a}.${b}`),
  );
  const value = fc.oneof(
    fc.string(),
    fc.string({ unit: 'binary' }),
    fc.constantFrom('80', '8080:80', 'proxy-v2', '1-9:1-9'),
  );
  fc.assert(
    fc.property(fc.dictionary(key, value), fc.integer({ min: 1, max: 40 }), (labels, most) => {
      const exposure = read(labels, most);
      assert.ok(exposure.ports.length <= most);
      for (const complaint of exposure.complaints) assert.ok(complaint.length > 10);
    }),
    { numRuns: 3000 },
  );
});
