/** PROXY protocol version 2 in datagrams: out to an upstream, in from a proxy in front. */
import assert from 'node:assert/strict';
import { type Endpoint, formatEndpoint, isLoopback } from '../../src/net/address.ts';
import { decode, encode, encodeLocal } from '../../src/proxy-protocol/codec.ts';
import { at, type Harness, type PlanOptions, paths, type UdpPeer, until } from './harness.ts';
import type { Case } from './suite.ts';

const named = at('198.18.77.7', 40000);
const named6 = at('2001:db8:77::7', 40000);
const dialled = at('198.18.10.1', 443);
const trusting: PlanOptions = { trusts: isLoopback };

function announced(source: Endpoint, payload: string, destination = dialled): Buffer {
  const header = encode({ version: 2, transport: 'udp', source, destination });
  return Buffer.concat([header, Buffer.from(payload)]);
}

/** `client > dialled: payload` for a datagram with a header, and the payload alone for one without. */
function spoken(datagram: Buffer): string {
  const decoded = decode(datagram, 'udp');
  if (decoded.state !== 'done') return brief(datagram);
  const { source, destination } = decoded.header;
  const payload = brief(datagram.subarray(decoded.length));
  return source && destination
    ? `${formatEndpoint(source)} > ${formatEndpoint(destination)}: ${payload}`
    : `LOCAL: ${payload}`;
}

function brief(payload: Buffer): string {
  return payload.length > 100 ? `${payload.length} bytes` : payload.toString();
}

const heard = (peer: UdpPeer): readonly string[] => peer.received.map(spoken);

/** A client, and an upstream that answers when it is told to. */
async function announcing(
  harness: Harness,
  announce: NonNullable<PlanOptions['announce']>,
  upstreams?: readonly Endpoint[],
): Promise<{ client: UdpPeer; upstream: UdpPeer; says: string }> {
  const upstream = await harness.udp('127.0.0.1');
  const { local } = await harness.listen('udp', '127.0.0.1', [...(upstreams ?? []), upstream.local], {
    announce,
  });
  const client = await harness.udp('127.0.0.1', local);
  return { client, upstream, says: `${formatEndpoint(client.local)} > ${formatEndpoint(local)}: ` };
}

const sending: readonly Case[] = [
  ...paths.map(
    (path): Case => ({
      title: `${path.name}: a header names the client in front of every datagram, and answers have none`,
      async run(harness) {
        const upstream = await harness.udp(path.upstream);
        const listener = await harness.listen('udp', path.listen, [upstream.local], { announce: {} });
        const client = await harness.udp(path.listen, listener.local);
        const says = `${formatEndpoint(client.local)} > ${formatEndpoint(listener.local)}: `;
        for (const [i, text] of ['one', '', 'three'].entries()) {
          client.send(text);
          await upstream.datagrams(i + 1);
          upstream.answer(`answer ${i}`);
          await client.datagrams(i + 1);
        }
        assert.deepEqual(heard(upstream), [`${says}one`, says, `${says}three`]);
        assert.deepEqual(client.texts, ['answer 0', 'answer 1', 'answer 2']);
        await listener.close();
        assert.deepEqual(harness.records[0]?.bytes, [8, 24], 'headers are not counted');
        assert.equal(harness.count('bytesFromClient'), 8);
      },
    }),
  ),
  {
    title: 'with `first` only the first datagram has a header',
    async run(harness) {
      const { client, upstream, says } = await announcing(harness, { datagrams: 'first' });
      for (const [i, text] of ['one', 'two', 'three'].entries()) {
        client.send(text);
        await upstream.datagrams(i + 1);
        upstream.answer('yes');
        await client.datagrams(i + 1);
      }
      assert.deepEqual(heard(upstream), [`${says}one`, 'two', 'three']);
    },
  },
  {
    title: 'with `first` the header is repeated for the upstream that a refusal leads to',
    async run(harness) {
      const refusing = await harness.closedUdpPort('::1');
      const { client, upstream, says } = await announcing(harness, { datagrams: 'first' }, [refusing]);
      client.send('one');
      await upstream.datagrams(1);
      client.send('two');
      await upstream.datagrams(2);
      assert.deepEqual(heard(upstream), [`${says}one`, 'two']);
    },
  },
  {
    title: 'with `first` an upstream that refused and comes up later gets the header',
    async run(harness) {
      const { client, upstream, says } = await announcing(harness, { datagrams: 'first' });
      upstream.close();
      client.send('in vain');
      await until(() => harness.count('icmpRefusals') === 1, 'the refusal');
      const later = await harness.udp('127.0.0.1', undefined, upstream.local.port);
      client.send('one');
      await later.datagrams(1);
      client.send('two');
      await later.datagrams(2);
      assert.deepEqual(heard(later), [`${says}one`, 'two']);
    },
  },
  {
    title: 'with `first` a datagram that was too big does not use up the header',
    async run(harness) {
      const { client, upstream, says } = await announcing(harness, { datagrams: 'first' });
      client.send(Buffer.alloc(65_507));
      await until(() => harness.count('droppedOversize') === 1, 'the count');
      client.send('one');
      await upstream.datagrams(1);
      client.send(Buffer.alloc(65_507));
      await upstream.datagrams(2);
      assert.deepEqual(heard(upstream), [`${says}one`, '65507 bytes']);
    },
  },
  {
    title: 'what is too big with its header is counted as droppedOversize, and the flow lives on',
    async run(harness) {
      const { client, upstream, says } = await announcing(harness, {});
      const fits = 65_507 - announced(client.local, '').length;
      client.send(Buffer.alloc(fits + 1));
      await until(() => harness.count('droppedOversize') === 1, 'the count');
      client.send(Buffer.alloc(fits));
      await upstream.datagrams(1);
      assert.deepEqual(heard(upstream), [`${says}${fits} bytes`]);
      assert.deepEqual([harness.count('udpFlows'), harness.count('droppedOversize')], [1, 1]);
    },
  },
  {
    title: 'every datagram of a flow carries the same UNIQUE_ID, and a checksum that is right',
    async run(harness) {
      const { client, upstream } = await announcing(harness, { crc32c: true, uniqueId: true });
      for (let i = 1; i <= 2; i++) {
        client.send('hello');
        await upstream.datagrams(i);
      }
      const ids = upstream.received.map((datagram) => {
        const decoded = decode(datagram, 'udp');
        assert.ok(decoded.state === 'done' && decoded.header.crc32c);
        return Buffer.from(decoded.header.tlvs.find(({ type }) => type === 5)?.value ?? []).toString();
      });
      assert.match(ids[0] ?? '', /^[0-9a-f-]{36}$/);
      assert.equal(ids[0], ids[1]);
    },
  },
];

/** A proxy in front of a listener that trusts it, and an upstream that answers when it is told to. */
async function fronted(
  harness: Harness,
  options: PlanOptions = {},
): Promise<{ proxy: UdpPeer; upstream: UdpPeer; local: Endpoint }> {
  const upstream = await harness.udp('127.0.0.1');
  const { local } = await harness.listen('udp', '127.0.0.1', [upstream.local], { ...trusting, ...options });
  return { proxy: await harness.udp('127.0.0.1', local), upstream, local };
}

const accepting: readonly Case[] = [
  {
    title: 'a header per datagram names the client, and two clients behind one port are two flows',
    async run(harness) {
      const { proxy, upstream, local } = await fronted(harness);
      for (const [i, client] of [named, named6, named, named6].entries()) {
        proxy.send(announced(client, `${i}`));
        await upstream.datagrams(i + 1);
      }
      assert.deepEqual(upstream.texts, ['0', '1', '2', '3']);
      const [a, b, c, d] = upstream.from.map(({ port }) => port);
      assert.deepEqual([a === c, b === d, a === b], [true, true, false]);
      upstream.answer('for the second', 1);
      upstream.answer('for the first', 0);
      await proxy.datagrams(2);
      assert.deepEqual(
        proxy.texts,
        ['for the second', 'for the first'],
        'answers go to the proxy as they are',
      );
      await harness.engine.close();
      assert.deepEqual(
        harness.records.map(({ flow }) =>
          [flow.peer, flow.local, flow.client, flow.dialled].map(formatEndpoint).join(' '),
        ),
        [named, named6].map((client) => [proxy.local, local, client, dialled].map(formatEndpoint).join(' ')),
      );
    },
  },
  {
    title: 'one client of two dialled addresses has two flows',
    async run(harness) {
      const { proxy, upstream } = await fronted(harness);
      for (const [i, port] of [443, 444].entries()) {
        proxy.send(announced(named, 'hello', at('198.18.10.1', port)));
        await upstream.datagrams(i + 1);
      }
      assert.notEqual(upstream.from[0]?.port, upstream.from[1]?.port);
      assert.equal(harness.count('udpFlows'), 2);
    },
  },
  {
    title: 'a LOCAL header is taken off and leaves the real addresses in force',
    async run(harness) {
      const { proxy, upstream } = await fronted(harness);
      const local = encodeLocal(2, 'udp');
      proxy.send(Buffer.concat([local, Buffer.from('probe')]));
      proxy.send(local);
      await upstream.datagrams(2);
      assert.deepEqual(upstream.texts, ['probe', '']);
      await harness.engine.close();
      assert.equal(harness.records.length, 1);
      assert.equal(harness.records[0]?.flow.client, harness.records[0]?.flow.peer);
    },
  },
  {
    title: 'datagrams without a whole header are dropped and counted, and the flow they came in lives on',
    async run(harness) {
      const { proxy, upstream } = await fronted(harness);
      const good = announced(named, 'good');
      proxy.send(good);
      await upstream.datagrams(1);
      const bad = [
        Buffer.from('no header'),
        Buffer.alloc(0),
        Buffer.from('PROXY TCP4 198.18.77.7 198.18.10.1 40000 443\r\nv1'),
        encode({ version: 2, transport: 'tcp', source: named, destination: dialled }),
        ...[1, 12, 15, 16, 27].map((length) => good.subarray(0, length)),
      ];
      for (const [i, datagram] of bad.entries()) {
        proxy.send(datagram);
        await until(
          () => harness.count('headerErrors') === i + 1,
          `the count of ${datagram.toString('latin1')}`,
        );
      }
      proxy.send(good);
      await upstream.datagrams(2);
      assert.deepEqual(upstream.texts, ['good', 'good']);
      assert.deepEqual([harness.count('udpFlows'), harness.count('datagramsFromClient')], [1, 2]);
    },
  },
  {
    title:
      'a header from a peer that is not trusted is dropped and counted, also after one from a trusted peer',
    async run(harness) {
      const trusts: PlanOptions['trusts'] = (peer) => peer[15] === 1;
      const { proxy, upstream, local } = await fronted(harness, { trusts });
      const stranger = await harness.udp('127.0.0.2', local);
      for (let i = 1; i <= 3; i++) {
        proxy.send(announced(named, `${i}`));
        await upstream.datagrams(i);
        stranger.send(announced(named, 'believe me'));
        await until(() => harness.count('headerErrors') === i, 'the count');
      }
      assert.deepEqual(upstream.texts, ['1', '2', '3']);
      assert.equal(harness.count('udpFlows'), 1);
    },
  },
  {
    title: 'a replaced plan may stop trusting a peer, or begin to',
    async run(harness) {
      const upstream = await harness.udp('127.0.0.1');
      const listener = await harness.listen('udp', '127.0.0.1', [upstream.local], { trusts: () => false });
      const proxy = await harness.udp('127.0.0.1', listener.local);
      for (const [i, trusted] of [false, true, false].entries()) {
        listener.replace(harness.plan([upstream.local], { trusts: () => trusted }));
        proxy.send(announced(named, `${i}`));
        if (trusted) await upstream.datagrams(1);
        else await until(() => harness.count('headerErrors') === (i === 0 ? 1 : 2), 'the count');
      }
      assert.deepEqual(upstream.texts, ['1']);
    },
  },
  {
    title: 'UDP flows are limited by the client a header names, not by the proxy in front',
    async run(harness) {
      const { proxy, upstream } = await fronted(harness, { limits: { perSource: 1 } });
      for (const [i, client] of [named, named6, at('198.18.77.7', 40001)].entries()) {
        proxy.send(announced(client, 'hello'));
        await upstream.datagrams(i + 1);
      }
      assert.deepEqual(
        harness.records.map(({ flow, reason }) => `${formatEndpoint(flow.client)} ${reason}`),
        ['198.18.77.7:40000 evicted'],
      );
    },
  },
  {
    title: 'a datagram’s header goes out again with the client it named, in families mixed as IPv6',
    async run(harness) {
      const { proxy, upstream } = await fronted(harness, { announce: {} });
      proxy.send(announced(named6, 'x'));
      await upstream.datagrams(1);
      assert.deepEqual(heard(upstream), ['[2001:db8:77::7]:40000 > 198.18.10.1:443: x']);
      assert.equal(upstream.received[0]?.[13], 0x22, 'AF_INET6, DGRAM');
    },
  },
];

export const udpHeaderCases: readonly Case[] = [...sending, ...accepting];
