import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import fc from 'fast-check';
import {
  Admission,
  type Evictable,
  type FlowLimits,
  type Place,
  RuleGroup,
} from '../../../src/engine/admission.ts';
import { makeSourceTable, SharedFlows, sharedNumbers } from '../../../src/engine/shared-flows.ts';
import { readCounter } from '../../../src/flow/counters.ts';
import type { Protocol } from '../../../src/flow/flow.ts';
import { parseAddress } from '../../../src/net/address.ts';

const wide: FlowLimits = { perRule: 1000, perSource: 1000 };

/** A flow that gives its place back when it is evicted, as the engines' flows do. */
class Flow implements Evictable {
  readonly #admission: Admission;
  readonly #place: Place;
  alive = true;

  constructor(admission: Admission, place: Place) {
    this.#admission = admission;
    this.#place = place;
    if (place.protocol === 'udp') admission.waits(place, this);
  }

  answered(): void {
    this.#admission.waitsNoMore(this.#place, this);
  }

  waitsAgain(): void {
    this.#admission.waits(this.#place, this);
  }

  end(): void {
    if (!this.alive) return;
    this.alive = false;
    this.#admission.waitsNoMore(this.#place, this);
    this.#admission.release(this.#place);
  }

  evict(): void {
    this.end();
  }
}

/** One engine's admission and one rule, as short as a test wants to say it. */
class Door {
  readonly admission: Admission;
  readonly group: RuleGroup;
  readonly limits: FlowLimits;

  constructor(maxFlows: number, limits: Partial<FlowLimits> = {}, group = new RuleGroup()) {
    this.admission = new Admission(maxFlows);
    this.group = group;
    this.limits = { ...wide, ...limits };
  }

  tryTo(protocol: Protocol, client = '192.0.2.1', group = this.group): Flow | string {
    const place = this.admission.admit(group, this.limits, protocol, parseAddress(client));
    return typeof place === 'string' ? place : new Flow(this.admission, place);
  }

  enter(protocol: Protocol, client?: string, group?: RuleGroup): Flow {
    const flow = this.tryTo(protocol, client, group);
    assert.ok(flow instanceof Flow, `refused: ${flow}`);
    return flow;
  }
}

describe('each limit', () => {
  const rows = [
    { name: 'the engine', door: () => new Door(3), reason: 'limit-flows' },
    { name: 'the rule', door: () => new Door(100, { perRule: 3 }), reason: 'limit-rule' },
    { name: 'one source', door: () => new Door(100, { perSource: 3 }), reason: 'limit-source' },
  ];
  for (const { name, door, reason } of rows) {
    test(`${name}: what is over the limit is refused with the reason and counted, until a place is free`, () => {
      const at = door();
      const flows = [1, 2, 3].map(() => at.enter('tcp'));
      assert.equal(at.tryTo('tcp'), reason);
      assert.equal(at.tryTo('tcp'), reason);
      assert.equal(readCounter(at.group.counters, 'refusedByLimit'), 2);
      flows[1]?.end();
      at.enter('tcp');
      assert.equal(at.tryTo('tcp'), reason);
      assert.equal(at.admission.flows, 3);
    });
  }

  test('a source is an IPv4 address, or an IPv6 /64', () => {
    const door = new Door(100, { perSource: 1 });
    for (const client of ['192.0.2.1', '192.0.2.2', '2001:db8::1', '2001:db8:0:1::1'])
      door.enter('tcp', client);
    for (const client of ['192.0.2.2', '2001:db8::2', '2001:db8:0:1:ffff::'])
      assert.equal(door.tryTo('tcp', client), 'limit-source');
  });

  test('a source is counted by each rule for itself', () => {
    const door = new Door(100, { perSource: 1 });
    door.enter('tcp');
    door.enter('tcp', '192.0.2.1', new RuleGroup());
  });

  test('UDP gets half of the places, and one at least; TCP gets all that are left', () => {
    const door = new Door(7);
    for (const flow of [1, 2, 3].map(() => door.enter('udp'))) flow.answered();
    assert.equal(door.tryTo('udp'), 'limit-flows');
    for (let i = 0; i < 4; i++) door.enter('tcp');
    assert.equal(door.tryTo('tcp'), 'limit-flows');
    new Door(1).enter('udp');
  });
});

describe('making room', () => {
  test('the oldest unanswered UDP flow goes', () => {
    const door = new Door(6);
    const flows = [1, 2, 3].map(() => door.enter('udp'));
    flows[0]?.answered();
    door.enter('udp');
    assert.deepEqual(
      flows.map(({ alive }) => alive),
      [true, false, true],
    );
    assert.equal(readCounter(door.group.counters, 'evictions'), 1);
    assert.equal(readCounter(door.group.counters, 'refusedByLimit'), 0);
  });

  test('an answered flow never goes', () => {
    const door = new Door(6);
    const flows = [1, 2, 3].map(() => door.enter('udp'));
    for (const flow of flows) flow.answered();
    assert.equal(door.tryTo('udp'), 'limit-flows');
    assert.ok(flows.every(({ alive }) => alive));
    assert.equal(readCounter(door.group.counters, 'evictions'), 0);
  });

  test('a flow whose upstream went away may go again, as the youngest', () => {
    const door = new Door(4);
    const [first, second] = [door.enter('udp'), door.enter('udp')];
    first.answered();
    first.waitsAgain();
    door.enter('udp');
    assert.deepEqual([first.alive, second.alive], [true, false]);
    door.enter('udp');
    assert.equal(first.alive, false);
  });

  test('TCP is refused, it makes no room', () => {
    const door = new Door(2);
    const udp = door.enter('udp');
    door.enter('tcp');
    assert.equal(door.tryTo('tcp'), 'limit-flows');
    assert.ok(udp.alive);
  });

  test('room is made in the narrowest circle that is full', () => {
    const door = new Door(8, { perRule: 3, perSource: 2 });
    const other = door.enter('udp', '192.0.2.9', new RuleGroup());
    const neighbour = door.enter('udp', '192.0.2.8');
    const own = [door.enter('udp'), door.enter('udp')];
    door.enter('udp');
    assert.deepEqual(
      [other, neighbour, ...own].map(({ alive }) => alive),
      [true, true, false, true],
    );
    door.enter('udp', '192.0.2.7');
    assert.deepEqual([other.alive, neighbour.alive, own[1]?.alive], [true, false, true]);
  });

  test('nothing is evicted when it would not help', () => {
    const door = new Door(4, { perRule: 1 });
    door.enter('udp').answered();
    const other = door.enter('udp', '192.0.2.9', new RuleGroup());
    assert.equal(door.tryTo('udp'), 'limit-rule');
    assert.ok(other.alive);
  });

  test('an eviction is counted to the rule that lost the flow', () => {
    const door = new Door(2);
    const losing = new RuleGroup();
    door.enter('udp', '192.0.2.9', losing);
    door.enter('udp');
    assert.equal(readCounter(losing.counters, 'evictions'), 1);
    assert.equal(readCounter(door.group.counters, 'evictions'), 0);
  });
});

type Step = readonly ['enter', Protocol, number] | readonly ['end' | 'answered', number];

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(fc.constant('enter' as const), fc.constantFrom('tcp', 'udp'), fc.nat({ max: 5 })),
  fc.tuple(fc.constantFrom('end' as const, 'answered' as const), fc.nat()),
);

test('over any course of events no limit is passed, and nothing is left behind', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const door = new Door(10, { perRule: 7, perSource: 3 });
      const flows: Flow[] = [];
      for (const [what, ...rest] of steps) {
        if (what === 'enter') {
          const flow = door.tryTo(rest[0] as Protocol, `192.0.2.${rest[1]}`);
          if (flow instanceof Flow) flows.push(flow);
        } else {
          const flow = flows[Number(rest[0]) % flows.length];
          if (what === 'end') flow?.end();
          else if (flow?.alive) flow.answered();
        }
        const alive = flows.filter((flow) => flow.alive).length;
        assert.ok(alive <= 7);
        assert.deepEqual([door.admission.flows, door.group.flows], [alive, alive]);
        for (const share of door.group.sources.values()) assert.ok(share.flows > 0 && share.flows <= 3);
      }
      for (const flow of flows) flow.end();
      assert.deepEqual(
        [door.admission.flows, door.group.flows, door.group.sources.size, door.group.unanswered.size],
        [0, 0, 0, 0],
      );
    }),
  );
});

/** One rule on two threads, each with places of its own. */
function twoDoors(maxFlows: number, limits: Partial<FlowLimits>): readonly [Door, Door] {
  const table = makeSourceTable(2 * maxFlows);
  const numbers = sharedNumbers(1);
  const door = () => new Door(maxFlows, limits, new RuleGroup(undefined, new SharedFlows(1, numbers, table)));
  return [door(), door()];
}

describe('on two threads', () => {
  test('the limit of a source holds for both together', () => {
    const [one, two] = twoDoors(100, { perSource: 3 });
    const flows = [one.enter('tcp'), two.enter('tcp'), one.enter('tcp')];
    for (const door of [one, two]) assert.equal(door.tryTo('tcp'), 'limit-source');
    two.enter('tcp', '192.0.2.2');
    flows[1]?.end();
    one.enter('tcp');
    assert.equal(two.tryTo('tcp'), 'limit-source');
  });

  test('the limit of the rule holds for both together, the places of the engine are its own', () => {
    const [one, two] = twoDoors(3, { perRule: 5 });
    for (let i = 0; i < 3; i++) one.enter('tcp', `192.0.2.${i}`);
    assert.equal(one.tryTo('tcp'), 'limit-flows');
    for (let i = 3; i < 5; i++) two.enter('tcp', `192.0.2.${i}`);
    assert.equal(two.tryTo('tcp'), 'limit-rule');
  });

  test('a thread makes room with its own flows, and refuses when it has none', () => {
    const [one, two] = twoDoors(100, { perRule: 2 });
    const flows = [one.enter('udp'), one.enter('udp')];
    assert.equal(two.tryTo('udp', '192.0.2.9'), 'limit-rule');
    one.enter('udp', '192.0.2.9');
    assert.deepEqual(
      flows.map(({ alive }) => alive),
      [false, true],
    );
  });

  test('what is refused takes no place', () => {
    const [one, two] = twoDoors(100, { perRule: 1 });
    const flow = one.enter('tcp');
    for (let i = 0; i < 10; i++) assert.equal(two.tryTo('tcp'), 'limit-rule');
    assert.equal(two.group.everywhere?.count, 1);
    flow.end();
    two.enter('tcp');
  });
});

test('over any course of events on two threads no limit is passed, and nothing is left behind', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(step, fc.boolean()), { maxLength: 200 }), (steps) => {
      const doors = twoDoors(10, { perRule: 7, perSource: 3 });
      const flows: { flow: Flow; client: string }[] = [];
      for (const [[what, ...rest], second] of steps) {
        const client = `192.0.2.${rest[1]}`;
        const entered =
          what === 'enter' ? doors[second ? 1 : 0].tryTo(rest[0] as Protocol, client) : undefined;
        if (entered instanceof Flow) flows.push({ flow: entered, client });
        const known = flows[Number(rest[0]) % flows.length]?.flow;
        if (what === 'end') known?.end();
        else if (what === 'answered' && known?.alive) known.answered();
        const alive = flows.filter(({ flow }) => flow.alive);
        assert.ok(alive.length <= 7);
        for (const { client } of alive)
          assert.ok(alive.filter((other) => other.client === client).length <= 3);
        for (const { group } of doors) assert.equal(group.everywhere?.count, alive.length);
      }
      for (const { flow } of flows) flow.end();
      for (const { group } of doors) assert.deepEqual([group.everywhere?.count, group.flows], [0, 0]);
    }),
  );
});
