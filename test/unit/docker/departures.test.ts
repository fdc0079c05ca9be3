import assert from 'node:assert/strict';
import test from 'node:test';
import { type Container, readContainer } from '../../../src/docker/container.ts';
import { Departures } from '../../../src/docker/departures.ts';
import { container, idOf } from '../../support/docker-lists.ts';

function listed(
  name: string,
  starts = 1,
  networks: Readonly<Record<string, string>> = { a: '10.0.0.2', b: '10.1.0.2' },
): Container {
  const read = readContainer(container(name, { networks, starts }));
  assert.ok(read);
  return read;
}

/** `web: a b`, by name and networks. */
function shown(containers: readonly Container[]): readonly string[] {
  return containers.map(
    ({ name, networks }) => `${name}: ${networks.map((network) => network.name).join(' ')}`,
  );
}

const [web, a, b] = [idOf('web'), idOf('a'), idOf('b')];

/** With a clock that stands still until it is moved. */
function make(): { departures: Departures; clock: { nowMs: number } } {
  const clock = { nowMs: 5 };
  return { departures: new Departures(1000, () => clock.nowMs), clock };
}

test('a list that still has what has ended is not believed, for a while', () => {
  const { departures, clock } = make();
  const list = [listed('web'), listed('other')];
  assert.deepEqual(departures.remaining(list), list);
  assert.equal(departures.settlesIn, undefined);
  assert.equal(departures.ended(web, undefined, 1, list[0]), true);
  assert.deepEqual(shown(departures.remaining(list)), ['other: a b']);
  assert.deepEqual([departures.has(web, a), departures.has(idOf('other'), a)], [true, false]);
  clock.nowMs += 999;
  assert.deepEqual(shown(departures.remaining(list)), ['other: a b']);
  assert.equal(departures.settlesIn, 1);
  clock.nowMs += 1;
  assert.deepEqual(shown(departures.remaining(list)), ['web: a b', 'other: a b']);
  assert.equal(departures.settlesIn, undefined);
});

test('whoever has started again is there, known by its new endpoints', () => {
  const { departures } = make();
  departures.ended(web, undefined, 1, listed('web', 1));
  assert.deepEqual(shown(departures.remaining([listed('web', 1)])), []);
  assert.deepEqual(shown(departures.remaining([listed('web', 2)])), ['web: a b']);
  assert.equal(departures.has(web, a), false);
});

test('or by the event that says so, also when it was never listed before', () => {
  const { departures } = make();
  departures.ended(web, undefined, 1, undefined);
  assert.deepEqual(shown(departures.remaining([listed('web', 2)])), [], 'it may be the one that ended');
  departures.began(web, undefined, 2);
  assert.deepEqual(shown(departures.remaining([listed('web', 2)])), ['web: a b']);
});

test('an end that is older than the last start has no effect', () => {
  const { departures } = make();
  departures.began(web, undefined, 10);
  departures.began(web, undefined, 8);
  assert.equal(departures.ended(web, undefined, 9, listed('web')), false);
  assert.deepEqual(shown(departures.remaining([listed('web')])), ['web: a b']);
  assert.equal(departures.ended(web, undefined, 11, listed('web')), true);
});

test('a network that was left is gone from the container, and the others are not', () => {
  const { departures } = make();
  departures.ended(web, a, 1, listed('web'));
  assert.deepEqual(shown(departures.remaining([listed('web')])), ['web: b']);
  assert.deepEqual([departures.has(web, a), departures.has(web, b)], [true, false]);
  departures.began(web, b, 2);
  assert.deepEqual(shown(departures.remaining([listed('web')])), ['web: b']);
  departures.began(web, a, 2);
  assert.deepEqual(shown(departures.remaining([listed('web')])), ['web: a b']);
});

test('a network that was left and joined again is there by its new endpoint', () => {
  const { departures } = make();
  departures.ended(web, a, 1, listed('web', 1));
  assert.deepEqual(shown(departures.remaining([listed('web', 2)])), ['web: a b']);
});

test('an engine that tells no endpoints is believed after the while', () => {
  const { departures, clock } = make();
  const bare = (): Container => {
    const one = listed('web');
    return { ...one, networks: one.networks.map((network) => ({ ...network, endpoint: '' })) };
  };
  departures.ended(web, undefined, 1, bare());
  assert.deepEqual(departures.remaining([bare()]), []);
  clock.nowMs += 1000;
  assert.equal(departures.remaining([bare()]).length, 1);
});

test('nothing is remembered of what is long gone', () => {
  const { departures, clock } = make();
  for (let i = 0; i < 100; i++) {
    departures.began(`c${i}`, undefined, 1);
    departures.began(`c${i}`, a, 1);
    departures.ended(`d${i}`, undefined, 1, undefined);
  }
  clock.nowMs += 1000;
  departures.remaining([]);
  assert.equal(departures.settlesIn, undefined);
  assert.equal(departures.ended('c1', undefined, 0, undefined), true, 'its start is forgotten');
});
