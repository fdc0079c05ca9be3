/** What comes from the engine, taken apart: lists, lines, events, and the container in an element of a list. */
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import test from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { readBeginning, readContainer } from '../../../src/docker/container.ts';
import { readEvent } from '../../../src/docker/events.ts';
import { JsonArray } from '../../../src/docker/json-array.ts';
import { readLines } from '../../../src/docker/lines.ts';
import { readNetwork } from '../../../src/docker/network.ts';
import { formatAddress } from '../../../src/net/address.ts';
import { formatCidr } from '../../../src/net/cidr.ts';
import { container, idOf, network } from '../../support/docker-lists.ts';

interface Split {
  readonly elements: readonly string[];
  readonly tooLong: readonly string[];
  readonly complete: boolean;
}

/** Splits a text given in pieces; undefined when it is no array. */
function split(pieces: readonly Buffer[], maxBytes = 1000): Split | undefined {
  const elements: string[] = [];
  const tooLong: string[] = [];
  const array = new JsonArray(maxBytes, {
    element: (text) => elements.push(text),
    tooLong: (beginning) => tooLong.push(beginning),
  });
  if (!pieces.every((piece) => array.push(piece))) return undefined;
  return { elements, tooLong, complete: array.complete };
}

/** The same bytes, cut at these places. */
function cut(text: string, places: readonly number[]): readonly Buffer[] {
  const bytes = Buffer.from(text);
  const ends = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b);
  return [...ends, bytes.length].map((end, i) => bytes.subarray(ends[i - 1] ?? 0, end));
}

test('an array comes apart into its elements, wherever its bytes are cut', () => {
  const value = fc.jsonValue({ maxDepth: 4 });
  const places = fc.array(fc.nat(), { maxLength: 10 });
  fc.assert(
    fc.property(fc.array(value), places, fc.constantFrom(undefined, 2), (values, cuts, indent) => {
      const whole = split(cut(` ${JSON.stringify(values, undefined, indent)}\n`, cuts), 1e9);
      assert.deepEqual(
        whole?.elements.map((text) => JSON.parse(text)),
        JSON.parse(JSON.stringify(values)),
      );
      assert.equal(whole?.complete, true);
    }),
    { numRuns: 1000 },
  );
});

test('an element that is too long is passed over, and the others are there', () => {
  const bomb = JSON.stringify({ Id: 'b', Labels: { x: '],["\\"'.repeat(1000) } });
  for (const places of [[], [3, 10, 500, 1500], Array.from({ length: 300 }, (_, i) => i * 17)]) {
    const result = split(cut(`[{"Id":"a"},${bomb},{"Id":"c"}]`, places));
    assert.deepEqual(result?.elements, ['{"Id":"a"}', '{"Id":"c"}']);
    assert.equal(result?.tooLong.length, 1);
    assert.ok(bomb.startsWith(result?.tooLong[0] ?? '-'));
    assert.ok((result?.tooLong[0] ?? '').length <= 512);
  }
});

test('an element of just the longest length is read', () => {
  const element = JSON.stringify('x'.repeat(98));
  assert.deepEqual(split([Buffer.from(`[${element}]`)], 100)?.elements, [element]);
  assert.equal(split([Buffer.from(`[${element}]`)], 99)?.tooLong.length, 1);
});

test('what is no array is known at once, what is not whole at the end', () => {
  for (const text of ['{}', 'null', '"["', '<html>', '[1]]', '[1] 2', '[][]'])
    assert.equal(split([Buffer.from(text)]), undefined, text);
  for (const text of ['', ' ', '[', '[1', '[1,', '["]', '[{]', '[[]'])
    assert.equal(split([Buffer.from(text)])?.complete, false, text);
  assert.deepEqual(split([Buffer.from('[]')]), { elements: [], tooLong: [], complete: true });
  assert.deepEqual(split([Buffer.from('[ ]\r\n')])?.elements, []);
  assert.deepEqual(split([Buffer.from('[1,]')])?.elements, ['1'], 'JSON.parse is not asked about nothing');
});

test('sixteen mebibytes of one element are not kept', () => {
  const array = new JsonArray(1000, { element: () => assert.fail(), tooLong: () => {} });
  const chunk = Buffer.alloc(65_536, 'x');
  array.push(Buffer.from('["'));
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 256; i++) assert.equal(array.push(chunk), true);
  assert.ok(process.memoryUsage().arrayBuffers - before < 1_000_000);
  assert.equal(array.push(Buffer.from('"]')), true);
  assert.equal(array.complete, true);
});

async function lines(
  pieces: readonly (Buffer | string)[],
  maxBytes = 1000,
): Promise<readonly (string | undefined)[]> {
  const found: (string | undefined)[] = [];
  const stream = Readable.from(pieces.map((piece) => Buffer.from(piece)));
  for await (const line of readLines(stream, maxBytes)) found.push(line);
  return found;
}

test('lines come one by one, wherever they are cut', async () => {
  const line = fc.string({ unit: 'binary' }).map((text) => text.replaceAll('\n', ''));
  await fc.assert(
    fc.asyncProperty(fc.array(line), fc.array(fc.nat(), { maxLength: 10 }), async (texts, cuts) => {
      const expected = texts.map((text) => Buffer.from(text).toString());
      assert.deepEqual(await lines(cut(texts.map((text) => `${text}\n`).join(''), cuts), 1e6), expected);
    }),
    { numRuns: 300 },
  );
});

test('a line that is too long is nothing but a line, and the next one is whole', async () => {
  const long = 'x'.repeat(300);
  assert.deepEqual(await lines([`${long}${long}`, `${long}${long}\nab`, 'c\n'], 1000), [undefined, 'abc']);
  assert.deepEqual(await lines([`${'x'.repeat(1001)}\n${'y'.repeat(1000)}\n`], 1000), [
    undefined,
    'y'.repeat(1000),
  ]);
  assert.deepEqual(await lines(['no end']), [], 'what has no end is no line');
});

test('a hundred mebibytes of one line are not kept', async () => {
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  let most = 0;
  async function* endless(): AsyncGenerator<Buffer> {
    for (let i = 0; i < 100; i++) {
      yield Buffer.alloc(1024 * 1024, 'x');
      collect();
      most = Math.max(most, process.memoryUsage().arrayBuffers);
    }
  }
  const before = process.memoryUsage().arrayBuffers;
  for await (const line of readLines(endless(), 1000)) assert.fail(`there is no line ${line}`);
  assert.ok(most - before < 20_000_000, `${most - before} bytes`);
});

const id = idOf('web');
const event = (Type: string, Action: string, Attributes: object = {}) =>
  JSON.stringify({ Type, Action, Actor: { ID: id, Attributes }, timeNano: 17 });

test('an event says what has begun and what has ended, and no more', () => {
  for (const [action, kind] of [
    ['start', 'began'],
    ['die', 'ended'],
    ['stop', 'ended'],
    ['destroy', 'ended'],
  ] as const) {
    const read = readEvent(event('container', action, { name: 'web' }));
    assert.deepEqual(read, { kind, container: id, network: undefined, at: 17 });
  }
  for (const [action, kind] of [
    ['connect', 'began'],
    ['disconnect', 'ended'],
  ] as const) {
    const read = readEvent(event('network', action, { container: 'c1' }));
    assert.deepEqual(read, { kind, container: 'c1', network: id, at: 17 });
  }
  for (const other of [
    event('container', 'rename'),
    event('container', 'constructor'),
    event('network', 'destroy'),
    event('network', 'die', { container: 'c1' }),
    event('container', 'disconnect', { container: 'c1' }),
    event('network', 'disconnect'),
    event('network', 'disconnect', { container: 7 }),
    event('volume', 'destroy'),
    '{"Type":"container","Action":"die"}',
    '{"Type":"container","Action":"die","Actor":{"ID":7}}',
    '{"Type":"container","Action":"die","Actor":null}',
    'null',
    '[]',
    '',
    '{',
    'HTTP/1.1 502',
    undefined,
  ]) {
    assert.deepEqual(readEvent(other), { kind: 'other' }, other);
  }
});

test('a container is read out of what the engine lists', () => {
  const labels = { 'io.dualport.ports': '8080:80', 'com.docker.compose.project': 'shop', other: 'x' };
  const published = ['0.0.0.0:8080:80/tcp', '[::]:8080:80/tcp'];
  const read = readContainer(
    container('web', { labels, published, networks: { b: 'fd00::2 10.0.0.2', a: '10.0.1.2' } }),
  );
  assert.deepEqual([...(read?.labels ?? [])], [['io.dualport.ports', '8080:80']]);
  assert.deepEqual(
    [read?.id, read?.name, read?.composeProject, read?.running],
    [idOf('web'), 'web', 'shop', true],
  );
  assert.deepEqual(
    read?.networks.map(({ name, addresses }) => [name, ...addresses.map(formatAddress)]),
    [
      ['a', '10.0.1.2'],
      ['b', '10.0.0.2', 'fd00::2'],
    ],
  );
  assert.deepEqual(
    read?.published.map(({ address, hostPort, containerPort, protocol }) => [
      formatAddress(address),
      hostPort,
      containerPort,
      protocol,
    ]),
    [
      ['0.0.0.0', 8080, 80, 'tcp'],
      ['::', 8080, 80, 'tcp'],
    ],
  );
});

test('what is no container is none, and what a container lacks is empty', () => {
  for (const value of [
    undefined,
    null,
    7,
    'x',
    [],
    {},
    { Id: 7 },
    { Id: 'xyz' },
    { Id: '../../etc' },
    { Id: 'a'.repeat(65) },
  ]) {
    assert.equal(readContainer(value), undefined);
  }
  assert.deepEqual(readContainer({ Id: id }), {
    id,
    name: id.slice(0, 12),
    running: true,
    createdAt: 0,
    labels: new Map(),
    composeProject: undefined,
    networkMode: '',
    networks: [],
    published: [],
  });
});

test('a name that Docker would not give is not shown', () => {
  const name = (Names: unknown) => readContainer({ Id: id, Names })?.name;
  assert.equal(name(['/web']), 'web');
  assert.equal(name(['/other/web', '/web.1']), 'web.1', 'not the name a link has given');
  for (const bad of ['/a\u001b[2J', '/\u202egnp', '/', '', '/-x', `/${'x'.repeat(200)}`, 7]) {
    assert.equal(name([bad]), id.slice(0, 12));
  }
});

test('ports and addresses of the wrong kind are left out', () => {
  const ports = [
    { PrivatePort: 80, Type: 'tcp' },
    { IP: '0.0.0.0', PrivatePort: 80, PublicPort: 0, Type: 'tcp' },
    { IP: '0.0.0.0', PrivatePort: 80, PublicPort: 65536, Type: 'tcp' },
    { IP: '0.0.0.0', PrivatePort: 80, PublicPort: '80', Type: 'tcp' },
    { IP: '0.0.0.0', PrivatePort: 80, PublicPort: 80, Type: 'sctp' },
    { IP: 'x', PrivatePort: 80, PublicPort: 80, Type: 'tcp' },
    null,
    7,
  ];
  const Networks = {
    a: null,
    b: { IPAddress: 7 },
    c: { IPAddress: 'fd00::2', GlobalIPv6Address: '10.0.0.2' },
  };
  const read = readContainer({ Id: id, Ports: ports, NetworkSettings: { Networks } });
  assert.deepEqual(read?.published, []);
  assert.deepEqual(
    read?.networks.map(({ addresses }) => addresses.length),
    [0, 0, 0],
    'each family in its own field',
  );
});

test('of a container that is too long to be read the beginning says who it is', () => {
  const text = JSON.stringify(container('bomb', { labels: { x: 'y'.repeat(1000) } })).slice(0, 512);
  const { id: found, name, labels } = readBeginning(text);
  assert.deepEqual([found, name, labels.size], [idOf('bomb'), 'bomb', 0]);
  assert.equal(readBeginning('{"Names":["/a\u001b"]').name.includes('\u001b'), false);
});

test('a network is read out of what the engine lists', () => {
  const read = readNetwork(network('front', ['10.0.0.0/8', 'fd00::/8', '10.0.0.1/8', 'x']));
  assert.deepEqual(
    read?.subnets.map(formatCidr),
    ['10.0.0.0/8', 'fd00::/8'],
    'what is no prefix is left out',
  );
  assert.equal(read?.compose, undefined);
  for (const value of [undefined, null, 7, {}, { Id: 'x' }, { Name: 'x' }])
    assert.equal(readNetwork(value), undefined);
});
