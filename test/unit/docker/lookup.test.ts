/** Which container has an address, from lists that Docker is asked for: how often, and how old they may be. */
import assert from 'node:assert/strict';
import { after, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { ContainerLookup, type ListedContainer } from '../../../src/docker/lookup.ts';
import { formatAddress, parseAddress } from '../../../src/net/address.ts';

/** Docker's answers, in the test's hand. */
class Docker {
  containers: readonly ListedContainer[] = [];
  asked = 0;
  answerMs = 0;
  trouble: string | undefined;
  readonly list = async (life: AbortSignal): Promise<readonly ListedContainer[]> => {
    this.asked++;
    const { containers, trouble } = this;
    await sleep(this.answerMs, undefined, { signal: life });
    if (trouble !== undefined) throw new Error(trouble);
    return containers;
  };
}

function container(name: string, networks: readonly (readonly string[])[], source?: string): ListedContainer {
  const labels = new Map(source === undefined ? [] : [['io.dualport.source', source]]);
  const attachments = networks.map((texts, i) => ({ name: `net${i}`, addresses: texts.map(parseAddress) }));
  return { name, labels, networks: attachments };
}

let docker: Docker;
let lookup: ContainerLookup;
let transparentNetworks: readonly string[];
let lines: { msg: string; reason?: string }[];

beforeEach(() => {
  docker = new Docker();
  lines = [];
  const log = pino({ base: null }, { write: (line) => void lines.push(JSON.parse(line)) });
  transparentNetworks = [];
  lookup = new ContainerLookup(docker.list, () => ({ transparentNetworks }), log);
});
// A look-up keeps no process from ending; this one has more to do.
const awake = setInterval(() => {}, 1000);
after(() => {
  clearInterval(awake);
  lookup.close();
});

async function find(address: string): Promise<unknown> {
  const found = await lookup.find(parseAddress(address), 80, 'tcp');
  return found && { ...found, otherAddresses: found.otherAddresses.map(formatAddress) };
}

test('a container is found by either of its addresses, with those of the other family', async () => {
  docker.containers = [container('a', [['172.17.0.2', 'fd00::2']]), container('b', [['172.17.0.3']])];
  assert.deepEqual(await find('172.17.0.2'), { name: 'a', otherAddresses: ['fd00::2'], source: undefined });
  assert.deepEqual(await find('fd00::2'), { name: 'a', otherAddresses: ['172.17.0.2'], source: undefined });
  assert.deepEqual(await find('172.17.0.3'), { name: 'b', otherAddresses: [], source: undefined });
  assert.equal(await find('172.17.0.4'), undefined);
});

test('the address on the same network comes first', async () => {
  docker.containers = [container('a', [['10.0.0.2'], ['10.1.0.2', 'fd01::2'], ['10.2.0.2', 'fd02::2']])];
  const found = (await find('10.2.0.2')) as { otherAddresses: readonly string[] };
  assert.deepEqual(found.otherAddresses, ['fd02::2', 'fd01::2']);
});

test('a label says how it wants to learn of its clients; another word is said once and not followed', async () => {
  docker.containers = [
    container('a', [['10.0.0.2']], 'proxy-v2'),
    container('b', [['10.0.0.3']], 'transparent'),
    container('c', [['10.0.0.4']], 'x\u001b[2J'.repeat(1000)),
  ];
  assert.deepEqual(await find('10.0.0.2'), { name: 'a', otherAddresses: [], source: 'proxy-v2' });
  for (let i = 0; i < 3; i++) {
    assert.deepEqual(await find('10.0.0.3'), { name: 'b', otherAddresses: [], source: undefined });
  }
  await find('10.0.0.4');
  assert.equal(lines.length, 2);
  assert.match(
    lines[0]?.reason ?? '',
    /^io\.dualport\.source: found "transparent", and the container is on the network "net0"; allowed there: none, /,
  );
  assert.ok((lines[1]?.reason ?? '').length <= 300);
});

test('source transparent is for networks that the operator has named, as they are named now', async () => {
  docker.containers = [container('a', [['10.0.0.2'], ['10.1.0.2']], 'transparent')];
  const source = async (address: string) => (await lookup.find(parseAddress(address), 80, 'tcp'))?.source;
  transparentNetworks = ['net1'];
  assert.equal(await source('10.0.0.2'), undefined);
  assert.equal(await source('10.1.0.2'), 'transparent');
  transparentNetworks = ['*'];
  assert.equal(await source('10.0.0.2'), 'transparent');
  transparentNetworks = [];
  assert.equal(await source('10.1.0.2'), undefined);
  assert.match(lines[0]?.reason ?? '', /--transparent-networks \(now net1\)$/);
});

test('a port may have a label of its own', async () => {
  const labels = new Map([
    ['io.dualport.source', 'proxy-v1'],
    ['io.dualport.port.web.target', '8443'],
    ['io.dualport.port.web.source', 'proxy-v2'],
    ['io.dualport.port.dns.target', '53'],
    ['io.dualport.port.dns.protocol', 'udp'],
    ['io.dualport.port.dns.source', 'none'],
  ]);
  docker.containers = [
    { name: 'a', labels, networks: [{ name: 'n', addresses: [parseAddress('10.0.0.2')] }] },
  ];
  const sourceOf = async (port: number, protocol: 'tcp' | 'udp') =>
    (await lookup.find(parseAddress('10.0.0.2'), port, protocol))?.source;
  assert.equal(await sourceOf(8443, 'tcp'), 'proxy-v2');
  assert.equal(await sourceOf(8443, 'udp'), 'proxy-v1');
  assert.equal(await sourceOf(53, 'udp'), 'none');
  assert.equal(await sourceOf(80, 'tcp'), 'proxy-v1');
});

test('a thousand who ask at once are answered by one list', async () => {
  docker.containers = [container('a', [['10.0.0.2']])];
  const found = await Promise.all(Array.from({ length: 1000 }, () => find('10.0.0.2')));
  assert.equal(found.filter((one) => one !== undefined).length, 1000);
  assert.equal(docker.asked, 1);
});

test('nobody is answered by a list that is older than the question', async () => {
  docker.answerMs = 50;
  const before = find('10.0.0.2');
  await sleep(10);
  // The list that is under way was begun without it.
  docker.containers = [container('a', [['10.0.0.2']])];
  const since = find('10.0.0.2');
  assert.equal(await before, undefined);
  assert.notEqual(await since, undefined);
  assert.equal(docker.asked, 2);
});

test('an address that another has got meanwhile is that one’s', async () => {
  docker.containers = [container('old', [['10.0.0.2']])];
  assert.equal(((await find('10.0.0.2')) as { name: string }).name, 'old');
  docker.containers = [container('new', [['10.0.0.2']])];
  assert.equal(((await find('10.0.0.2')) as { name: string }).name, 'new');
});

test('Docker is asked four times a second at most', async () => {
  const began = performance.now();
  for (let i = 0; i < 4; i++) await find('10.0.0.2');
  assert.ok(performance.now() - began >= 700, `after ${performance.now() - began} ms`);
  assert.equal(docker.asked, 4);
});

test('a Docker that does not answer knows nobody, is complained of once, and asked again', async () => {
  docker.trouble = 'connect ENOENT';
  assert.equal(await find('10.0.0.2'), undefined);
  assert.equal(await find('10.0.0.2'), undefined);
  assert.deepEqual(
    lines.map(({ reason }) => reason),
    ['connect ENOENT'],
  );
  docker.trouble = undefined;
  docker.containers = [container('a', [['10.0.0.2']])];
  assert.notEqual(await find('10.0.0.2'), undefined);
  docker.trouble = 'connect ENOENT';
  await find('10.0.0.2');
  assert.equal(lines.length, 2, 'it is news again');
});

test('after the end nobody is asked, and nobody waits', async () => {
  docker.answerMs = 60_000;
  const waiting = find('10.0.0.2');
  await sleep(10);
  lookup.close();
  assert.equal(await waiting, undefined);
  assert.equal(await find('10.0.0.2'), undefined);
  assert.deepEqual([docker.asked, lines], [1, []]);
});
