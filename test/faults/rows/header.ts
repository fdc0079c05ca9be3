/** The PROXY header: slow, cut, doubled, forged and malformed ones, and those that dualport writes itself. */
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { at, type Client } from '../../engine/harness.ts';
import { handmadeTlv, handmadeV2, rawV2, wide } from '../../unit/proxy-protocol/handmade.ts';
import { oracle } from '../../unit/proxy-protocol/oracle.ts';
import type { Row } from '../row.ts';
import type { Scene } from '../scene.ts';
import { allAre, endingWithin, holds, sees, tally } from '../verdict.ts';

/** Who may send headers in these rows: this host. Its other addresses may not. */
const accept = ['127.0.0.0/8', '::1/128'];

const source = { ip: '198.18.77.7', port: 40000 };
const destination = { ip: '198.18.10.1', port: 443 };
const version2 = handmadeV2('tcp', source, destination);
const version1 = Buffer.from('PROXY TCP4 198.18.77.7 198.18.10.1 40000 443\r\n');
const payload = Buffer.from('payload!');

interface Upstream {
  /** How many connections have reached it. */
  reached: number;
}

/** An echo that counts. */
async function echo(scene: Scene): Promise<Upstream> {
  const upstream = { reached: 0 };
  await scene.upstream((socket) => {
    upstream.reached++;
    socket.pipe(socket);
  });
  return upstream;
}

/**
 * Sends all of it and the end behind it: is the payload passed on, or the client turned away?
 *
 * @param exactly what is passed on then; undefined: it is not known where the payload begins
 */
async function verdict(scene: Scene, bytes: Buffer, exactly?: Buffer): Promise<string> {
  const client = await scene.connect(scene.door);
  client.socket.end(bytes);
  const ending = await endingWithin(client, 3000);
  client.socket.destroy();
  const { received } = client;
  if (received.length === 0) return ending === 'nothing' ? 'no end in time' : 'refused';
  return exactly === undefined || received.equals(exactly)
    ? 'accepted'
    : `passed on as ${received.length} bytes`;
}

/** Tries each, and compares with a second opinion that was formed from the specification. */
async function asTheSpecification(scene: Scene, headers: readonly Buffer[]): Promise<string> {
  await scene.relay({ accept });
  await echo(scene);
  const wrong: string[] = [];
  let accepted = 0;
  await scene.crowd(headers.length, async (i) => {
    const header = headers[i] as Buffer;
    const bytes = Buffer.concat([header, payload]);
    const opinion = oracle(bytes, 'tcp');
    const [, length] = /^done (\d+)/.exec(opinion) ?? [];
    const expected = length === undefined ? 'refused' : 'accepted';
    const seen = await verdict(
      scene,
      bytes,
      length === undefined ? undefined : bytes.subarray(Number(length)),
    );
    if (seen === 'accepted') accepted++;
    if (seen !== expected)
      wrong.push(`${seen}: ${header.subarray(12, 20).toString('hex')} (${opinion.split(' v')[0]})`);
  });
  holds(wrong.length === 0, `${wrong.length} of ${headers.length} otherwise, such as ${wrong[0]}`);
  return `${headers.length} headers, ${accepted} accepted`;
}

const slow: readonly Row[] = [
  {
    id: 'B1',
    promise:
      'a header that comes byte by byte is cut off by one timeout for all of it, and no upstream hears of it',
    async play(scene) {
      await scene.relay({ accept, header: 1000 });
      const upstream = await echo(scene);
      const held = await scene.crowd(30, async () => {
        const start = performance.now();
        const client = await scene.connect(scene.door);
        for (const byte of version2) {
          client.socket.write(Buffer.of(byte));
          if ((await endingWithin(client, 100)) !== 'nothing') break;
        }
        holds((await endingWithin(client, 1)) !== 'nothing', 'it waits for each byte anew');
        return performance.now() - start;
      });
      const longest = Math.max(...held);
      holds(longest < 2200, `the longest was held for ${longest.toFixed(0)} ms`);
      holds(upstream.reached === 0, `${upstream.reached} upstream connections`);
    },
  },
  {
    id: 'B2',
    promise: 'a header from somebody who is not trusted is refused, and believed by nobody',
    async play(scene) {
      await scene.relay({
        accept,
        publish: [{ ...scene.tcpRule, allow: [`${source.ip}/32`, '127.0.0.0/8', '::1/128'] }],
      });
      const upstream = await echo(scene);
      const seen = await scene.crowd(20, async () => {
        const client = await scene.connect(at('198.18.0.1', scene.front), at('198.18.0.2', 0));
        client.socket.end(Buffer.concat([version2, payload]));
        const ending = await endingWithin(client, 2000);
        return client.received.length === 0 ? ending : 'served';
      });
      holds(!seen.includes('served') && !seen.includes('nothing'), tally(seen));
      holds(upstream.reached === 0, `${upstream.reached} upstream connections`);
    },
  },
  {
    id: 'B3',
    promise: 'a client without a header where one is required is refused, and no upstream hears of it',
    async play(scene) {
      await scene.relay({ accept });
      const upstream = await echo(scene);
      const seen = await scene.crowd(20, () => verdict(scene, Buffer.from('GET / HTTP/1.0\r\n\r\n')));
      allAre(seen, 'refused');
      holds(upstream.reached === 0, `${upstream.reached} upstream connections`);
    },
  },
  {
    id: 'B4',
    promise: 'a second header is payload, to the byte',
    async play(scene) {
      await scene.relay({ accept });
      await echo(scene);
      for (const [first, second] of [
        [version1, version2],
        [version2, version1],
        [version2, version2],
      ] as const) {
        const both = Buffer.concat([first, second, payload]);
        allAre([await verdict(scene, both, both.subarray(first.length))], 'accepted');
      }
    },
  },
];

interface Vector {
  readonly id: string;
  readonly hex: string;
  readonly len: number;
  readonly expect: string;
}

/** Headers of a stream that are to be accepted, without payload; the long ones cut no other way than the short. */
function corpus(): readonly Buffer[] {
  const file = new URL('../../../../test/fixtures/proxy-protocol.json', import.meta.url);
  const vectors: readonly Vector[] = JSON.parse(readFileSync(file, 'utf8'));
  return vectors
    .filter(({ id, expect }) => /^V[12]/.test(id) && expect.startsWith('OK') && !expect.includes('rest='))
    .map(({ hex }) => Buffer.from(hex, 'hex'))
    .filter(({ length }) => length < 110);
}

const cut: readonly Row[] = [
  {
    id: 'B5',
    promise:
      'a header that is cut anywhere, by an end, a reset or silence, is refused, and no upstream hears of it',
    async play(scene) {
      await scene.relay({ accept, header: 500 });
      const upstream = await echo(scene);
      const beginnings = corpus().flatMap((header) =>
        Array.from({ length: header.length }, (_, length) => header.subarray(0, length)),
      );
      const endBy = {
        end: (client: Client) => client.socket.end(),
        reset: (client: Client) => client.socket.resetAndDestroy(),
        silence: () => {},
      };
      for (const [how, end] of Object.entries(endBy)) {
        const seen = await scene.crowd(
          beginnings.length,
          async (i) => {
            const client = await scene.connect(scene.door);
            client.socket.write(beginnings[i] as Buffer);
            end(client);
            const ending = await endingWithin(client, 3000);
            client.socket.destroy();
            return ending === 'nothing' ? 'no end in time' : 'refused';
          },
          200,
        );
        holds(
          seen.every((word) => word === 'refused'),
          `${how}: ${tally(seen)}`,
        );
      }
      holds(upstream.reached === 0, `${upstream.reached} upstream connections`);
      return `${3 * beginnings.length} cut headers`;
    },
  },
  {
    id: 'B6',
    promise: 'a header in any two pieces, or byte by byte, is as good as a whole one',
    async play(scene) {
      await scene.relay({ accept });
      await echo(scene);
      const seen: string[] = [];
      for (const header of [version1, version2]) {
        const splits = Array.from({ length: header.length - 1 }, (_, i) => [
          header.subarray(0, i + 1),
          header.subarray(i + 1),
        ]);
        splits.push(Array.from(header, (byte) => Buffer.of(byte)));
        seen.push(...(await scene.crowd(splits.length, (i) => inPieces(scene, splits[i] ?? []), 20)));
      }
      allAre(seen, 'accepted');
      return `${seen.length} splits`;
    },
  },
  {
    id: 'B7',
    promise: 'header and payload in one piece: the payload arrives whole and in order',
    async play(scene) {
      await scene.relay({ accept });
      await echo(scene);
      const hash = (data: Buffer) => createHash('sha256').update(data).digest('hex');
      for (const header of [
        version1,
        version2,
        Buffer.from('PROXY UNKNOWN\r\n'),
        rawV2(0x20, 0, Buffer.alloc(0)),
      ]) {
        const long = randomBytes(64 * 1024);
        const client = await scene.connect(scene.door);
        client.socket.end(Buffer.concat([header, long]));
        const ending = await endingWithin(client, 3000);
        holds(
          ending === 'end' && hash(client.received) === hash(long),
          `${client.received.length} of 65536 bytes, ${ending}`,
        );
      }
    },
  },
  {
    id: 'B8',
    promise: 'a line without an end is refused at once and kept nowhere',
    async play(scene) {
      const relay = await scene.relay({ accept, header: 20_000 });
      const upstream = await echo(scene);
      const before = relay.residentBytes();
      const long = Buffer.alloc(1024 * 1024, 'A');
      const seen = await scene.crowd(
        40,
        async () => {
          const client = await scene.connect(scene.door);
          client.socket.write('PROXY TCP4 ');
          for (let i = 0; i < 8 && !client.socket.destroyed; i++) client.socket.write(long);
          return endingWithin(client, 2000);
        },
        20,
      );
      holds(!seen.includes('nothing'), tally(seen));
      const kept = (relay.residentBytes() - before) / 1024 / 1024;
      holds(kept < 40, `${kept.toFixed(0)} MiB more for 40 clients`);
      holds(upstream.reached === 0, `${upstream.reached} upstream connections`);
    },
  },
];

async function inPieces(scene: Scene, pieces: readonly Buffer[]): Promise<string> {
  const client = await scene.connect(scene.door);
  for (const piece of pieces) {
    client.socket.write(piece);
    await sleep(3);
  }
  client.socket.end(payload);
  const ending = await endingWithin(client, 3000);
  client.socket.destroy();
  return client.received.equals(payload)
    ? 'accepted'
    : `refused (${ending === 'end' ? 'clean end' : 'reset'})`;
}

const addressBlock = version2.subarray(16);

/** What the specification leaves to the receiver: it may pass such a connection on with its real addresses. */
const leftOpen = (familyTransport: number) =>
  familyTransport >> 4 === 0 || (familyTransport & 15) === 0 || (familyTransport & 15) === 2;

const malformed: readonly Row[] = [
  {
    id: 'B10',
    promise: 'every version, command, family and transport of version 2 is accepted or refused as specified',
    play: (scene) => {
      const bytes = Array.from({ length: 256 }, (_, value) => value);
      const commands = bytes.map((value) => rawV2(value, 0x11, addressBlock));
      const families = bytes
        .filter((value) => !leftOpen(value))
        .map((value) => rawV2(0x21, value, addressBlock));
      return asTheSpecification(scene, [...commands, ...families]);
    },
  },
  {
    id: 'B11',
    promise:
      'every length of version 2 is accepted or refused as specified, and an absurd one waits for nothing',
    async play(scene) {
      const filled = (length: number) => {
        const rest = length - addressBlock.length;
        if (rest < 0) return rawV2(0x21, 0x11, addressBlock.subarray(0, length));
        const field =
          rest < 3 ? Buffer.alloc(rest) : handmadeTlv({ type: 0xe0, value: Buffer.alloc(rest - 3) });
        return rawV2(0x21, 0x11, Buffer.concat([addressBlock, field]));
      };
      const lengths = [...Array.from({ length: 601 }, (_, length) => length), 2000, 4000];
      const figure = await asTheSpecification(scene, lengths.map(filled));
      if (!scene.subject.name.match(/^(linux|portable)$/)) return figure;
      const client = await scene.connect(scene.door);
      client.socket.write(rawV2(0x21, 0x11, addressBlock, 65_535));
      allAre([await endingWithin(client, 1000)], 'ECONNRESET');
      return figure;
    },
  },
  {
    id: 'B12',
    promise:
      'fields that overrun, are empty, nested, doubled or a thousand are accepted or refused as specified',
    play: (scene) =>
      asTheSpecification(
        scene,
        oddFields().map((fields) => rawV2(0x21, 0x11, Buffer.concat([addressBlock, fields]))),
      ),
  },
  {
    id: 'B13',
    promise: 'a header whose checksum is wrong is refused, whichever bit is flipped',
    play: (scene) => {
      const header = handmadeV2('tcp', source, destination, [], true);
      const flipped = Array.from({ length: header.length * 8 }, (_, bit) => {
        const copy = Buffer.from(header);
        copy.writeUInt8(copy.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
        return copy;
      });
      return asTheSpecification(scene, [header, ...flipped.filter((copy) => !leftOpen(copy.readUInt8(13)))]);
    },
  },
];

function oddFields(): readonly Buffer[] {
  const tlv = (type: number, value: Uint8Array | string) => handmadeTlv({ type, value: Buffer.from(value) });
  const ssl = (...fields: readonly Buffer[]) => tlv(0x20, Buffer.concat([Buffer.alloc(5), ...fields]));
  const overrun = Buffer.from([0xe0, 0, 9, 1]);
  const nested = Array.from({ length: 60 }).reduce<Buffer>((inner) => ssl(inner), Buffer.alloc(0));
  return [
    overrun,
    Buffer.from([0xe0]),
    Buffer.from([0xe0, 0]),
    Buffer.concat([tlv(0xe0, 'x'), overrun]),
    tlv(0xe0, ''),
    Buffer.concat(Array.from({ length: 1000 }, () => tlv(0xe0, ''))),
    Buffer.concat([tlv(0xe0, 'a'), tlv(0xe0, 'a')]),
    tlv(0x02, 'a'.repeat(255)),
    tlv(0x02, 'a'.repeat(256)),
    tlv(0x05, 'a'.repeat(128)),
    tlv(0x05, 'a'.repeat(129)),
    tlv(0x03, Buffer.alloc(3)),
    tlv(0x03, Buffer.alloc(4)),
    ssl(),
    ssl(tlv(0x21, 'TLSv1.3')),
    ssl(overrun),
    tlv(0x20, Buffer.alloc(4)),
    nested,
  ];
}

const written: readonly Row[] = [
  {
    id: 'B19',
    promise: 'the header that is sent says how long it is, names the client, and nothing is lost behind it',
    async play(scene) {
      const to6 = { ...scene.tcpRule, port: scene.front + 1, to: { host: '::1', port: scene.back + 1 } };
      const publish = [scene.tcpRule, to6];
      await scene.relay({ publish, announce: 'proxy-v2', checksum: true, uniqueId: true });
      const got: Buffer[] = [];
      const collect = (socket: import('node:net').Socket) => {
        const chunks: Buffer[] = [];
        socket.on('data', (chunk) => chunks.push(chunk));
        socket.on('end', () => {
          got.push(Buffer.concat(chunks));
          socket.end();
        });
      };
      await scene.upstream(collect);
      await scene.server('::1', collect, scene.back + 1);
      for (const { port } of publish)
        for (const host of ['127.0.0.1', '::1'])
          for (let i = 0; i < 25; i++) await names(scene, host, port, got);
      return `${got.length} headers`;
    },
  },
  {
    id: 'B21',
    promise: 'datagrams with a cut header, or one for streams, are dropped and counted',
    async play(scene) {
      const relay = await scene.relay({ publish: [scene.udpRule], accept, udp: 1000, udpStream: 1000 });
      const upstream = await scene.udpEcho('127.0.0.1', scene.back);
      const client = await scene.udp('127.0.0.1', scene.door);
      const header = handmadeV2('udp', source, destination);
      const bad = Array.from({ length: header.length }, (_, length) => header.subarray(0, length));
      bad.push(version2, Buffer.concat([version2, payload]), Buffer.concat([version1, payload]));
      for (const datagram of bad) client.send(datagram);
      await relay.untilMetric(bad.length, 'dualport_rejected_total', 'proxy_header');
      client.send(Buffer.concat([header, payload]));
      await sees(
        () => client.received.length === 1,
        2000,
        () => 'a good datagram has no answer',
      );
      holds(upstream.received.length === 1, `${upstream.received.length} datagrams got through`);
    },
  },
];

/** What one connection's upstream gets, by the second opinion: a header for this client, and the payload. */
async function names(scene: Scene, host: string, port: number, got: readonly Buffer[]): Promise<void> {
  const before = got.length;
  const client = await scene.connect(at(host, port));
  const from = client.socket.localPort ?? 0;
  client.socket.end(payload);
  await sees(
    () => got.length > before,
    3000,
    () => 'a connection that reaches no upstream',
  );
  const bytes = got[before] as Buffer;
  const opinion = oracle(bytes, 'tcp');
  const length = Number(/^done (\d+)/.exec(opinion)?.[1] ?? 0);
  const ip = host.includes(':') ? `${'0'.repeat(31)}1` : wide(host).toString('hex');
  holds(
    opinion.includes(` PROXY ${ip}:${from}>${ip}:${port} `),
    `a client at ${host}:${from} and ${opinion.slice(0, 120)}`,
  );
  holds(opinion.endsWith('crc') && /\b5=[\da-f]+/.test(opinion), 'no checksum, or no identifier');
  holds(bytes.subarray(length).equals(payload), `${bytes.length - length} bytes behind the header`);
}

export const headerRows: readonly Row[] = [...slow, ...cut, ...malformed, ...written];
