/** PROXY protocol through an engine over TCP: in, out and both. */
import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Endpoint, formatEndpoint, isLoopback } from '../../src/net/address.ts';
import { decode, encode, encodeLocal } from '../../src/proxy-protocol/codec.ts';
import { at, type Harness, type PlanOptions, paths, until } from './harness.ts';
import type { Case } from './suite.ts';

const client = at('198.18.77.7', 40000);
const client6 = at('2001:db8:77::7', 40000);
const dialled = at('198.18.10.1', 443);
const trusting: PlanOptions = { trusts: isLoopback };

function header(source: Endpoint = client, version: 1 | 2 = 2, transport: 'tcp' | 'udp' = 'tcp'): Buffer {
  return encode({ version, transport, source, destination: dialled });
}

/** An upstream that notes each read apart, to see what arrived in one piece. */
async function noting(
  harness: Harness,
  host: string,
): Promise<{ upstream: Endpoint; reads: Buffer[]; sockets: Socket[] }> {
  const reads: Buffer[] = [];
  const sockets: Socket[] = [];
  const upstream = await harness.server(host, (socket) => {
    sockets.push(socket);
    socket.on('data', (chunk) => reads.push(chunk)).on('end', () => socket.end());
  });
  return { upstream, reads, sockets };
}

async function sendInPieces(socket: Socket, pieces: readonly Buffer[]): Promise<void> {
  for (const piece of pieces) {
    socket.write(piece);
    await sleep(2);
  }
}

function whole(read: Buffer | undefined, transport: 'tcp' | 'udp' = 'tcp') {
  const decoded = decode(read ?? Buffer.alloc(0), transport);
  if (decoded.state !== 'done')
    throw new Error(`no header in ${read?.toString('hex')}: ${JSON.stringify(decoded)}`);
  return { ...decoded.header, payload: read?.subarray(decoded.length).toString() };
}

async function refusedAfter(
  harness: Harness,
  bytes: Buffer,
  reason: string,
  options: PlanOptions = trusting,
): Promise<void> {
  const { upstream, sockets } = await noting(harness, '127.0.0.1');
  const { local } = await harness.listen('tcp', '127.0.0.1', [upstream], options);
  const sender = await harness.connect(local);
  sender.socket.write(bytes);
  assert.notEqual(await sender.ending, 'end');
  await until(() => harness.records.at(-1)?.reason === reason, reason);
  assert.equal(sockets.length, 0, 'the upstream was not contacted');
}

const accepting: readonly Case[] = [
  {
    title: 'an accepted header names the client, and payload in the same segment is passed on untouched',
    async run(harness) {
      const { upstream, reads } = await noting(harness, '127.0.0.1');
      const { local } = await harness.listen('tcp', '127.0.0.1', [upstream], trusting);
      for (const version of [1, 2] as const) {
        const sender = await harness.connect(local);
        sender.socket.end(Buffer.concat([header(client, version), Buffer.from('payload')]));
        await until(() => reads.length === version, 'the payload');
        assert.equal(reads.at(-1)?.toString(), 'payload');
        sender.socket.destroy();
      }
      await harness.engine.close();
      assert.deepEqual(
        harness.records.map(({ flow }) => formatEndpoint(flow.client)),
        ['198.18.77.7:40000', '198.18.77.7:40000'],
      );
      assert.equal(formatEndpoint(harness.records[0]?.flow.dialled ?? client), '198.18.10.1:443');
    },
  },
  {
    title: 'a header may come in any two pieces, or byte by byte',
    async run(harness) {
      const { upstream, reads } = await noting(harness, '127.0.0.1');
      const { local } = await harness.listen('tcp', '127.0.0.1', [upstream], trusting);
      for (const version of [1, 2] as const) {
        const bytes = Buffer.concat([header(client6, version), Buffer.from('!')]);
        const splits = Array.from({ length: bytes.length - 1 }, (_, i) => [
          bytes.subarray(0, i + 1),
          bytes.subarray(i + 1),
        ]);
        splits.push(Array.from(bytes, (byte) => Buffer.of(byte)));
        const before = reads.length;
        await Promise.all(
          chunked(splits, 15).map(async (group) => {
            for (const pieces of group) {
              const sender = await harness.connect(local);
              await sendInPieces(sender.socket, pieces);
              sender.socket.end();
              await sender.ending;
            }
          }),
        );
        await until(() => reads.length >= before + splits.length, `every split of version ${version}`);
      }
      assert.ok(reads.every((read) => read.toString() === '!'));
      assert.equal(harness.count('headerErrors'), 0);
    },
  },
  {
    title: 'LOCAL and UNKNOWN headers leave the real addresses in force',
    async run(harness) {
      const upstream = await harness.echo('127.0.0.1');
      const { local } = await harness.listen('tcp', '127.0.0.1', [upstream], trusting);
      for (const version of [1, 2] as const) {
        const sender = await harness.connect(local);
        sender.socket.end(Buffer.concat([encodeLocal(version, 'tcp'), Buffer.from('probe')]));
        assert.equal(await sender.text(5), 'probe');
      }
      await until(() => harness.records.length === 2, 'the records');
      assert.ok(harness.records.every(({ flow }) => flow.client === flow.peer));
    },
  },
  {
    title: 'a second header is payload',
    async run(harness) {
      const { upstream, reads } = await noting(harness, '127.0.0.1');
      const { local } = await harness.listen('tcp', '127.0.0.1', [upstream], trusting);
      (await harness.connect(local)).socket.write(Buffer.concat([header(), header(client6)]));
      await until(() => reads.length === 1, 'the payload');
      assert.deepEqual(reads[0], header(client6));
    },
  },
  {
    title: 'no header, a wrong one and a cut one are refused before any upstream is contacted',
    async run(harness) {
      await refusedAfter(harness, Buffer.from('GET / HTTP/1.1\r\n\r\n'), 'header-missing');
      await refusedAfter(harness, Buffer.from('PROXY TCP4 1.2.3.4 nonsense\r\n'), 'header-invalid');
      const { local } = await harness.listen('tcp', '127.0.0.1', [], trusting);
      (await harness.connect(local)).socket.end(header().subarray(0, 20));
      await until(() => harness.records.length === 3, 'the third record');
      assert.equal(harness.records[2]?.reason, 'header-invalid');
      assert.equal(harness.count('headerErrors'), 3);
    },
  },
  {
    title: 'a peer that is not trusted is refused, header or not',
    async run(harness) {
      const nobody: PlanOptions = { trusts: () => false };
      await refusedAfter(harness, header(), 'header-untrusted', nobody);
      await refusedAfter(harness, Buffer.from('hello'), 'header-untrusted', nobody);
    },
  },
  {
    title: 'the header has a time limit as a whole, not per byte',
    async run(harness) {
      const { upstream, sockets } = await noting(harness, '127.0.0.1');
      const { local } = await harness.listen('tcp', '127.0.0.1', [upstream], {
        ...trusting,
        timeouts: { headerMs: 600 },
      });
      const sender = await harness.connect(local);
      const start = performance.now();
      for (const byte of header(client, 1).subarray(0, 20)) {
        if (sender.socket.destroyed) break;
        sender.socket.write(Buffer.of(byte));
        await sleep(60);
      }
      assert.notEqual(await sender.ending, 'end');
      const ms = performance.now() - start;
      assert.ok(ms > 550 && ms < 1300, `refused after ${ms} ms`);
      assert.equal(harness.records[0]?.reason, 'header-timeout');
      assert.equal(sockets.length, 0);
    },
  },
  {
    title: 'flows are limited by the client a header names, not by the proxy in front',
    async run(harness) {
      const upstream = await harness.server('127.0.0.1', (socket) => socket.write('hi'));
      const { local } = await harness.listen('tcp', '127.0.0.1', [upstream], {
        ...trusting,
        limits: { perSource: 1 },
      });
      for (const source of [client, client6]) {
        const sender = await harness.connect(local);
        sender.socket.write(header(source));
        await sender.text(2);
      }
      const third = await harness.connect(local);
      third.socket.write(header(client));
      assert.notEqual(await third.ending, 'end');
      assert.equal(harness.records[0]?.reason, 'limit-source');
    },
  },
];

const sending: readonly Case[] = [
  ...paths.flatMap((path) =>
    ([1, 2] as const).map(
      (version): Case => ({
        title: `${path.name}: a version ${version} header leaves in one piece with the first payload`,
        async run(harness) {
          const { upstream, reads } = await noting(harness, path.upstream);
          const { local } = await harness.listen('tcp', path.listen, [upstream], { announce: { version } });
          const sender = await harness.connect(local);
          sender.socket.write('payload');
          await until(() => reads.length > 0, 'the first read');
          const got = whole(reads[0]);
          assert.equal(got.payload, 'payload');
          assert.equal(
            got.source && formatEndpoint(got.source),
            formatEndpoint(at(path.listen, sender.socket.localPort ?? 0)),
          );
          assert.equal(got.destination && formatEndpoint(got.destination), formatEndpoint(local));
          assert.equal(got.version, version);
        },
      }),
    ),
  ),
  {
    title: 'the header does not wait for a client that says nothing',
    async run(harness) {
      const { upstream, reads } = await noting(harness, '127.0.0.1');
      const { local } = await harness.listen('tcp', '::1', [upstream], { announce: {} });
      await harness.connect(local);
      await until(() => reads.length === 1, 'the header');
      assert.equal(whole(reads[0]).payload, '');
    },
  },
  {
    title: 'a header that came in goes out with the client it named, in families mixed as IPv6',
    async run(harness) {
      const { upstream, reads } = await noting(harness, '127.0.0.1');
      const { local } = await harness.listen('tcp', '127.0.0.1', [upstream], { ...trusting, announce: {} });
      const sender = await harness.connect(local);
      sender.socket.write(Buffer.concat([header(client6), Buffer.from('x')]));
      await until(() => reads.length === 1, 'the header');
      const got = whole(reads[0]);
      assert.equal(got.source && formatEndpoint(got.source), '[2001:db8:77::7]:40000');
      assert.equal(got.destination && formatEndpoint(got.destination), '198.18.10.1:443');
      assert.equal(reads[0]?.[13], 0x21, 'AF_INET6, STREAM');
    },
  },
  {
    title: 'CRC32C and UNIQUE_ID are sent when asked for, and the identifiers differ',
    async run(harness) {
      const { upstream, reads } = await noting(harness, '127.0.0.1');
      const { local } = await harness.listen('tcp', '127.0.0.1', [upstream], {
        announce: { crc32c: true, uniqueId: true },
      });
      for (let i = 1; i <= 2; i++) {
        await harness.connect(local);
        await until(() => reads.length === i, 'the header');
      }
      const ids = reads.map((read) => {
        const got = whole(read);
        assert.equal(got.crc32c, true);
        return Buffer.from(got.tlvs.find(({ type }) => type === 5)?.value ?? []).toString();
      });
      assert.equal(new Set(ids).size, 2);
      assert.match(ids[0] ?? '', /^[0-9a-f-]{36}$/);
      await harness.engine.close();
      assert.deepEqual(
        new Set(harness.records.map(({ uniqueId }) => uniqueId)),
        new Set(ids),
        'the records have them',
      );
    },
  },
];

export const headerCases: readonly Case[] = [...accepting, ...sending];

function chunked<T>(items: readonly T[], groups: number): readonly (readonly T[])[] {
  return Array.from({ length: groups }, (_, i) => items.filter((_, at) => at % groups === i));
}
