/**
 * Containers that come, go and ask for too much, and an engine that is away. The engine is made up, so that it does
 * on demand what a real one does once a month; test/e2e has the real dockerd.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { at } from '../../engine/harness.ts';
import {
  type ContainerOptions,
  container,
  idOf,
  type ListedContainer,
  network,
} from '../../support/docker-lists.ts';
import { type Delivery, FakeEngine } from '../../support/fake-engine.ts';
import type { Relay } from '../relay.ts';
import { onlyDualport, type Row } from '../row.ts';
import type { Scene } from '../scene.ts';
import { endingWithin, holds, sees, tally } from '../verdict.ts';

const silent = onlyDualport('follows no containers');

const programPort = 80;
/** Of the containers; the host answers for all of these. */
const address = (i: number) => `198.18.40.${i}`;

/** An engine, and a relay that follows it beside the rule it has by itself. */
async function follow(scene: Scene, admin?: number): Promise<{ engine: FakeEngine; relay: Relay }> {
  const engine = new FakeEngine(join(scene.stage.directory(), 'docker.sock'));
  engine.networks = [network('bridge', ['198.18.40.0/24'])];
  await engine.open();
  scene.defer(() => engine.close());
  const relay = await scene.relay({ docker: engine.socket, ...(admin === undefined ? {} : { admin }) });
  await sees(
    () => engine.listeners === 1,
    3000,
    () => 'it does not listen to events',
  );
  return { engine, relay };
}

/** A container that asks for a port of the host. */
function publisher(name: string, i: number, port: number, more: ContainerOptions = {}): ListedContainer {
  const labels = { 'io.dualport.ports': `${port}:${programPort}`, ...more.labels };
  return container(name, { ...more, labels, networks: more.networks ?? { bridge: address(i) } });
}

/** The program of a container, which says who it is, and counts. */
async function program(scene: Scene, name: string, host: string, port = programPort) {
  const reached = { count: 0 };
  await scene.server(
    host,
    (socket) => {
      reached.count++;
      socket.end(name);
    },
    port,
  );
  return reached;
}

/** Who answers at this port of the host, or how the connection ends. */
async function answerer(scene: Scene, port: number): Promise<string> {
  const client = await scene.connect(at('127.0.0.1', port));
  const ending = await endingWithin(client, 3000);
  client.socket.destroy();
  return client.received.length > 0 ? client.received.toString() : ending;
}

async function answers(scene: Scene, port: number, wanted: string, ms = 3000): Promise<void> {
  let last = '';
  await sees(
    async () => {
      last = await answerer(scene, port);
      return last === wanted;
    },
    ms,
    () => `a port where ${wanted} should answer: ${tally([last])}`,
  );
}

/** No container is left, nor a port of one: what is published stays so while the engine is away. */
async function nobodyLeft(engine: FakeEngine, relay: Relay): Promise<void> {
  const names = engine.containers.map(({ Id }) => Id);
  engine.containers = [];
  for (const id of names) engine.emit({ Type: 'container', Action: 'die', id });
  const rules = relay.wanted.publish.map(({ port }) => `:${port}`);
  const own = relay.wanted.admin === undefined ? rules : [...rules, `:${relay.wanted.admin}`];
  const left = async () =>
    (await relay.listening()).filter((address) => !own.some((port) => address.endsWith(port)));
  await sees(
    async () => (await left()).length === 0,
    3000,
    () => 'ports of containers that have ended are open',
  );
}

const closed = 'ECONNREFUSED';

const started = (name: string) => ({ Type: 'container', Action: 'start', id: idOf(name) });
const died = (name: string) => ({ Type: 'container', Action: 'die', id: idOf(name) });

const engineRows: readonly Row[] = [
  {
    id: 'F1',
    promise: 'while the Docker Engine is away every port is served, and soon after all of it is right again',
    silent,
    async play(scene) {
      const { engine, relay } = await follow(scene);
      await scene.upstream((socket) => socket.end('the rule'));
      await program(scene, 'first', address(1));
      await program(scene, 'second', address(2));
      const [one, two] = [scene.front + 1, scene.front + 2];
      engine.containers = [publisher('first', 1, one)];
      engine.emit(started('first'));
      await answers(scene, one, 'first');
      await engine.close();
      const away: string[] = [];
      for (let i = 0; i < 20; i++) {
        away.push(await answerer(scene, one), await answerer(scene, scene.front));
        await sleep(50);
      }
      holds(
        away.every((word) => word === 'first' || word === 'the rule'),
        tally(away),
      );
      engine.containers = [publisher('second', 2, two)];
      await engine.open();
      const start = performance.now();
      await answers(scene, two, 'second', 12_000);
      await answers(scene, one, closed);
      const seconds = ((performance.now() - start) / 1000).toFixed(1);
      await nobodyLeft(engine, relay);
      return `right again in ${seconds} s`;
    },
  },
  {
    id: 'F2',
    promise: 'events that are lost, doubled or out of order: half a minute later every port is right',
    silent,
    async play(scene) {
      const { engine, relay } = await follow(scene);
      const count = 6;
      for (let i = 0; i < count; i++) await program(scene, `c${i}`, address(i + 1));
      const running = new Set<number>();
      const deliveries: readonly Delivery[] = ['lost', 'twice', 'behind the next', 'in order', 'lost'];
      for (let step = 0; step < 60; step++) {
        const i = (step * 7 + (step >> 2)) % count;
        if (!running.delete(i)) running.add(i);
        engine.containers = [...running].map((i) => publisher(`c${i}`, i + 1, scene.front + 1 + i));
        engine.emit(running.has(i) ? started(`c${i}`) : died(`c${i}`), deliveries[step % deliveries.length]);
        await sleep(15);
      }
      await sleep(500);
      if (!running.delete(0)) running.add(0);
      engine.containers = [...running].map((i) => publisher(`c${i}`, i + 1, scene.front + 1 + i));
      engine.emit(running.has(0) ? started('c0') : died('c0'), 'lost');
      const start = performance.now();
      for (let i = 0; i < count; i++)
        await answers(scene, scene.front + 1 + i, running.has(i) ? `c${i}` : closed, 33_000);
      const seconds = ((performance.now() - start) / 1000).toFixed(1);
      await nobodyLeft(engine, relay);
      return `right after ${seconds} s`;
    },
  },
];

const strangers: readonly Row[] = [
  {
    id: 'F6',
    promise: 'nobody is led to a stranger who has the address of a container that has ended',
    silent,
    async play(scene) {
      const { engine } = await follow(scene);
      const reached = await program(scene, 'whoever has the address', address(1));
      const port = scene.front + 1;
      for (let round = 0; round < 10; round++) {
        const [old, stranger] = [`old${round}`, `stranger${round}`];
        engine.containers = [publisher(old, 1, port)];
        engine.emit(started(old));
        await answers(scene, port, 'whoever has the address');
        // As dockerd does it: the dead one is listed for a while yet.
        const dead = publisher(old, 1, port);
        engine.containers = [dead, container(stranger, { networks: { bridge: address(1) } })];
        engine.emit(died(old));
        await answers(scene, port, closed);
        const before = reached.count;
        engine.emit(started(stranger));
        for (let i = 0; i < 10; i++) {
          await answerer(scene, port);
          await sleep(20);
        }
        holds(reached.count === before, `${reached.count - before} of 10 were led to a stranger`);
        engine.containers = [];
        engine.emit(died(stranger));
      }
    },
  },
  {
    id: 'F11',
    promise: 'labels get no port that the operator has not left to them, and the log names who asked',
    silent,
    async play(scene) {
      const admin = scene.front + 9;
      const { engine, relay } = await follow(scene, admin);
      await program(scene, 'good', address(1));
      const asked = [22, 80, 443, 1023, 2375, 2376, 2377, admin, 32768, 65535];
      engine.containers = [
        publisher('good', 1, scene.front + 1),
        ...asked.map((port) => publisher(`wants-${port}`, 2, port)),
      ];
      engine.emit(started('good'));
      await answers(scene, scene.front + 1, 'good');
      const refused = () => relay.program.said('container not published').map((line) => line['container']);
      const unnamed = () => asked.filter((port) => !refused().includes(`wants-${port}`));
      await sees(
        () => unnamed().length === 0,
        3000,
        () => `it says nothing of ${unnamed()}`,
      );
      const open = (await relay.listening()).filter((address) =>
        asked.some((port) => port !== admin && address.endsWith(`:${port}`)),
      );
      holds(open.length === 0, `it listens on ${open}`);
      await nobodyLeft(engine, relay);
      return `${asked.length} ports`;
    },
  },
  {
    id: 'F12',
    promise: 'labels lead nobody but to their own container: not to the host, another one or its network',
    silent,
    async play(scene) {
      const { engine, relay } = await follow(scene);
      const secretPort = scene.back + 1;
      const secret = await program(scene, 'secret', '0.0.0.0', secretPort);
      await program(scene, 'good', address(1));
      const at = (i: number) => scene.front + 2 + i;
      const labelled =
        (labels: (port: number) => Readonly<Record<string, string>>) => (name: string, i: number) =>
          container(name, { labels: labels(at(i)), networks: { bridge: address(2) } });
      const placed = (where: string, mode?: string) => (name: string, i: number) =>
        container(name, {
          labels: { 'io.dualport.ports': `${at(i)}:${secretPort}` },
          networks: mode === undefined ? { bridge: where } : { [mode]: where },
          ...(mode === undefined ? {} : { mode }),
        });
      // As many as the log has lines for at once.
      const tries = [
        labelled((port) => ({ 'io.dualport.ports': `${port}:127.0.0.1:${secretPort}` })),
        labelled((port) => ({ 'io.dualport.ports': `127.0.0.1:${port}:${address(1)}:${secretPort}` })),
        labelled((port) => ({ 'io.dualport.ports': `${port}:${secretPort}`, 'io.dualport.to': '127.0.0.1' })),
        labelled((port) => ({
          'io.dualport.ports': `${port}:${secretPort}`,
          'io.dualport.target': address(1),
        })),
        labelled((port) => ({
          'io.dualport.port.web.target': `127.0.0.1:${secretPort}`,
          'io.dualport.port.web.published': String(port),
        })),
        placed('', 'host'),
        placed('127.0.0.1'),
        placed('::1'),
        placed('198.18.0.1'),
        placed('0.0.0.0'),
      ];
      engine.containers = [
        publisher('good', 1, scene.front + 1),
        ...tries.map((make, i) => make(`try${i}`, i)),
      ];
      engine.emit(started('good'));
      await answers(scene, scene.front + 1, 'good');
      await sleep(300);
      const seen: string[] = [];
      for (const [i] of tries.entries()) seen.push(await answerer(scene, at(i)));
      holds(secret.count === 0, `${secret.count} clients were led there: ${tally(seen)}`);
      const told = relay.program.said('container not published').length;
      holds(told >= tries.length, `${told} of ${tries.length} were refused by name`);
      await nobodyLeft(engine, relay);
      return `${tries.length} ways`;
    },
  },
  {
    id: 'F13',
    promise: 'whoever has a port keeps it: no container takes it from another, or from a rule',
    silent,
    async play(scene) {
      const { engine, relay } = await follow(scene);
      await scene.upstream((socket) => socket.end('the rule'));
      await program(scene, 'first', address(1));
      const late = await program(scene, 'late', address(2));
      const port = scene.front + 1;
      const first = publisher('first', 1, port);
      engine.containers = [first];
      engine.emit(started('first'));
      await answers(scene, port, 'first');
      // Older, and first in the list: neither counts.
      const created = 1_600_000_000;
      const greedy = { 'io.dualport.ports': `${port}:80, ${scene.front}:80` };
      engine.containers = [publisher('late', 2, port, { created, labels: greedy }), first];
      engine.emit(started('late'));
      await sees(
        () => relay.program.said('container not published').some(({ container }) => container === 'late'),
        3000,
        () => 'it says nothing of who came later',
      );
      const seen: string[] = [];
      for (let i = 0; i < 20; i++) seen.push(await answerer(scene, port), await answerer(scene, scene.front));
      holds(seen.every((word) => word === 'first' || word === 'the rule') && late.count === 0, tally(seen));
      engine.containers = engine.containers.filter(({ Id }) => Id === idOf('late'));
      engine.emit(died('first'));
      await answers(scene, port, 'late');
      await nobodyLeft(engine, relay);
    },
  },
];

export const dockerRows: readonly Row[] = [...engineRows, ...strangers];
