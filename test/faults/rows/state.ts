/** What is shown of the relay's state, to whom, what stands in its log, and what is left after all of it. */
import { readdirSync } from 'node:fs';
import http from 'node:http';
import { at } from '../../engine/harness.ts';
import { handmadeV2 } from '../../unit/proxy-protocol/handmade.ts';
import type { Relay } from '../relay.ts';
import { onlyDualport, type Row } from '../row.ts';
import type { Scene } from '../scene.ts';
import { hostsOf } from '../subject.ts';
import { endingWithin, holds, sees } from '../verdict.ts';

/** Asks the admin address for its status, and says the code of the answer. */
function ask(port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const options = { port, host: '127.0.0.1', path: '/status', headers: { host }, agent: false };
    const request = http.get(options, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    request.on('error', reject);
  });
}

const shown: readonly Row[] = [
  {
    id: 'G1',
    promise: 'nothing listens but what was published, and the state only on loopback',
    async play(scene) {
      const relay = await scene.relay();
      const published = relay.wanted.publish.flatMap((rule) =>
        hostsOf(rule).map((host) => `${host}:${rule.port}`),
      );
      const unasked = (await relay.listening()).filter((address) => !published.includes(address));
      holds(unasked.length === 0, `it listens on ${unasked}`);
      if (!relay.isDualport) return;
      const admin = scene.front + 1;
      await scene.restart(relay, { admin });
      const shows = (await relay.listening()).filter((address) => address.endsWith(`:${admin}`)).sort();
      holds(shows.join() === `127.0.0.1:${admin},::1:${admin}`, `its state is shown on ${shows}`);
    },
  },
  {
    id: 'G3',
    promise: 'the state is not shown to a web page whose name was made to point here',
    silent: onlyDualport('shows no such page unless it is configured'),
    async play(scene) {
      const admin = scene.front + 1;
      await scene.relay({ admin });
      const hosts = [
        'attacker.example',
        `attacker.example:${admin}`,
        '198.18.0.1',
        'localhost.attacker.example',
        '127.0.0.1.attacker.example',
      ];
      for (const host of hosts) {
        const code = await ask(admin, host);
        holds(code === 403, `the host ${host} is answered with ${code}`);
      }
      for (const host of ['localhost', `127.0.0.1:${admin}`, '[::1]'])
        holds((await ask(admin, host)) === 200, `${host} is refused`);
    },
  },
  {
    id: 'G7',
    promise: 'clients make no series of metrics: their number hangs on the ports alone',
    silent: onlyDualport('has no such metrics unless it is configured'),
    async play(scene) {
      const relay = await scene.relay({
        publish: [scene.tcpRule, scene.udpRule],
        udp: 1000,
        udpStream: 1000,
      });
      await scene.echo('127.0.0.1', scene.back);
      const series = async () =>
        (await relay.page('/metrics')).split('\n').filter((line) => /^\w/.test(line));
      const before = (await series()).length;
      await scene.crowd(500, async (i) => {
        const client = await scene.connect(scene.door, at(`198.19.${i >> 8}.${i & 255}`, 0));
        client.socket.end('hello');
        await endingWithin(client, 3000);
      });
      const after = await series();
      holds(after.length === before, `${after.length - before} series more after 500 clients`);
      holds(!after.some((line) => line.includes('198.19.')), 'a client stands in a label');
      const listeners = 2 * relay.wanted.publish.length;
      holds(after.length <= 40 * listeners, `${after.length} series for ${listeners} listeners`);
      return `${after.length} series`;
    },
  },
  {
    id: 'G8',
    promise: 'nothing a client sends writes to the terminal of who reads the log, or makes a line of its own',
    async play(scene) {
      const relay = await scene.relay({ accept: ['127.0.0.0/8', '::1/128'], accessLog: true });
      await scene.echo('127.0.0.1', scene.back);
      const evil = Buffer.from('\x1b[2J\x1b]0;owned\x07\r\n{"level":"info","msg":"forged"}\n\0\u202e\x7f');
      const [source, destination] = [
        { ip: '198.18.77.7', port: 1 },
        { ip: '198.18.10.1', port: 2 },
      ];
      const headers = [
        handmadeV2(
          'tcp',
          source,
          destination,
          [1, 2, 5, 0xe0].map((type) => ({ type, value: evil })),
        ),
        Buffer.concat([Buffer.from('PROXY UNKNOWN '), Buffer.from('\x1b[2J'), Buffer.from('\r\n')]),
        Buffer.concat([Buffer.from('PROXY TCP4 '), evil, Buffer.from('\r\n')]),
        evil,
      ];
      for (const header of headers) {
        const client = await scene.connect(scene.door);
        client.socket.end(Buffer.concat([header, evil]));
        await endingWithin(client, 2000);
      }
      const said = () => relay.said;
      if (relay.isDualport)
        await sees(
          () => relay.lines.length > headers.length,
          2000,
          () => 'nothing is logged',
        );
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
      const raw = /[\x00-\x09\x0b-\x1f\x7f\u202e]/.exec(said());
      holds(raw === null, `a control character ${JSON.stringify(raw?.[0])}`);
      holds(!/^\{"level":"info","msg":"forged"/m.test(said()), 'a line that a client wrote');
    },
  },
];

const leaks: Row = {
  id: 'G21',
  promise:
    'after cycles of hundreds of connections and datagram flows everything is as before: descriptors, flows, threads',
  async play(scene) {
    // docker-proxy forgets a client after 90 s only.
    const withUdp =
      scene.subject.name !== 'docker-proxy' &&
      scene.subject.cannot({ publish: [scene.udpRule] }) === undefined;
    const publish = [scene.tcpRule, scene.udpRule].slice(
      0,
      scene.subject.cannot({ publish: [scene.udpRule] }) ? 1 : 2,
    );
    const relay = await scene.relay({ publish, udp: 1000, udpStream: 1000 });
    await scene.echo('127.0.0.1', scene.back);
    await scene.udpEcho('127.0.0.1', scene.back);
    const before = relay.descriptors();
    for (let cycle = 0; cycle < 3; cycle++) {
      await cycleOfTraffic(scene, withUdp);
      if (cycle === 0)
        await sees(
          () => relay.descriptors().sockets <= before.sockets,
          5000,
          () => `${relay.descriptors().sockets - before.sockets} sockets more`,
        );
    }
    const threads = threadsOf(relay);
    await cycleOfTraffic(scene, withUdp);
    holds(
      threadsOf(relay) <= threads + (relay.isDualport ? 0 : 4),
      `${threadsOf(relay) - threads} threads more`,
    );
  },
};

async function cycleOfTraffic(scene: Scene, udp: boolean): Promise<void> {
  await scene.crowd(200, async (i) => {
    const client = await scene.connect(scene.door);
    if (i % 3 === 0) client.socket.write(Buffer.alloc(300_000));
    else client.socket.end('hello');
    await endingWithin(client, i % 3 === 0 ? 20 : 2000);
    if (i % 2 === 0) client.socket.resetAndDestroy();
    else client.socket.destroy();
  });
  if (!udp) return;
  await scene.crowd(200, async () => {
    const client = await scene.udp('127.0.0.1', scene.door);
    client.send('hello');
    await sees(
      () => client.received.length > 0,
      2000,
      () => 'a datagram without an answer',
    );
    client.close();
  });
}

function threadsOf(relay: Relay): number {
  return relay.processes.reduce((total, pid) => total + readdirSync(`/proc/${pid}/task`).length, 0);
}

export const stateRows: readonly Row[] = [...shown, leaks];
