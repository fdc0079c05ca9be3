/**
 * Whatever happens to containers and to what is told of them, the rules come to be those of the containers there
 * are, within a bound, and a container that nothing happened to never notices.
 *
 * The model is a host with few addresses and few ports, so that both are used again at once. Like dockerd it tells
 * of an end some time before its list knows. Of its events one in five is lost, comes twice, or after the next one.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { until } from '../../engine/harness.ts';
import { container, idOf, type ListedContainer, network } from '../../support/docker-lists.ts';
import type { Delivery, Fault } from '../../support/fake-engine.ts';
import { quick, World } from './follower-world.ts';

const names = ['a', 'b', 'c', 'd', 'e'] as const;
type Name = (typeof names)[number];

/** Two want the same port; one is in the network of another. */
const labels: Readonly<Record<Name, string>> = {
  a: '8001:80',
  b: '8002:80,[::]:8102:80',
  c: '8003:53/udp',
  d: '8001:80',
  e: '8005:80',
};
const joins: Partial<Record<Name, Name>> = { e: 'b' };

class Host {
  readonly #world: World;
  readonly #addresses = new Map<Name, string>();
  readonly #starts = new Map<Name, number>();

  constructor(world: World) {
    this.#world = world;
  }

  start(name: Name, deliver: () => Delivery): void {
    if (this.#addresses.has(name)) return;
    const free = [2, 3, 4]
      .map((n) => `10.1.0.${n}`)
      .find((text) => ![...this.#addresses.values()].includes(text));
    if (free === undefined) return;
    this.#addresses.set(name, free);
    this.#starts.set(name, (this.#starts.get(name) ?? 0) + 1);
    this.#list([...this.#others(name), this.#listed(name)]);
    this.#tell(name, 'start', deliver());
  }

  /** The address is free at once, the list has it until later. */
  async end(name: Name, behindMs: number, deliver: () => Delivery): Promise<void> {
    if (!this.#addresses.delete(name)) return;
    this.#tell(name, 'die', deliver());
    await sleep(behindMs);
    this.#list(this.#others(name));
    this.#tell(name, 'destroy', deliver());
  }

  /** What there should be. Of two that want one port either may have it: whoever was seen first keeps it. */
  get expected(): readonly (readonly string[])[] {
    const running = [...this.#addresses.keys()];
    const orders = running.includes('a') && running.includes('d') ? ['a', 'd'] : [undefined];
    return orders.map((loser) =>
      running.filter((name) => name !== loser).flatMap((name) => this.#wants(name)),
    );
  }

  #wants(name: Name): readonly string[] {
    const owner = joins[name] ?? name;
    const address = this.#addresses.get(owner);
    if (address === undefined) return [];
    return labels[name].split(',').map((port) => {
      const full = port.includes('/') ? port : `${port}/tcp`;
      return `${full} → ${address}:${/:(\d+)\/\w+$/.exec(full)?.[1]}`;
    });
  }

  #listed(name: Name): ListedContainer {
    const mode = joins[name] === undefined ? 'front' : `container:${idOf(joins[name])}`;
    const networks: Readonly<Record<string, string>> =
      joins[name] === undefined ? { front: this.#addresses.get(name) ?? '' } : {};
    const options = { labels: { 'io.dualport.ports': labels[name] }, mode, networks };
    // The first of two that want the same port is the older one.
    return container(name, {
      ...options,
      starts: this.#starts.get(name) ?? 0,
      created: name === 'a' ? 1 : 2,
    });
  }

  #others(name: Name): readonly ListedContainer[] {
    return this.#world.engine.containers.filter(({ Id }) => Id !== idOf(name));
  }

  #list(containers: readonly ListedContainer[]): void {
    this.#world.engine.containers = containers;
  }

  #tell(name: Name, Action: string, delivery: Delivery): void {
    this.#world.engine.emit({ Type: 'container', Action, id: idOf(name) }, delivery);
  }
}

const still = { labels: { 'io.dualport.ports': '8099:80' }, networks: { front: '10.1.0.99' } };
const stillText = '8099:80/tcp → 10.1.0.99:80';

type Step =
  | { readonly kind: 'start' | 'restart'; readonly name: Name }
  | { readonly kind: 'end'; readonly name: Name; readonly behindMs: number }
  | { readonly kind: 'replace'; readonly name: Name; readonly by: Name }
  | { readonly kind: 'cut'; readonly cleanly: boolean }
  | { readonly kind: 'say'; readonly text: string }
  | { readonly kind: 'fault'; readonly path: string; readonly fault: Fault; readonly forMs: number }
  | { readonly kind: 'away'; readonly forMs: number }
  | { readonly kind: 'unreached' }
  | { readonly kind: 'wait'; readonly ms: number };

const name = fc.constantFrom(...names);
const briefly = fc.integer({ min: 0, max: 60 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('start' as const), name }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('end' as const), name, behindMs: briefly }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('restart' as const), name }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('replace' as const), name, by: name }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('cut' as const), cleanly: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('say' as const),
      text: fc.constantFrom(
        '}\n',
        '\u0000',
        'x'.repeat(2 ** 21),
        '\n\n',
        '{"Type":"container","Action":"die"}\n',
      ),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('fault' as const),
      path: fc.constantFrom('/version', '/events', '/containers/json', '/networks'),
      fault: fc.constantFrom<Fault>(
        'hang',
        'hang up',
        'break off',
        'garbage',
        'error',
        'endless',
        'strange elements',
        'nothing',
      ),
      forMs: briefly,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('away' as const), forMs: briefly }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('unreached' as const) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: briefly }) },
);

/** One in five does not arrive as it was sent. */
const deliveries = fc.infiniteStream(
  fc.oneof(
    { weight: 12, arbitrary: fc.constant<Delivery>('in order') },
    { weight: 1, arbitrary: fc.constantFrom<Delivery>('lost', 'twice', 'behind the next') },
    { weight: 2, arbitrary: fc.constant<Delivery>('lost') },
  ),
);

async function take(world: World, host: Host, action: Step, deliver: () => Delivery): Promise<void> {
  const { engine } = world;
  switch (action.kind) {
    case 'start':
      return host.start(action.name, deliver);
    case 'end':
      return host.end(action.name, action.behindMs, deliver);
    case 'restart':
      await host.end(action.name, 5, deliver);
      return host.start(action.name, deliver);
    case 'replace': {
      // A container starts again once its end is over.
      if (action.by === action.name) return host.end(action.name, 40, deliver);
      // The address goes to the other while the list still has the first.
      const ended = host.end(action.name, 40, deliver);
      host.start(action.by, deliver);
      return ended;
    }
    case 'cut':
      return engine.cut(action.cleanly);
    case 'say':
      return engine.say(action.text);
    case 'fault':
      engine.faults.set(action.path, action.fault);
      await sleep(action.forMs);
      engine.faults.delete(action.path);
      return;
    case 'away':
      await engine.close();
      await sleep(action.forMs);
      return engine.open();
    case 'unreached':
      return world.follower.unreached('8001:80/tcp');
    case 'wait':
      await sleep(action.ms);
  }
}

test('rules converge to the containers there are, and others are not touched', {
  timeout: 300_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), deliveries, async (steps, stream) => {
      const world = await World.open(quick, 100);
      const deliver = (): Delivery => stream.next().value ?? 'in order';
      try {
        world.engine.networks = [network('front', ['10.1.0.0/16'])];
        world.engine.containers = [container('still', { ...still, created: 0 })];
        await world.follow();
        await world.publishes([stillText]);
        const host = new Host(world);
        for (const action of steps) await take(world, host, action, deliver);
        // What has been sent is to be heard, and what an echo of the past has closed is closed for that long. The rest is
        // for a slow machine.
        await sleep(quick.settleMs + quick.relistMs);
        await world.publishesOneOf(
          host.expected.map((texts) => [...texts, stillText]),
          10_000,
        );
        const settled = world.books.texts;
        const { lists } = world.follower.status;
        await until(() => world.follower.status.lists > lists + 1, 'a whole list more');
        assert.deepEqual(world.books.texts, settled, 'and it stays so');
        assert.deepEqual(
          world.books.history.filter((line) => line.includes('8099')),
          [`add ${stillText}`],
        );
      } finally {
        await world.close();
      }
    }),
    { numRuns: Number(process.env['HISTORIES'] ?? 40), endOnFailure: true },
  );
});
