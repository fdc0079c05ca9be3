/** Ports that cannot be had, hosts without IPv6, and addresses in other spellings. */
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { at } from '../../engine/harness.ts';
import { lookAlikes, spelledIpv4 } from '../../unit/net/spellings.ts';
import { addresses, switchIpv6 } from '../network.ts';
import type { Row } from '../row.ts';
import type { Refusal, Scene } from '../scene.ts';
import { endingWithin, holds, lastLine } from '../verdict.ts';

/** Another program on this port, until the row is over. */
async function occupy(scene: Scene, how: Occupant, port: number): Promise<void> {
  const { host, protocol, ipv6Only } = how;
  if (protocol === 'tcp') {
    const server = net.createServer().listen({ host, port, ipv6Only });
    await once(server, 'listening');
    scene.defer(() => server.close());
  } else {
    const socket = dgram.createSocket({ type: host.includes(':') ? 'udp6' : 'udp4', ipv6Only });
    socket.bind(port, host);
    await once(socket, 'listening');
    scene.defer(() => socket.close());
  }
}

interface Occupant {
  readonly protocol: 'tcp' | 'udp';
  readonly host: string;
  readonly ipv6Only: boolean;
}

/** What refused processes said; that one of them did start is a finding of its own. */
function refusal(refusals: readonly Refusal[]): string {
  const started = refusals.filter(({ status }) => status === undefined);
  holds(started.length < refusals.length, 'it starts, and says nothing');
  const failed = refusals.filter(({ status }) => status !== undefined);
  holds(
    failed.every(({ status }) => status !== 0),
    'it ends with status 0',
  );
  return failed.map(({ said }) => said).join('');
}

async function nobodyListens(scene: Scene, port: number, host = '127.0.0.1'): Promise<void> {
  const client = await scene.connect(at(host, port));
  const ending = await endingWithin(client, 1000);
  client.socket.destroy();
  holds(ending === 'ECONNREFUSED', `${host} port ${port} is open all the same`);
}

const busy: readonly Row[] = [
  {
    id: 'D1',
    promise:
      'one port of several is taken: nothing starts, the message has the port, and no other stays open',
    async play(scene) {
      const taken = { ...scene.tcpRule, port: scene.front + 1 };
      await occupy(scene, { protocol: 'tcp', host: '127.0.0.1', ipv6Only: false }, taken.port);
      const last = { ...scene.tcpRule, port: scene.front + 2 };
      const said = refusal(await scene.refusedRelay({ publish: [scene.tcpRule, taken, last] }));
      holds(said.includes(String(taken.port)), `it says: ${lastLine(said)}`);
      await nobodyListens(scene, scene.front);
      await nobodyListens(scene, last.port);
    },
  },
  {
    id: 'D3',
    promise: 'a port below 1024 without the privilege: the message names the capability and the sysctl',
    async play(scene) {
      const noCapabilities = ['setpriv', '--inh-caps=-all', '--bounding-set=-all', '--'];
      const said = refusal(
        await scene.refusedRelay({ publish: [{ ...scene.tcpRule, port: 80 }] }, noCapabilities),
      );
      holds(
        /CAP_NET_BIND_SERVICE/.test(said) && /ip_unprivileged_port_start/.test(said),
        `it says: ${lastLine(said)}`,
      );
    },
  },
  {
    id: 'D5',
    promise:
      'whoever else has the port, on whichever address: it says where it cannot listen, and keeps no other open',
    async play(scene) {
      const occupants = (['tcp', 'udp'] as const).flatMap((protocol): Occupant[] => [
        { protocol, host: '0.0.0.0', ipv6Only: false },
        { protocol, host: '127.0.0.1', ipv6Only: false },
        { protocol, host: '::', ipv6Only: true },
        { protocol, host: '::', ipv6Only: false },
        { protocol, host: '::1', ipv6Only: true },
        { protocol, host: addresses.v6, ipv6Only: true },
      ]);
      const left: string[] = [];
      const possible = occupants.filter(
        ({ protocol }) => scene.subject.cannot({ publish: [{ ...scene.tcpRule, protocol }] }) === undefined,
      );
      const tryOne = async (i: number) => {
        const occupant = possible[i] as Occupant;
        const port = scene.front + i;
        await occupy(scene, occupant, port);
        const rule = { ...scene.tcpRule, port, protocol: occupant.protocol };
        const said = refusal(await scene.refusedRelay({ publish: [rule] }));
        if (!said.includes(String(port)))
          left.push(`${occupant.protocol} ${occupant.host}: ${lastLine(said)}`);
      };
      await scene.crowd(possible.length, tryOne, 3);
      holds(left.length === 0, `${left.length} of ${possible.length}, such as ${left[0]}`);
      return `${possible.length} ways`;
    },
  },
];

const families: readonly Row[] = [
  {
    id: 'D6',
    promise: 'a host whose IPv6 is switched off is served on IPv4, with one warning',
    async play(scene) {
      switchIpv6(false);
      scene.defer(() => switchIpv6(true));
      scene.endsRelay = true;
      const relay = await scene.relay({ withoutIpv6: true });
      await scene.echo('127.0.0.1', scene.back);
      const client = await scene.connect(scene.door);
      client.socket.end('hello');
      holds(
        (await endingWithin(client, 2000)) === 'end' && client.received.toString() === 'hello',
        'no answer',
      );
      if (!relay.isDualport) return;
      const warnings = relay.lines.filter(({ level, msg }) => level === 'warn' && /IPv6/.test(String(msg)));
      holds(warnings.length === 1, `${warnings.length} warnings`);
    },
  },
  {
    id: 'D9',
    promise:
      'a rule against an IPv4 address holds in every spelling of it, and against nobody who only looks like it',
    async play(scene) {
      const host = addresses.moreV4[0];
      const respelled = (text: string) => text.replace('192.0.2.1', host).replace(/c000:0?201/i, 'c612:2');
      const same = spelledIpv4.map(respelled);
      const others = Object.keys(lookAlikes).map(respelled);
      const publish = [...same, ...others].map((prefix, i) => ({
        ...scene.tcpRule,
        port: scene.front + i,
        hosts: ['0.0.0.0'],
        deny: [prefix],
      }));
      await scene.relay({ publish });
      await scene.echo('127.0.0.1', scene.back);
      const isServed = async (port: number) => {
        const client = await scene.connect(at('127.0.0.1', port), at(host, 0));
        client.socket.end('hello');
        await endingWithin(client, 2000);
        client.socket.destroy();
        return client.received.length > 0;
      };
      const wrong: string[] = [];
      for (const { port, deny } of publish)
        if ((await isServed(port)) === same.includes(deny[0] ?? '')) wrong.push(deny[0] ?? '');
      holds(wrong.length === 0, `${wrong.length} of ${publish.length} otherwise, such as ${wrong[0]}`);
      return `${publish.length} spellings`;
    },
  },
];

export const listeningRows: readonly Row[] = [...busy, ...families];
