/** The follower against an engine that is made up, as reliable as dockerd or far less. */
import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { callFailed } from '../../../src/docker/trouble.ts';
import { until } from '../../engine/harness.ts';
import { container, idOf, network } from '../../support/docker-lists.ts';
import type { Fault } from '../../support/fake-engine.ts';
import { skipUnless } from '../../support/requirements.ts';
import { quick, World } from './follower-world.ts';

const web = { 'io.dualport.ports': '8080:80' };
const api = { 'io.dualport.ports': '8081:80' };
const onWeb = '8080:80/tcp → 172.17.0.2:80';
const onApi = '8081:80/tcp → 172.17.0.3:80';

async function open(t: TestContext, periods = quick, answerMs = 300): Promise<World> {
  const world = await World.open(periods, answerMs);
  t.after(() => world.close());
  world.engine.networks = [network('bridge', ['172.17.0.0/16'])];
  return world;
}

/** As `docker run`, with the event or without it. */
function run(world: World, name: string, options: Parameters<typeof container>[1], tell = true): void {
  world.engine.containers = [...world.engine.containers, container(name, options)];
  if (tell) world.engine.emit({ Type: 'container', Action: 'start', id: idOf(name) });
}

function die(world: World, name: string): void {
  world.engine.emit({ Type: 'container', Action: 'die', id: idOf(name) });
}

function unlist(world: World, name: string): void {
  world.engine.containers = world.engine.containers.filter(({ Id }) => Id !== idOf(name));
}

test('what there is at the start is published, then what comes, and no more than that is asked', async (t) => {
  const world = await open(t);
  run(world, 'web', { labels: web }, false);
  await world.follow();
  await world.publishes([onWeb]);
  run(world, 'api', { labels: api, networks: { bridge: '172.17.0.3' } });
  await world.publishes([onApi, onWeb]);
  die(world, 'web');
  unlist(world, 'web');
  await world.publishes([onApi]);
  const filters = '?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%2C%22event%22%3A%5B%22';
  assert.deepEqual(
    [...new Set(world.engine.asked)].map((line) => line.replace(/(?<=event%22%3A%5B%22).*/, '')).sort(),
    ['GET /v1.48/containers/json', `GET /v1.48/events${filters}`, 'GET /v1.48/networks', 'GET /version'],
  );
  const order = world.engine.asked.map((line) => /\/(\w+)/.exec(line.replace('/v1.48', ''))?.[1]);
  assert.deepEqual(order.slice(0, 2), ['version', 'events'], 'subscribed before anything is listed');
  const { connected, rules, containers, refused, version } = world.follower.status;
  assert.deepEqual(
    { connected, rules, containers, refused, version },
    { connected: true, rules: 1, containers: 1, refused: 0, version: '28.0.0' },
  );
});

test('events that come together are one list', async (t) => {
  const world = await open(t, { ...quick, debounceMs: 60, relistMs: 60_000 });
  await world.follow();
  await until(() => world.follower.status.lists === 1, 'the first list');
  for (let i = 0; i < 50; i++) {
    world.engine.emit({
      Type: 'network',
      Action: 'connect',
      id: idOf('bridge'),
      attributes: { container: idOf(`c${i}`) },
    });
  }
  await until(() => world.follower.status.events === 50 && world.follower.status.lists > 1, 'all events');
  await sleep(200);
  const { lists } = world.follower.status;
  assert.ok(lists <= 3, `${lists} lists`);
});

test('events that never cease do not put the list off', async (t) => {
  const world = await open(t, { ...quick, debounceMs: 60, relistMs: 60_000 });
  await world.follow();
  await until(() => world.follower.status.lists === 1, 'the first list');
  const telling = setInterval(
    () => world.engine.emit({ Type: 'container', Action: 'rename', id: idOf('x') }),
    5,
  );
  t.after(() => clearInterval(telling));
  run(world, 'web', { labels: web }, false);
  await world.publishes([onWeb]);
  await until(() => world.follower.status.lists >= 4, 'lists all the while');
});

test('a dead container loses its port before anything is listed again', async (t) => {
  const world = await open(t, { ...quick, debounceMs: 10_000 });
  run(world, 'web', { labels: web }, false);
  await world.follow();
  await world.publishes([onWeb]);
  const { lists } = world.follower.status;
  die(world, 'web');
  await world.publishes([]);
  assert.equal(world.follower.status.lists, lists);
});

test('a list that is behind the events brings nothing back', async (t) => {
  const world = await open(t, { ...quick, settleMs: 60_000 });
  run(world, 'web', { labels: web }, false);
  run(world, 'side', { labels: api, mode: `container:${idOf('web')}`, networks: {} }, false);
  await world.follow();
  await world.publishes([onWeb, '8081:80/tcp → 172.17.0.2:80']);
  const { lists } = world.follower.status;
  die(world, 'web');
  await world.publishes([]);
  await until(() => world.follower.status.lists > lists + 2, 'some lists that still have it');
  assert.deepEqual(world.books.texts, []);
  unlist(world, 'web');
  run(world, 'web', { labels: web, starts: 2 });
  await world.publishes([onWeb, '8081:80/tcp → 172.17.0.2:80']);
});

test('a container that is only listed any more holds no port against its successor', async (t) => {
  const world = await open(t, { ...quick, settleMs: 60_000 });
  run(world, 'web', { labels: web, created: 1 }, false);
  await world.follow();
  await world.publishes([onWeb]);
  die(world, 'web');
  run(world, 'next', { labels: web, created: 2, networks: { bridge: '172.17.0.3' } });
  await world.publishes(['8080:80/tcp → 172.17.0.3:80']);
  assert.deepEqual(world.said('container not published'), []);
});

test('a list that was under way when a container died does not bring it back', async (t) => {
  const world = await open(t, { ...quick, relistMs: 60_000 });
  await world.follow();
  await until(() => world.follower.status.lists === 1, 'the first list');
  world.engine.slowMs = 150;
  run(world, 'web', { labels: web });
  const lists = () => world.engine.asked.filter((line) => line.includes('/containers')).length;
  await until(() => lists() === 2, 'the list that finds it');
  die(world, 'web');
  unlist(world, 'web');
  await until(() => world.follower.status.lists >= 3, 'the lists after it');
  assert.deepEqual(world.books.history, []);
});

test('a container that dies while ports are being opened is not left open', async (t) => {
  const world = await open(t, { ...quick, settleMs: 60_000, debounceMs: 10_000, relistMs: 60_000 });
  world.books.addMs = 80;
  run(world, 'web', { labels: { 'io.dualport.ports': '8080:80,8082:80' }, created: 1 }, false);
  run(world, 'api', { labels: api, networks: { bridge: '172.17.0.3' }, created: 2 }, false);
  await world.follow();
  await sleep(40);
  die(world, 'web');
  await world.publishes([onApi]);
  await sleep(200);
  assert.deepEqual(world.books.texts, [onApi]);
  assert.ok(!world.books.history.some((line) => line.includes('8082')), 'the second was not even opened');
});

test('a container that leaves its network is not reached there any more', async (t) => {
  const world = await open(t, { ...quick, settleMs: 60_000 });
  world.engine.networks = [network('front', ['10.1.0.0/16']), network('back', ['10.2.0.0/16'])];
  run(
    world,
    'web',
    { labels: { ...web, 'io.dualport.network': 'front' }, networks: { front: '10.1.0.2', back: '10.2.0.2' } },
    false,
  );
  run(world, 'api', { labels: api, networks: { back: '10.2.0.3' } }, false);
  await world.follow();
  await world.publishes(['8080:80/tcp → 10.1.0.2:80', '8081:80/tcp → 10.2.0.3:80']);
  const leave = (network: string) =>
    world.engine.emit({
      Type: 'network',
      Action: 'disconnect',
      id: idOf(network),
      attributes: { container: idOf('web') },
    });
  leave('back');
  await sleep(50);
  assert.equal(world.books.history.length, 2, 'not the network it is reached on');
  leave('front');
  await world.publishes(['8081:80/tcp → 10.2.0.3:80']);
});

test('another address is another way, on the same listener', async (t) => {
  const world = await open(t);
  run(world, 'web', { labels: web }, false);
  await world.follow();
  await world.publishes([onWeb]);
  unlist(world, 'web');
  run(world, 'web', { labels: web, networks: { bridge: '172.17.0.9' }, starts: 2 });
  await world.publishes(['8080:80/tcp → 172.17.0.9:80']);
  assert.deepEqual(world.books.history, [`add ${onWeb}`, 'change 8080:80/tcp → 172.17.0.9:80']);
});

test('a rule that has not changed is left alone', async (t) => {
  const world = await open(t, { ...quick, relistMs: 20 });
  run(world, 'web', { labels: web }, false);
  await world.follow();
  await until(() => world.follower.status.lists > 5, 'a few lists');
  assert.deepEqual(world.books.history, [`add ${onWeb}`]);
});

test('while the engine is away everything stays, and is right again when it is back', async (t) => {
  const world = await open(t);
  run(world, 'web', { labels: web }, false);
  run(world, 'api', { labels: api, networks: { bridge: '172.17.0.3' } }, false);
  await world.follow();
  await world.publishes([onApi, onWeb]);
  await world.engine.close();
  unlist(world, 'api');
  await until(
    () => world.said('Docker Engine lost: what is published stays so, and it is tried again').length >= 2,
    'the loss to be told',
  );
  assert.equal(world.follower.status.connected, false);
  assert.deepEqual(world.books.texts, [onWeb, onApi].sort());
  await sleep(200);
  const told = world.said('Docker Engine lost: what is published stays so, and it is tried again');
  assert.deepEqual(
    told.map(({ level }) => level),
    [30, 40],
    'once that the stream has ended, once that nobody is there, however often it is tried',
  );
  assert.match(String(told[1]?.['reason']), /is not there: no such socket; start Docker, mount the socket/);
  await world.engine.open();
  await world.publishes([onWeb]);
  await world.connected();
});

test('an engine that is not there at the start is waited for', async (t) => {
  const world = await open(t);
  world.follower.start();
  await until(() => world.said('Docker Engine not reached: it is tried again').length === 1, 'a word');
  const [told] = world.said('Docker Engine not reached: it is tried again');
  assert.equal(told?.['level'], 40);
  assert.match(String(told?.['reason']), /^the Docker Engine at unix:\/\/.*docker\.sock is not there: /);
  assert.deepEqual(world.said('Docker Engine lost: what is published stays so, and it is tried again'), []);
  run(world, 'web', { labels: web }, false);
  await world.engine.open();
  await world.publishes([onWeb]);
  assert.equal(world.said('following the containers of the Docker Engine').length, 1);
});

/** What the engine does on every call of this path, and what an operator reads of it. */
const troubles: readonly (readonly [path: string, fault: Fault, says: RegExp])[] = [
  ['/version', 'hang', /did not answer GET \/version within 0\.3 s; it may be starting, or hang$/],
  ['/version', 'hang up', /hung up in the middle of an answer$/],
  ['/version', 'garbage', /is none: its \/version is not one of Docker$/],
  ['/version', 'endless', /longer than 65536 bytes$/],
  [
    '/version',
    'forbidden',
    /answered GET \/version with status 403: .*; if this is a socket proxy, let it pass GET \/version, \/events, \/containers\/json, \/networks$/,
  ],
  ['/events', 'hang', /did not answer GET \/events within 0\.3 s/],
  [
    '/events',
    'forbidden',
    /answered GET \/events with status 403: "{\\"message\\":\\"not allowed here\\"}"; if this/,
  ],
  ['/containers/json', 'hang', /did not answer GET \/containers\/json within/],
  ['/containers/json', 'hang up', /hung up in the middle of an answer$/],
  ['/containers/json', 'break off', /hung up in the middle of an answer$/],
  ['/containers/json', 'garbage', /answered GET \/containers\/json with what is no list$/],
  ['/containers/json', 'an object', /with what is no list$/],
  ['/containers/json', 'strange elements', /answered GET \/containers\/json with what is none of Docker's$/],
  ['/containers/json', 'nothing', /hung up in the middle of its answer to GET \/containers\/json$/],
  [
    '/containers/json',
    'error',
    /answered GET \/containers\/json with status 500: "{\\"message\\":\\"no luck today\\"}"$/,
  ],
  ['/containers/json', 'endless', /with more than is read: allowed are 64 MiB and 10000 elements$/],
  ['/networks', 'forbidden', /answered GET \/networks with status 403/],
  ['/networks', 'hang', /did not answer GET \/networks within/],
];
for (const [path, fault, says] of troubles) {
  test(`when the engine's ${path} is ${fault}, what was published stays, the reason is told, and it is tried again`, async (t) => {
    const world = await open(t, quick, fault === 'hang' ? 300 : 10_000);
    run(world, 'web', { labels: web }, false);
    await world.follow();
    await world.publishes([onWeb]);
    world.engine.faults.set(path, fault);
    unlist(world, 'web');
    world.engine.cut(true);
    const lost = () => world.lines.filter(({ level, reason }) => level === 40 && says.test(String(reason)));
    await until(() => lost().length > 0, `${says}: ${JSON.stringify(world.lines.slice(-3))}`);
    assert.deepEqual(world.books.texts, [onWeb]);
    world.engine.faults.clear();
    await world.publishes([]);
    await world.connected();
  });
}

test('a file that is no socket gets advice', async (t) => {
  const world = await open(t);
  writeFileSync(world.engine.socket, '');
  world.follower.start();
  await until(() => world.lines.length > 0, 'a word');
  const reason = /does not listen: Docker is not running .* or this is not its socket$/;
  assert.match(String(world.lines[0]?.['reason']), reason);
});

test('a socket that may not be used gets advice', { skip: skipUnless('root') }, async (t) => {
  const world = await open(t);
  await world.engine.open();
  chmodSync(dirname(world.engine.socket), 0o755);
  chmodSync(world.engine.socket, 0o600);
  const nobody = 65_534;
  process.seteuid?.(nobody);
  try {
    world.follower.start();
    await until(() => world.lines.length > 0, 'a word');
  } finally {
    process.seteuid?.(0);
  }
  assert.match(
    String(world.lines[0]?.['reason']),
    /may not be used by this user; let a socket proxy show it the four calls/,
  );
  await world.connected();
});

test('a proxy that is not there, or has no such name, gets advice', () => {
  const at = (errno: string) =>
    callFailed({ kind: 'tcp', host: 'proxy', port: 2375 }, Object.assign(new Error('x'), { code: errno }))
      .message;
  assert.match(
    at('ECONNREFUSED'),
    /^the Docker Engine at tcp:\/\/proxy:2375 does not listen; start it, or check the address$/,
  );
  assert.match(
    at('ENOTFOUND'),
    /does not resolve; check the address, and that the proxy is on the same network$/,
  );
  assert.match(at('EPIPE'), /hung up in the middle of a question$/);
  assert.match(at('EIO'), /cannot be asked: x$/);
});

test('tries get rarer, up to a bound', async (t) => {
  const world = await open(t, { ...quick, retryMs: 10, maxRetryMs: 80 });
  await world.engine.open();
  world.engine.faults.set('/version', 'error');
  world.follower.start();
  await sleep(700);
  // After 10, 20, 40, 80, 80… ms; at most a dozen.
  const tries = world.engine.asked.length;
  assert.ok(tries >= 4 && tries <= 12, `${tries} tries`);
  world.engine.faults.clear();
  await world.connected();
});

test('a subscription that ends at once, again and again, is not made again at once', async (t) => {
  const world = await open(t, { ...quick, retryMs: 10, maxRetryMs: 80 });
  await world.follow();
  const cutting = setInterval(() => world.engine.cut(true), 2);
  t.after(() => clearInterval(cutting));
  world.engine.asked.length = 0;
  await sleep(700);
  const subscriptions = world.engine.asked.filter((line) => line.includes('/events')).length;
  assert.ok(subscriptions >= 3 && subscriptions <= 14, `${subscriptions} subscriptions`);
});

test('the newest version of the API is spoken that both know', async (t) => {
  const version = async (ApiVersion: string, MinAPIVersion?: string) => {
    const world = await open(t);
    world.engine.version = { Version: '1', ApiVersion, MinAPIVersion };
    await world.follow();
    return world.engine.asked.find((line) => line.includes('/containers'));
  };
  assert.equal(await version('1.41', '1.12'), 'GET /v1.41/containers/json');
  assert.equal(await version('1.43'), 'GET /v1.43/containers/json');
  assert.equal(await version('1.99', '1.44'), 'GET /v1.50/containers/json');
  assert.equal(await version('1.99', '1.60'), 'GET /v1.60/containers/json', 'what it still speaks');
  const old = await open(t);
  old.engine.version = { Version: '19.03', ApiVersion: '1.40' };
  await old.engine.open();
  old.follower.start();
  await until(() => old.lines.length > 0, 'a word');
  assert.match(
    String(old.lines[0]?.['reason']),
    /speaks version 1\.40 of the API; allowed: 1\.41 \(Docker 20\.10\) and later: update Docker$/,
  );
});

test('an engine that was replaced is asked anew what it speaks', async (t) => {
  const world = await open(t);
  await world.follow();
  await world.engine.close();
  world.engine.version = { Version: '30', ApiVersion: '1.50', MinAPIVersion: '1.49' };
  world.engine.asked.length = 0;
  await world.engine.open();
  await world.connected();
  assert.equal(world.engine.asked[0], 'GET /version');
  assert.ok(world.engine.asked.includes('GET /v1.50/networks'));
});

test('garbage among the events, and lines without end, are a reason to look, and nothing else', async (t) => {
  const world = await open(t, { ...quick, relistMs: 60_000 });
  run(world, 'web', { labels: web }, false);
  await world.follow();
  await world.publishes([onWeb]);
  for (const garbage of [
    '}{\n',
    '\u0000\u0001\n',
    '[]\n\n\r\n',
    '{"Type":"container","Action":"die","Actor":{"ID":{}}}\n',
  ])
    world.engine.say(garbage);
  run(world, 'api', { labels: api, networks: { bridge: '172.17.0.3' } }, false);
  world.engine.say(`${'x'.repeat(3 * 1024 * 1024)}\n`);
  await world.publishes([onApi, onWeb]);
  assert.deepEqual([world.books.history.length, world.follower.status.connected], [2, true]);
  die(world, 'web');
  await world.publishes([onApi]);
});

test('events that do not come any more are noticed, and asked for anew', async (t) => {
  const world = await open(t);
  await world.follow();
  const subscriptions = () => world.engine.asked.filter((line) => line.includes('/events')).length;
  await until(() => world.follower.status.lists >= 3, 'lists by the clock');
  assert.equal(subscriptions(), 1, 'nothing has happened');
  run(world, 'web', { labels: web }, false);
  await world.publishes([onWeb]);
  await until(() => subscriptions() === 2, 'another subscription');
  await world.connected();
});

test('a connect that fails has the addresses looked at again, not more often than now and then', async (t) => {
  const world = await open(t, { ...quick, relistMs: 60_000, recheckMs: 100 });
  run(world, 'web', { labels: web }, false);
  await world.follow();
  await world.publishes([onWeb]);
  unlist(world, 'web');
  run(world, 'stranger', { networks: { bridge: '172.17.0.2' } }, false);
  world.follower.unreached('8080:80/tcp');
  await world.publishes([]);
  const { lists } = world.follower.status;
  run(world, 'web', { labels: web, networks: { bridge: '172.17.0.3' } });
  await world.publishes(['8080:80/tcp → 172.17.0.3:80']);
  const until300 = performance.now() + 300;
  while (performance.now() < until300) {
    world.follower.unreached('8080:80/tcp');
    world.follower.unreached('1:1/tcp');
    await sleep(1);
  }
  assert.ok(world.follower.status.lists <= lists + 9, `${world.follower.status.lists - lists} lists`);
});

test('a port that cannot be opened is told of once, tried again, and keeps nobody back', async (t) => {
  const world = await open(t);
  world.books.taken.add('8080:80/tcp');
  run(world, 'web', { labels: web, published: ['0.0.0.0:8080:80/tcp'] }, false);
  run(world, 'api', { labels: api, networks: { bridge: '172.17.0.3' } }, false);
  await world.follow();
  await world.publishes([onApi]);
  await until(() => world.follower.status.lists > 3, 'some tries');
  const [refusal, ...more] = world.said('container not published');
  assert.deepEqual(more, []);
  assert.deepEqual([refusal?.['container'], refusal?.['rule']], ['web', '8080:80/tcp']);
  assert.match(
    String(refusal?.['reason']),
    /^cannot listen on 8080:80\/tcp; Docker itself publishes 0\.0\.0\.0:8080 for container web: ask for another port/,
  );
  assert.equal(world.follower.status.refused, 1);
  assert.match(world.follower.status.refusals[0]?.reason ?? '', /^cannot listen on/);
  world.books.taken.clear();
  await world.publishes([onApi, onWeb]);
  await until(() => world.follower.status.refused === 0, 'nothing refused');
});

test('labels of a megabyte, with controls, or with ports of others: each is told, and nobody else is touched', async (t) => {
  const world = await open(t);
  run(world, 'web', { labels: web }, false);
  const bad: Readonly<Record<string, Readonly<Record<string, string>>>> = {
    large: { 'io.dualport.ports': '9000:80 '.repeat(100_000) },
    huge: { 'io.dualport.ports': 'x'.repeat(2 * 1024 * 1024) },
    nul: { 'io.dualport.ports': '9001:80\0\u202e' },
    lines: { 'io.dualport.source': 'none\r\nHTTP/1.1 200 OK' },
    proto: JSON.parse('{"__proto__":"1","io.dualport.port.__proto__.target":"80"}'),
    ssh: { 'io.dualport.ports': '22:80' },
    stranger: { 'io.dualport.ports': '172.17.0.2:9002:80' },
    thief: { 'io.dualport.ports': '8080:80' },
  };
  await world.follow();
  await world.publishes([onWeb]);
  for (const [name, labels] of Object.entries(bad))
    run(world, name, { labels, networks: { bridge: '172.17.0.9' }, created: 1_800_000_000 });
  await until(() => world.follower.status.refused >= Object.keys(bad).length, 'all to be refused');
  const told = new Map(
    world.said('container not published').map((line) => [String(line['container']), String(line['reason'])]),
  );
  assert.deepEqual([...told.keys()].sort(), Object.keys(bad).sort());
  assert.match(told.get('large') ?? '', /^io\.dualport\.ports: found more than 16384 characters$/);
  assert.match(told.get('huge') ?? '', /longer than 1 MiB; shorten its labels$/);
  assert.match(told.get('nul') ?? '', /"9001:80\\u0000\\u\{202e\}" is not a port to publish/);
  assert.match(told.get('lines') ?? '', /found "none\\r\\nHTTP\/1\.1 200 OK"; allowed: none/);
  assert.match(told.get('proto') ?? '', /found the port name "__proto__"/);
  assert.match(told.get('ssh') ?? '', /found host port 22; allowed: 1024-2374/);
  assert.match(told.get('stranger') ?? '', /found host address 172\.17\.0\.2; allowed: /);
  assert.match(told.get('thief') ?? '', /is published already by "8080:80\/tcp" \(container web/);
  for (const reason of told.values()) {
    assert.ok(reason.length <= 401, 'no line is longer than one reads');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that there is none is what is tested
    assert.doesNotMatch(reason, /[\u0000-\u001f\u202e]/);
  }
  assert.deepEqual(world.books.history, [`add ${onWeb}`]);
});

test('a flood of wrong containers is not a flood of lines', async (t) => {
  const world = await open(t);
  for (let i = 0; i < 200; i++) run(world, `bad${i}`, { labels: { 'io.dualport.x': '' } }, false);
  await world.follow();
  await until(() => world.follower.status.lists > 3, 'some lists');
  assert.equal(world.said('container not published').length, 10);
  assert.equal(world.follower.status.refused, 200);
  assert.equal(world.follower.status.refusals.length, 100, 'and no flood in the status');
});

test('another configuration holds at once', async (t) => {
  const world = await open(t, { ...quick, relistMs: 60_000 });
  run(world, 'web', { labels: web }, false);
  await world.follow();
  await world.publishes([onWeb]);
  world.flags = { dockerPorts: ['9000-9999'] };
  world.follower.configured();
  await world.publishes([]);
  world.flags = { source: 'proxy-v2' };
  world.follower.configured();
  await world.publishes([onWeb]);
  assert.equal(world.books.published.get('8080:80/tcp')?.source, 'proxy-v2');
});

test('the answer of an engine with a thousand containers, in little pieces, is read', async (t) => {
  const world = await open(t);
  for (let i = 0; i < 1000; i++)
    run(world, `c${i}`, { networks: { bridge: `172.17.${i >> 8}.${i & 255}` } }, false);
  run(world, 'web', { labels: web }, false);
  await world.follow();
  await world.publishes([onWeb]);
});

test('closing while the engine hangs takes no time, and leaves what is published', async (t) => {
  const world = await open(t, quick, 30_000);
  run(world, 'web', { labels: web }, false);
  await world.follow();
  await world.publishes([onWeb]);
  world.engine.faults.set('/containers/json', 'hang');
  die(world, 'other');
  await sleep(50);
  const started = performance.now();
  await world.follower.close();
  assert.ok(performance.now() - started < 5000);
  assert.deepEqual(world.books.texts, [onWeb]);
});
