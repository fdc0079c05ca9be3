/** The gate, with relays in front of the real programs that do what a broken subject might. */
import assert from 'node:assert/strict';
import { createSocket, type Socket as Datagrams } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import test, { before, type TestContext } from 'node:test';
import { rotated } from '../../bench/block.ts';
import { gate } from '../../bench/gate.ts';
import { buildLoad, loadProgram } from '../../bench/load/programs.ts';
import { untilListening } from '../../bench/proc.ts';
import { Processes } from '../../bench/processes.ts';
import type { GateRecord } from '../../bench/results.ts';
import type { Publication, Subject } from '../../bench/subjects/subject.ts';
import type { World } from '../../bench/world.ts';
import { freePort } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const skip = skipUnless('linux', 'gcc');
const address = '127.0.0.1';

before(() => {
  if (skip === false) buildLoad();
});

/** The record of a subject whose entrance is `port`, with the program behind on `behind`. */
async function judge(
  processes: Processes,
  protocol: 'tcp' | 'udp',
  port: number,
  behind: number,
): Promise<GateRecord> {
  const endpoint = { address, port: behind };
  const publication: Publication = {
    protocol,
    host: { address, port },
    container: endpoint,
    direct: endpoint,
  };
  const here = { client: {}, host: {}, container: {} };
  return gate(
    {
      processes,
      world: here as World,
      running: { processes: [], entrance: ({ host }) => host },
      ports: { echo: publication, bulk: publication, datagrams: publication },
      subject: { name: 'relay' } as Subject,
    },
    { topology: 'T1', families: '4to4', protocol },
  );
}

function open(context: TestContext): Processes {
  const processes = new Processes();
  context.after(() => processes.close());
  return processes;
}

async function tcpThrough(
  context: TestContext,
  relay: (client: Socket, upstream: Socket) => void,
): Promise<GateRecord> {
  const processes = open(context);
  const behind = await freePort();
  const echo = processes.start({}, [loadProgram('echo-server'), address, `${behind}`, '1']);
  await untilListening([echo], [{ protocol: 'tcp', address, port: behind }]);
  const server = createServer((client) => {
    const upstream = connect(behind, address);
    for (const socket of [client, upstream]) socket.on('error', () => {});
    upstream.pipe(client);
    relay(client, upstream);
  }).listen(0, address);
  await once(server, 'listening');
  context.after(() => server.close());
  return judge(processes, 'tcp', (server.address() as AddressInfo).port, behind);
}

async function udpThrough(
  context: TestContext,
  pass: (datagram: Buffer, nth: number, send: (datagram: Buffer) => void) => void,
): Promise<GateRecord> {
  const behind = await freePort();
  const relay = createSocket('udp4').bind(0, address);
  await once(relay, 'listening');
  const upstreams = new Map<number, Datagrams>();
  let datagrams = 0;
  relay.on('message', (datagram, { port }) => {
    let upstream = upstreams.get(port);
    if (upstream === undefined) {
      upstream = createSocket('udp4').on('message', (answer) => relay.send(answer, port, address));
      upstreams.set(port, upstream);
    }
    const to = upstream;
    pass(datagram, ++datagrams, (bytes) => to.send(bytes, behind, address));
  });
  context.after(() => {
    for (const socket of [relay, ...upstreams.values()]) socket.close();
  });
  return judge(open(context), 'udp', relay.address().port, behind);
}

test('a relay that works passes, TCP and UDP', { skip }, async (context) => {
  const tcp = await tcpThrough(context, (client, upstream) => client.pipe(upstream));
  const udp = await udpThrough(context, (datagram, _, send) => send(datagram));
  assert.deepEqual([tcp.outcome, udp.outcome], ['passed', 'passed'], `${tcp.reason} ${udp.reason}`);
});

test('one changed byte in 16 MiB fails', { skip }, async (context) => {
  let seen = 0;
  const { outcome, reason } = await tcpThrough(context, (client, upstream) => {
    client.on('data', (chunk: Buffer) => {
      seen += chunk.length;
      if (seen > 8 * 2 ** 20 && seen - chunk.length <= 8 * 2 ** 20) chunk[0] = (chunk[0] ?? 0) ^ 1;
      upstream.write(chunk);
    });
  });
  assert.equal(outcome, 'failed');
  assert.match(reason ?? '', /16777216 bytes came back changed/);
});

test('a connection that ends too early fails', { skip }, async (context) => {
  const { outcome, reason } = await tcpThrough(context, (client, upstream) => {
    client.once('data', (chunk: Buffer) => upstream.end(chunk.subarray(0, 32)));
  });
  assert.equal(outcome, 'failed');
  assert.match(reason ?? '', /the connection ended, and 32 of 64 bytes had not come back/);
});

const damage: readonly (readonly [
  what: string,
  pass: (datagram: Buffer, nth: number, send: (datagram: Buffer) => void) => void,
  said: RegExp,
])[] = [
  ['lost', (datagram, nth, send) => nth !== 10 && send(datagram), /^of 20 datagrams 19 arrived/],
  [
    'changed',
    (datagram, nth, send) => {
      if (nth === 10) datagram[datagram.length - 1] = (datagram.at(-1) ?? 0) ^ 1;
      send(datagram);
    },
    /1 changed/,
  ],
  [
    'doubled',
    (datagram, nth, send) => {
      send(datagram);
      if (nth === 10) send(datagram);
    },
    /1 doubled/,
  ],
];
for (const [what, pass, said] of damage) {
  test(`one datagram that is ${what} fails`, { skip }, async (context) => {
    const { outcome, reason } = await udpThrough(context, pass);
    assert.equal(outcome, 'failed');
    assert.match(reason ?? '', said);
  });
}

test('in each round another subject comes first, and nobody is left out', () => {
  const order = [1, 2, 3, 4].map((round) => rotated(['a', 'b', 'c'], round).join(''));
  assert.deepEqual(order, ['bca', 'cab', 'abc', 'bca']);
  assert.deepEqual(rotated([], 1), []);
});
