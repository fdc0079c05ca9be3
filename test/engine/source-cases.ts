/**
 * The addresses upstreams are connected from. On loopback every one of 127.0.0.0/8 can be had, and none of
 * 203.0.113.0/24; addresses of other hosts are for the tests in network namespaces.
 */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Approach, ApproachTo, PlainReason, Source } from '../../src/flow/flow.ts';
import { type Endpoint, formatAddress, formatEndpoint, parseAddress } from '../../src/net/address.ts';
import { decode } from '../../src/proxy-protocol/codec.ts';
import { silentServer } from '../support/silent-server.ts';
import { at, type Harness, type UdpPeer, until } from './harness.ts';
import type { Case } from './suite.ts';

const plainly: Approach = { source: undefined, announce: undefined, lease: undefined, plain: undefined };

function sourceOf(host: string, port = 0): Source {
  return { address: parseAddress(host), zone: '', port, transparent: false };
}

/** The same for every upstream. */
function from(host: string, port = 0, change: Partial<Approach> = {}): ApproachTo {
  const source = sourceOf(host, port);
  return () => ({ ...plainly, source, ...change });
}

/** Counts who holds it, and how often it was begun. */
class CountedLease {
  held = 0;
  begun = 0;

  begin(): void {
    this.held++;
    this.begun++;
  }

  end(): void {
    this.held--;
  }
}

const nowhere = '203.0.113.77';

/** A server that says who asks. */
function who(harness: Harness, host = '127.0.0.1'): Promise<Endpoint> {
  return harness.server(host, (socket) => {
    socket.write(`${socket.remoteAddress}:${socket.remotePort}`);
    socket.on('end', () => socket.end()).resume();
  });
}

async function udpWho(harness: Harness, host = '127.0.0.1'): Promise<UdpPeer> {
  const peer = await harness.udp(host);
  peer.socket.on('message', (_, { address, port }) => peer.socket.send(`${address}:${port}`, port, address));
  return peer;
}

/** What a connection is told, once it has ended well. */
async function told(harness: Harness, local: Endpoint): Promise<string> {
  const client = await harness.connect(local);
  await until(() => client.received.length > 0, 'an answer');
  client.socket.end();
  assert.equal(await client.ending, 'end');
  return client.received.toString();
}

function sources(harness: Harness): readonly (string | undefined)[] {
  return harness.records.map(({ source }) => source && formatEndpoint(source));
}

function plains(harness: Harness): readonly (PlainReason | undefined)[] {
  return harness.records.map(({ plain }) => plain);
}

const tcpCases: readonly Case[] = [
  {
    title: 'TCP: the upstream sees the address that was asked for, and the record has it with its port',
    async run(harness) {
      const { local } = await harness.listen('tcp', '::1', [await who(harness)], {
        approach: from('127.0.0.9'),
      });
      const seen = await told(harness, local);
      assert.match(seen, /^127\.0\.0\.9:\d+$/);
      await until(() => harness.records.length === 1, 'a record');
      assert.deepEqual(sources(harness), [seen]);
    },
  },
  {
    title: 'TCP: each candidate has a source of its own, and the record that of the one that won',
    async run(harness) {
      const upstreams = [await harness.closedPort('127.0.0.1'), await who(harness)];
      const approach: ApproachTo = (_, upstream) => ({
        ...plainly,
        source: sourceOf(upstream === upstreams[0] ? '127.0.0.8' : '127.0.0.9'),
      });
      const { local } = await harness.listen('tcp', '127.0.0.1', upstreams, { approach });
      assert.match(await told(harness, local), /^127\.0\.0\.9:/);
      await until(() => harness.records.length === 1, 'a record');
      assert.match(sources(harness)[0] ?? '', /^127\.0\.0\.9:/);
      assert.equal(harness.records[0]?.fallback, true);
    },
  },
  {
    title: 'TCP: a candidate that answers after the next was tried is shown its own source still',
    async run(harness) {
      const slow = await silentServer('127.0.0.1');
      harness.defer(slow.close);
      const other = await silentServer('127.0.0.2');
      harness.defer(other.close);
      const upstreams = [at('127.0.0.1', slow.port), at('127.0.0.2', other.port)];
      const approach: ApproachTo = (_, upstream) => ({
        ...plainly,
        source: sourceOf(upstream === upstreams[0] ? '127.0.0.8' : '127.0.0.9'),
        plain: upstream === upstreams[0] ? 'link-local' : 'same-subnet',
      });
      const { local } = await harness.listen('tcp', '127.0.0.1', upstreams, { approach });
      const client = await harness.connect(local);
      await sleep(400);
      slow.wake();
      client.socket.end();
      await client.ending;
      await until(() => harness.records.length === 1, 'a record');
      assert.equal(harness.records[0]?.upstream?.port, slow.port);
      assert.match(sources(harness)[0] ?? '', /^127\.0\.0\.8:\d+$/);
      assert.deepEqual(plains(harness), ['link-local']);
    },
  },
  {
    title: 'TCP: a kept port is seen, and when it is taken another one',
    async run(harness) {
      const approach = from('127.0.0.9', 33_331);
      const { local } = await harness.listen('tcp', '127.0.0.1', [await who(harness)], { approach });
      const first = await harness.connect(local);
      assert.equal(await first.text(15), '127.0.0.9:33331');
      const second = await harness.connect(local);
      assert.match(await second.text(13), /^127\.0\.0\.9:(?!33331)\d+$/);
    },
  },
  {
    title: 'TCP: an address that cannot be had is the reason, and is no failure of the upstream',
    async run(harness) {
      const upstream = await who(harness);
      const { local } = await harness.listen('tcp', '127.0.0.1', [upstream], { approach: from(nowhere) });
      const client = await harness.connect(local);
      assert.notEqual(await client.ending, 'end');
      await until(() => harness.records.length === 1, 'a record');
      assert.equal(harness.records[0]?.reason, 'source-unavailable');
      assert.deepEqual(sources(harness), [`${nowhere}:0`]);
      assert.deepEqual([harness.count('sourceUnavailable'), harness.count('connectFailed')], [1, 0]);
      // With the upstream tried last for it this would be a fallback.
      const both = [upstream, await harness.echo('127.0.0.2')];
      const plain = await harness.listen('tcp', '127.0.0.1', both);
      assert.match(await told(harness, plain.local), /^127\.0\.0\.1:/);
      assert.equal(harness.count('fallbacks'), 0);
    },
  },
  {
    title: 'TCP: without a source for one candidate the next is tried at once',
    async run(harness) {
      const upstreams = [await who(harness, '127.0.0.2'), await who(harness)];
      const approach: ApproachTo = (_, upstream) => ({
        ...plainly,
        source: sourceOf(upstream === upstreams[0] ? nowhere : '127.0.0.9'),
      });
      const { local } = await harness.listen('tcp', '127.0.0.1', upstreams, { approach });
      const startedMs = performance.now();
      assert.match(await told(harness, local), /^127\.0\.0\.9:/);
      assert.ok(performance.now() - startedMs < 200, 'before the silence of a candidate is over');
    },
  },
  {
    title: 'TCP: a lease is held from the first connect to the end, whatever that is, and once',
    async run(harness) {
      const lease = new CountedLease();
      const closed = await harness.closedPort('127.0.0.1');
      const approach = from('127.0.0.9', 0, { lease });
      const { local } = await harness.listen('tcp', '127.0.0.1', [closed, await who(harness)], { approach });
      const client = await harness.connect(local);
      await client.text(1);
      assert.deepEqual([lease.held, lease.begun], [1, 1]);
      client.socket.end();
      await until(() => lease.held === 0, 'the end');
      const reset = await harness.connect(local);
      await reset.text(1);
      reset.socket.resetAndDestroy();
      await until(() => harness.records.length === 2 && lease.held === 0, 'the reset');
      const nobody = await harness.listen('tcp', '127.0.0.1', [closed], { approach });
      await (await harness.connect(nobody.local)).ending;
      await until(() => harness.records.length === 3 && lease.held === 0, 'the refusal');
      await (await harness.connect(local)).text(1);
      await harness.engine.close();
      assert.deepEqual([lease.held, lease.begun], [0, 4]);
    },
  },
  {
    title: 'TCP: a flow that is refused leases nothing',
    async run(harness) {
      const lease = new CountedLease();
      const decide = () => ({ refuse: 'denied' }) as const;
      const options = { decide, approach: from('127.0.0.9', 0, { lease }) };
      const { local } = await harness.listen('tcp', '127.0.0.1', [], options);
      await (await harness.connect(local)).ending;
      await until(() => harness.records.length === 1, 'a record');
      assert.equal(lease.begun, 0);
    },
  },
  {
    title: 'TCP: why a client goes plain is counted and recorded',
    async run(harness) {
      const approach: ApproachTo = () => ({ ...plainly, plain: 'same-subnet' });
      const { local } = await harness.listen('tcp', '127.0.0.1', [await who(harness)], { approach });
      assert.match(await told(harness, local), /^127\.0\.0\.1:/);
      await until(() => harness.records.length === 1, 'a record');
      assert.deepEqual([plains(harness), sources(harness)], [['same-subnet'], [undefined]]);
      assert.equal(harness.count('plainSameSubnet'), 1);
    },
  },
  {
    title: 'TCP: a header is for the candidate it was meant for, and no other',
    async run(harness) {
      const reads: Buffer[] = [];
      const upstream = await harness.server('127.0.0.1', (socket) => {
        socket.on('data', (chunk) => reads.push(chunk)).on('end', () => socket.end());
      });
      const closed = await harness.closedPort('127.0.0.1');
      const approach: ApproachTo = ({ client, dialled }, { port }) => ({
        ...plainly,
        announce:
          port === upstream.port
            ? {
                version: 2,
                source: client,
                destination: dialled,
                crc32c: false,
                uniqueId: true,
                datagrams: 'every',
              }
            : undefined,
      });
      for (const upstreams of [[closed, upstream], [upstream]]) {
        const { local } = await harness.listen('tcp', '127.0.0.1', upstreams, { approach });
        const client = await harness.connect(local);
        const { localPort } = client.socket;
        client.socket.end('hello');
        await client.ending;
        const all = Buffer.concat(reads.splice(0));
        const decoded = decode(all, 'tcp');
        assert.ok(decoded.state === 'done');
        assert.equal(decoded.header.source?.port, localPort);
        assert.equal(all.subarray(decoded.length).toString(), 'hello');
      }
      await until(() => harness.records.length === 2, 'both records');
      for (const { uniqueId } of harness.records) assert.match(uniqueId ?? '', /^[\da-f-]{36}$/);
    },
  },
];

async function asked(harness: Harness, local: Endpoint, client?: UdpPeer): Promise<string> {
  const peer = client ?? (await harness.udp('127.0.0.1', local));
  const before = peer.received.length;
  peer.send('who?');
  await peer.datagrams(before + 1);
  return peer.texts.at(-1) ?? '';
}

const udpCases: readonly Case[] = [
  {
    title: 'UDP: the upstream sees the address that was asked for, and the record has it with its port',
    async run(harness) {
      const approach = from('127.0.0.9');
      const { local } = await harness.listen('udp', '127.0.0.1', [(await udpWho(harness)).local], {
        approach,
      });
      const client = await harness.udp('127.0.0.1', local);
      const seen = await asked(harness, local, client);
      assert.match(seen, /^127\.0\.0\.9:\d+$/);
      assert.equal(await asked(harness, local, client), seen);
      await harness.engine.close();
      assert.deepEqual(sources(harness), [seen]);
    },
  },
  {
    title: 'UDP: a kept port is seen, and when it is taken another one',
    async run(harness) {
      const approach = from('127.0.0.9', 33_332);
      const { local } = await harness.listen('udp', '127.0.0.1', [(await udpWho(harness)).local], {
        approach,
      });
      assert.equal(await asked(harness, local), '127.0.0.9:33332');
      assert.match(await asked(harness, local), /^127\.0\.0\.9:(?!33332)\d+$/);
    },
  },
  {
    title: 'UDP: each candidate has a source and a header of its own',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const upstreams = [await harness.closedUdpPort('127.0.0.1'), upstream.local];
      const approach: ApproachTo = ({ client, dialled }, to) => ({
        ...plainly,
        source: sourceOf(to === upstreams[0] ? '127.0.0.8' : '127.0.0.9'),
        announce:
          to === upstreams[0]
            ? undefined
            : {
                version: 2,
                source: client,
                destination: dialled,
                crc32c: false,
                uniqueId: false,
                datagrams: 'every',
              },
      });
      const { local } = await harness.listen('udp', '127.0.0.1', upstreams, { approach });
      const client = await harness.udp('127.0.0.1', local);
      for (let i = 1; i <= 3; i++) {
        client.send(`datagram ${i}`);
        const datagram = (await upstream.datagrams(i))[i - 1] ?? Buffer.alloc(0);
        const decoded = decode(datagram, 'udp');
        assert.ok(decoded.state === 'done', datagram.toString('hex'));
        assert.equal(datagram.subarray(decoded.length).toString(), `datagram ${i}`);
        assert.equal(decoded.header.source?.port, client.local.port);
        upstream.answer('seen');
        await client.datagrams(i);
      }
      assert.deepEqual(new Set(upstream.from.map(({ address }) => address)), new Set(['127.0.0.9']));
    },
  },
  {
    title: 'UDP: a candidate that gets no header after one that got it is sent none',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const upstreams = [await harness.closedUdpPort('127.0.0.1'), upstream.local];
      const approach: ApproachTo = ({ client, dialled }, to) => ({
        ...plainly,
        announce:
          to === upstreams[0]
            ? {
                version: 2,
                source: client,
                destination: dialled,
                crc32c: false,
                uniqueId: false,
                datagrams: 'every',
              }
            : undefined,
      });
      const { local } = await harness.listen('udp', '127.0.0.1', upstreams, { approach });
      const client = await harness.udp('127.0.0.1', local);
      for (let i = 1; i <= 3; i++) {
        client.send(`datagram ${i}`);
        await upstream.datagrams(i);
        upstream.answer('seen');
        await client.datagrams(i);
      }
      assert.deepEqual(upstream.texts, ['datagram 1', 'datagram 2', 'datagram 3']);
    },
  },
  {
    title: 'UDP: an address that cannot be had drops the datagram, is counted, and may be had later',
    async run(harness) {
      let host = nowhere;
      const approach: ApproachTo = () => ({ ...plainly, source: sourceOf(host) });
      const { local } = await harness.listen('udp', '127.0.0.1', [(await udpWho(harness)).local], {
        approach,
      });
      const client = await harness.udp('127.0.0.1', local);
      client.send('who?');
      await until(() => harness.count('sourceUnavailable') === 1, 'the failure');
      host = '127.0.0.9';
      assert.match(await asked(harness, local, client), /^127\.0\.0\.9:/);
      assert.equal(harness.count('connectFailed'), 0);
    },
  },
  {
    title: 'UDP: without a source for one candidate the datagram goes to the next',
    async run(harness) {
      const [first, second] = [await udpWho(harness, '127.0.0.2'), await udpWho(harness)];
      const approach: ApproachTo = (_, upstream) => ({
        ...plainly,
        source: sourceOf(formatAddress(upstream.address) === '127.0.0.2' ? nowhere : '127.0.0.9'),
      });
      const { local } = await harness.listen('udp', '127.0.0.1', [first.local, second.local], { approach });
      assert.match(await asked(harness, local), /^127\.0\.0\.9:/);
    },
  },
  {
    title: 'UDP: a lease is held from the first datagram to the end of the flow, and once',
    async run(harness) {
      const lease = new CountedLease();
      const upstreams = [await harness.closedUdpPort('127.0.0.1'), (await udpWho(harness)).local];
      const options = { approach: from('127.0.0.9', 0, { lease }), timeouts: { udpStreamMs: 300 } };
      const { local } = await harness.listen('udp', '127.0.0.1', upstreams, options);
      await asked(harness, local);
      assert.deepEqual([lease.held, lease.begun], [1, 1]);
      await until(() => harness.records.length === 1, 'the end of the flow');
      assert.deepEqual([lease.held, lease.begun], [0, 1]);
    },
  },
  {
    title: 'UDP: why a client goes plain is counted once a flow, and recorded',
    async run(harness) {
      const approach: ApproachTo = () => ({ ...plainly, plain: 'link-local' });
      const upstreams = [await harness.closedUdpPort('127.0.0.1'), (await udpWho(harness)).local];
      const { local } = await harness.listen('udp', '127.0.0.1', upstreams, { approach });
      await asked(harness, local);
      await sleep(20);
      assert.equal(harness.count('plainLinkLocal'), 1);
      await harness.engine.close();
      assert.deepEqual([plains(harness), sources(harness)], [['link-local'], [undefined]]);
    },
  },
];

export const sourceCases: readonly Case[] = [...tcpCases, ...udpCases];
