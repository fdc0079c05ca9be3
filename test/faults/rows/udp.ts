/** UDP: forged sources, floods, silence, sizes, strangers, and whom the answers go to. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Endpoint } from '../../../src/net/address.ts';
import { at, type UdpPeer } from '../../engine/harness.ts';
import { sendRawDatagrams } from '../../support/raw-datagram.ts';
import { addresses } from '../network.ts';
import type { Relay } from '../relay.ts';
import type { Row } from '../row.ts';
import type { Scene } from '../scene.ts';
import type { Wanted } from '../subject.ts';
import { holds, sees } from '../verdict.ts';

const KiB = 1024;
const times = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));

/** A relay of datagrams; its flows end soon, so that what they held can be seen to be given back. */
function relayUdp(scene: Scene, wanted: Partial<Wanted> = {}): Promise<Relay> {
  return scene.relay({ publish: [scene.udpRule], udp: 1000, udpStream: 1000, ...wanted });
}

const echo = (scene: Scene) => scene.udpEcho('127.0.0.1', scene.back);

/** An upstream that answers nothing by itself. */
const silent = (scene: Scene) => scene.udp('127.0.0.1', undefined, scene.back);

async function answered(client: UdpPeer, count: number, ms = 3000): Promise<void> {
  await sees(
    () => client.received.length >= count,
    ms,
    () => `${client.received.length} of ${count} answers`,
  );
}

/** Each says a word and hears it back; said again after a while, because the flood fills this process's buffers, too. */
async function allAnswered(clients: readonly UdpPeer[]): Promise<void> {
  const had = clients.map(({ received }) => received.length);
  const waiting = () => clients.filter(({ received }, i) => received.length === had[i]);
  for (let again = 0; again < 30 && waiting().length > 0; again++) {
    for (const client of waiting()) client.send('good');
    await sees(
      () => waiting().length === 0,
      200,
      () => '',
    ).catch(() => {});
  }
  holds(
    waiting().length === 0,
    `${clients.length - waiting().length} of ${clients.length} who were served still are`,
  );
}

/** Some address that nobody has, of those this host answers for. */
function forged(i: number): Endpoint {
  return at(`198.19.${(i >> 8) & 255}.${i & 255}`, 1024 + (i >> 16) + (i % 60_000));
}

const sources: readonly Row[] = [
  {
    id: 'C1',
    promise: 'datagrams from source port 0 are dropped before anything else, and counted',
    async play(scene) {
      const relay = await relayUdp(scene);
      const upstream = await echo(scene);
      const door = at(addresses.v4, scene.front);
      await sendRawDatagrams(
        times(50, () => ({ from: at(addresses.moreV4[0], 0), to: door, payload: 'answer me' })),
      );
      await sleep(200);
      holds(upstream.received.length === 0, `${upstream.received.length} of 50 reached the upstream`);
      if (relay.isDualport) await relay.untilMetric(50, 'dualport_udp_dropped_total', 'source');
    },
  },
  {
    id: 'C3',
    promise:
      'a flood from 20,000 forged sources stays within the limits, and nobody who is served loses his flow',
    async play(scene) {
      const flows = 1000;
      const relay = await relayUdp(scene, { flows, udp: 4000, udpStream: 4000 });
      const upstream = await silent(scene);
      const ports = new Set<number>();
      upstream.socket.on('message', (data, from) => {
        if (String(data) !== 'good') return;
        ports.add(from.port);
        upstream.socket.send(data, from.port, from.address);
      });
      const before = relay.descriptors();
      const good = await Promise.all(times(100, () => scene.udp('127.0.0.1', scene.door)));
      for (let round = 0; round < 3; round++) await allAnswered(good);
      const door = at(addresses.v4, scene.front);
      // A few at a time: whoever is served has to say something before his flow has ended by itself.
      for (let sent = 0; sent < 20_000; sent += 1000) {
        await sendRawDatagrams(times(1000, (i) => ({ from: forged(sent + i), to: door, payload: 'forged' })));
        await allAnswered(good);
      }
      const held = relay.descriptors().sockets - before.sockets;
      holds(held <= flows, `${held} flows with a limit of ${flows}`);
      holds(ports.size === good.length, `${ports.size} flows for ${good.length} who were served all along`);
      return `${held} flows held, limit ${flows}`;
    },
  },
  {
    id: 'C4',
    promise: 'flows end in time: soon without an answer, later with one',
    silent: { 'docker-proxy': 'its 90 s cannot be set' },
    async play(scene) {
      const relay = await relayUdp(scene, { udp: 1000, udpStream: 3000 });
      const upstream = await silent(scene);
      const before = relay.descriptors().sockets;
      const held = () => relay.descriptors().sockets - before;
      const clients = await Promise.all(times(20, () => scene.udp('127.0.0.1', scene.door)));
      for (const client of clients) client.send('?');
      await upstream.datagrams(20);
      for (let i = 0; i < 10; i++) upstream.answer('!', i);
      await sees(
        () => held() === 20,
        500,
        () => `${held()} flows of 20 clients`,
      );
      await sees(
        () => held() === 10,
        2700,
        () => `${held()} flows 2.7 s later, 10 were answered`,
      );
      await sleep(200);
      holds(held() === 10, `${held()} of 10 answered flows are left too soon`);
    },
  },
  {
    id: 'C15',
    promise:
      'what claims to come from a listener of ours, or from a service that answers anything, makes no loop',
    async play(scene) {
      const other = { ...scene.udpRule, port: scene.front + 1 };
      await relayUdp(scene, { publish: [scene.udpRule, other] });
      const upstream = await echo(scene);
      const reflectors = [7, 13, 17, 19, 37];
      await sendRawDatagrams(
        reflectors.map((port) => ({ from: at(addresses.v4, port), to: scene.door, payload: 'hi' })),
      );
      await sendRawDatagrams([{ from: at('127.0.0.1', other.port), to: scene.door, payload: 'ping-pong' }]);
      await sleep(1000);
      const count = upstream.received.length;
      holds(count <= 2, `${count} datagrams a second later`);
    },
  },
];

const failing: readonly Row[] = [
  {
    id: 'C5',
    promise:
      'an upstream that is not there: datagrams are dropped, the log stays short, and it may come later',
    async play(scene) {
      const relay = await relayUdp(scene);
      const clients = await Promise.all(times(20, () => scene.udp('127.0.0.1', scene.door)));
      const cpu = relay.cpuMs();
      for (let i = 0; i < 500; i++) {
        for (const client of clients) client.send(`datagram ${i}`);
        if (i % 10 === 0) await sleep(5);
      }
      await sleep(300);
      const lines = relay.said.split('\n').length;
      holds(lines < 60, `${lines} log lines for 10,000 datagrams`);
      await echo(scene);
      const [client] = clients;
      await sees(
        async () => {
          client?.send('anybody?');
          await sleep(100);
          return (client?.received.length ?? 0) > 0;
        },
        3000,
        () => 'the upstream is there, and its client has no answer',
      );
      return `${((relay.cpuMs() - cpu) / 10).toFixed(0)} µs each`;
    },
  },
  {
    id: 'C10',
    promise: 'a full send queue: datagrams are dropped and counted, nothing piles up, and the next ones pass',
    async play(scene) {
      const relay = await relayUdp(scene, { udp: 3000, udpStream: 3000 });
      await echo(scene);
      const client = await scene.udp('127.0.0.1', scene.door);
      client.send('first');
      await answered(client, 1);
      const before = relay.residentBytes();
      const injection = await relay.inject('sendto,sendmsg,sendmmsg', 'error=ENOBUFS');
      const large = randomBytes(1400);
      for (let i = 0; i < 2000; i++) {
        client.send(large);
        if (i % 20 === 0) await sleep(2);
      }
      await sleep(200);
      await injection.end();
      const more = (relay.residentBytes() - before) / KiB / KiB;
      holds(injection.failed() > 0, 'no send has failed');
      holds(more < 24, `${more.toFixed(0)} MiB more`);
      client.send('last');
      await sees(
        () => client.texts.includes('last'),
        3000,
        () => 'the next datagrams do not pass',
      );
      if (relay.isDualport) await relay.untilMetric(1, 'dualport_udp_dropped_total', 'queue');
    },
  },
];

const whole: readonly Row[] = [
  {
    id: 'C7',
    promise: 'empty datagrams pass both ways',
    async play(scene) {
      await relayUdp(scene);
      const upstream = await echo(scene);
      const client = await scene.udp('127.0.0.1', scene.door);
      for (let i = 0; i < 10; i++) client.send('');
      await sees(
        () => upstream.received.length === 10,
        2000,
        () => `${upstream.received.length} of 10 reach the upstream`,
      );
      await answered(client, 10);
    },
  },
  {
    id: 'C8',
    promise: 'datagrams of every size come whole, one by one, and answers too',
    async play(scene) {
      await relayUdp(scene);
      const upstream = await echo(scene);
      const client = await scene.udp('127.0.0.1', scene.door);
      const sizes = [1, 2, 511, 512, 1280, 1472, 1473, 4096, 8972, 16_384, 32_768, 65_000, 65_506, 65_507];
      const datagrams = sizes.map((size) => randomBytes(size));
      for (const [i, datagram] of datagrams.entries()) {
        client.send(datagram);
        await answered(client, i + 1);
      }
      for (const [i, size] of sizes.entries()) {
        const [there, back] = [upstream.received[i] ?? part, client.received[i] ?? part];
        holds(datagrams[i]?.equals(there) === true, `of ${size} bytes ${there.length} arrive`);
        holds(datagrams[i]?.equals(back) === true, `of an answer of ${size} bytes ${back.length} arrive`);
      }
    },
  },
  {
    id: 'C11',
    promise: 'an answer leaves from the address the client dialled',
    async play(scene) {
      const dialled = ['127.0.0.1', '::1', ...addresses.moreV4, ...addresses.moreV6];
      // node:dgram cannot choose: there each address is published by itself, as docs/engines.md says.
      const hosts = scene.subject.name === 'portable' ? { hosts: dialled } : {};
      await relayUdp(scene, { publish: [{ ...scene.udpRule, ...hosts }] });
      await echo(scene);
      const wrong: string[] = [];
      for (const host of dialled) {
        const client = await scene.udp(host.includes(':') ? '::1' : '127.0.0.1');
        client.send('where from?', at(host, scene.front));
        await sees(
          () => client.from.length > 0,
          1000,
          () => `no answer from ${host}`,
        );
        if (client.from[0]?.address !== host) wrong.push(`${host} answers from ${client.from[0]?.address}`);
      }
      holds(wrong.length === 0, `${wrong.length} of ${dialled.length}, such as ${wrong[0]}`);
    },
  },
  {
    id: 'C12',
    promise: 'an answer from anybody else than the upstream is not passed on',
    async play(scene) {
      await relayUdp(scene);
      const upstream = await silent(scene);
      const client = await scene.udp('127.0.0.1', scene.door);
      client.send('question');
      await upstream.datagrams(1);
      const facing = at('127.0.0.1', upstream.from[0]?.port ?? 0);
      const strangers = [await scene.udp('127.0.0.1'), await scene.udp('127.0.0.2', undefined, scene.back)];
      for (const stranger of strangers) stranger.send('believe me', facing);
      await sleep(200);
      upstream.answer('the answer');
      await answered(client, 1);
      await sleep(100);
      holds(client.texts.join() === 'the answer', `the client got ${client.texts}`);
    },
  },
];

/** What an answer is made of here: more than a client that has proved nothing gets for one datagram. */
const parts = 100;
const part = Buffer.alloc(500);

const amplification: Row = {
  id: 'C14',
  promise:
    'a client that has not shown that it hears gets 64 KiB or 64 datagrams for each of its own at most; then all',
  async play(scene) {
    const relay = await relayUdp(scene, { udp: 3000, udpStream: 3000 });
    const upstream = await silent(scene);
    upstream.socket.on('message', (data, from) => {
      const small = String(data) !== 'all of it';
      if (small && data.length < 40) upstream.socket.send('small', from.port, from.address);
      else for (let i = 0; i < parts; i++) upstream.socket.send(part, from.port, from.address);
    });
    const victim = await scene.udp('127.0.0.1', scene.door);
    victim.send(Buffer.alloc(40));
    await sleep(500);
    const bytes = victim.received.reduce((sum, { length }) => sum + length, 0);
    const figure = `${bytes} bytes for 40`;
    holds(bytes > 0, 'no answer at all');
    holds(victim.received.length <= 64 && bytes <= 64 * KiB, figure);
    if (relay.isDualport) await relay.untilMetric(parts - 64, 'dualport_udp_dropped_total', 'budget');
    const client = await scene.udp('127.0.0.1', scene.door);
    for (let i = 1; i <= 3; i++) {
      client.send('hello');
      await answered(client, i);
    }
    client.send('all of it');
    await answered(client, 3 + parts);
    return figure;
  },
};

export const udpRows: readonly Row[] = [...sources, ...failing, ...whole, amplification];
