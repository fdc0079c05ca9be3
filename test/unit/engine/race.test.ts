import assert from 'node:assert/strict';
import test, { beforeEach, describe, mock } from 'node:test';
import fc from 'fast-check';
import type { Timeouts } from '../../../src/engine/engine.ts';
import { FailedUpstreams } from '../../../src/engine/failed-upstreams.ts';
import {
  type Attempt,
  attemptsAtOnce,
  type ConnectFailure,
  connectFailure,
  Race,
  type RaceResult,
} from '../../../src/engine/race.ts';
import type { LateUpstreams } from '../../../src/flow/flow.ts';
import { type Endpoint, loopbackIpv4 } from '../../../src/net/address.ts';

const timeouts: Timeouts = {
  connectMs: 5000,
  raceMs: 250,
  headerMs: 5000,
  idleMs: 0,
  halfCloseMs: 0,
  udpMs: 0,
  udpStreamMs: 0,
};

const upstream = (port: number): Endpoint => ({ address: loopbackIpv4, zone: '', port });
const upstreams = (count: number): readonly Endpoint[] =>
  Array.from({ length: count }, (_, i) => upstream(i + 1));

/** One attempt as the test sees it: it decides how it goes, and sees when it is given up. */
class Dialled implements Attempt {
  readonly port: number;
  readonly #outcome: (failure?: ConnectFailure) => void;
  abandoned = 0;
  over = false;

  constructor(port: number, outcome: (failure?: ConnectFailure) => void) {
    this.port = port;
    this.#outcome = outcome;
  }

  abandon(): void {
    this.abandoned++;
    this.over = true;
  }

  ends(failure?: ConnectFailure): void {
    this.over = true;
    this.#outcome(failure);
  }
}

/** A race, who was dialled so far, and what came of it. */
class Track {
  readonly dialled: Dialled[] = [];
  readonly results: RaceResult<Dialled>[] = [];
  readonly failed: FailedUpstreams;
  readonly race: Race<Dialled>;

  constructor(
    order: readonly Endpoint[],
    failed: FailedUpstreams = new FailedUpstreams(() => 0),
    late?: LateUpstreams,
  ) {
    this.failed = failed;
    const dial = ({ port }: Endpoint, outcome: (failure?: ConnectFailure) => void) => {
      const attempt = new Dialled(port, outcome);
      this.dialled.push(attempt);
      return attempt;
    };
    this.race = new Race(order, timeouts, failed, dial, (result) => this.results.push(result), late);
  }

  get ports(): readonly number[] {
    return this.dialled.map(({ port }) => port);
  }

  get inTheAir(): number {
    return this.dialled.filter(({ over }) => !over).length;
  }

  get outcome(): string | undefined {
    assert.ok(this.results.length <= 1, 'one outcome at most');
    const [result] = this.results;
    return result && ('failure' in result ? result.failure : `won by ${result.upstream.port}`);
  }

  /** What the next race over these upstreams would try last. */
  remembers(port: number): boolean {
    return this.failed.order([upstream(port), upstream(999)])[0]?.port === 999;
  }

  dialledAt(index: number): Dialled {
    const attempt = this.dialled[index];
    assert.ok(attempt, `attempt ${index} was made`);
    return attempt;
  }
}

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ['setTimeout'] });
});

const pass = (ms: number) => mock.timers.tick(ms);

describe('one candidate after the other', () => {
  test('the first is dialled at once and alone; when it answers it has won', () => {
    const track = new Track(upstreams(3));
    assert.deepEqual(track.ports, [1]);
    track.dialledAt(0).ends();
    assert.equal(track.outcome, 'won by 1');
    pass(60_000);
    assert.deepEqual(track.ports, [1], 'no timer is left');
    assert.equal(track.dialledAt(0).abandoned, 0, 'the winner is kept');
    assert.ok(!track.remembers(1));
  });

  test('a refusal moves on at once', () => {
    const track = new Track(upstreams(3));
    track.dialledAt(0).ends('connect-refused');
    track.dialledAt(1).ends('connect-unreachable');
    assert.deepEqual(track.ports, [1, 2, 3]);
    track.dialledAt(2).ends();
    assert.equal(track.outcome, 'won by 3');
    assert.deepEqual(
      [1, 2, 3].map((port) => track.remembers(port)),
      [true, true, false],
    );
  });

  test('when all refuse, the race is lost with the last reason', () => {
    const track = new Track(upstreams(2));
    track.dialledAt(0).ends('connect-refused');
    assert.equal(track.outcome, undefined);
    track.dialledAt(1).ends('connect-unreachable');
    assert.equal(track.outcome, 'connect-unreachable');
    pass(60_000);
    assert.equal(track.results.length, 1);
  });

  test('without candidates the race is lost at once', () => {
    assert.equal(new Track([]).outcome, 'connect-failed');
  });

  test('what is this host’s own trouble is not held against the upstream', () => {
    const track = new Track(upstreams(2));
    track.dialledAt(0).ends('connect-failed');
    assert.deepEqual(track.ports, [1, 2]);
    assert.ok(!track.remembers(1));
  });

  test('what failed of late is dialled last, and forgiven when it answers', () => {
    const failed = new FailedUpstreams(() => 0);
    failed.failed(upstream(1));
    const track = new Track(upstreams(2), failed);
    assert.deepEqual(track.ports, [2]);
    track.dialledAt(0).ends('connect-refused');
    track.dialledAt(1).ends();
    assert.equal(track.outcome, 'won by 1');
    assert.deepEqual([track.remembers(1), track.remembers(2)], [false, true]);
  });
});

describe('one candidate beside the other', () => {
  test('after 250 ms of silence, not before, the next is dialled beside the first', () => {
    const track = new Track(upstreams(3));
    pass(249);
    assert.deepEqual(track.ports, [1]);
    pass(1);
    assert.deepEqual(track.ports, [1, 2]);
    assert.equal(track.dialledAt(0).abandoned, 0, 'the first goes on');
  });

  test('whoever answers first wins; the other is given up and remembered', () => {
    for (const winner of [0, 1]) {
      const track = new Track(upstreams(2));
      pass(250);
      track.dialledAt(winner).ends();
      assert.equal(track.outcome, `won by ${winner + 1}`);
      assert.deepEqual([track.dialledAt(winner).abandoned, track.dialledAt(1 - winner).abandoned], [0, 1]);
      assert.deepEqual([track.remembers(winner + 1), track.remembers(2 - winner)], [false, true]);
    }
  });

  test('two are in the air at most; a third starts when one of them has refused', () => {
    const track = new Track(upstreams(4));
    pass(4000);
    assert.deepEqual([track.ports, attemptsAtOnce], [[1, 2], 2]);
    track.dialledAt(0).ends('connect-refused');
    assert.deepEqual(track.ports, [1, 2, 3]);
    pass(500);
    assert.deepEqual(track.ports, [1, 2, 3]);
  });

  test('each candidate has its own 250 ms', () => {
    const track = new Track(upstreams(3));
    pass(200);
    track.dialledAt(0).ends('connect-refused');
    pass(249);
    assert.deepEqual(track.ports, [1, 2]);
    pass(1);
    assert.deepEqual(track.ports, [1, 2, 3]);
  });

  test('the last candidate refuses while the first is still silent: the first may still win', () => {
    const track = new Track(upstreams(2));
    pass(250);
    track.dialledAt(1).ends('connect-refused');
    assert.equal(track.outcome, undefined);
    track.dialledAt(0).ends();
    assert.equal(track.outcome, 'won by 1');
  });
});

describe('the end', () => {
  test('after the connect timeout the race is lost, and the silent are given up and remembered', () => {
    const track = new Track(upstreams(3));
    pass(4999);
    assert.equal(track.outcome, undefined);
    pass(1);
    assert.equal(track.outcome, 'connect-timeout');
    assert.deepEqual(
      track.dialled.map(({ abandoned }) => abandoned),
      [1, 1],
    );
    assert.deepEqual(
      [1, 2, 3].map((port) => track.remembers(port)),
      [true, true, false],
    );
  });

  test('the connect timeout is one for all candidates', () => {
    const track = new Track(upstreams(2));
    pass(4900);
    track.dialledAt(0).ends('connect-refused');
    pass(100);
    assert.equal(track.outcome, 'connect-timeout');
  });

  test('a cancelled race gives everything up, blames nobody and says nothing', () => {
    const track = new Track(upstreams(3));
    pass(250);
    track.race.cancel();
    track.race.cancel();
    pass(60_000);
    assert.deepEqual(
      track.dialled.map(({ abandoned }) => abandoned),
      [1, 1],
    );
    assert.equal(track.outcome, undefined);
    assert.deepEqual(
      [1, 2, 3].map((port) => track.remembers(port)),
      [false, false, false],
    );
  });

  test('what comes in after the end changes nothing', () => {
    for (const late of [undefined, 'connect-refused'] as const) {
      const track = new Track(upstreams(3));
      pass(250);
      track.dialledAt(1).ends();
      track.dialledAt(0).ends(late);
      assert.equal(track.outcome, 'won by 2');
      assert.deepEqual(track.ports, [1, 2]);
    }
  });

  test('over any course of events there is one outcome, with two in the air at most and none behind it', () => {
    const event = fc.oneof(
      fc.record({ wait: fc.integer({ min: 1, max: 400 }) }),
      fc.record({ attempt: fc.nat(), failure: fc.constantFrom('connect-refused', undefined) }),
    );
    fc.assert(
      fc.property(fc.nat({ max: 5 }), fc.array(event), (count, events) => {
        const track = new Track(upstreams(count));
        for (const happens of events) {
          if ('wait' in happens) pass(happens.wait);
          else {
            const open = track.dialled.filter(({ over }) => !over);
            open[happens.attempt % open.length]?.ends(happens.failure as ConnectFailure | undefined);
          }
          assert.ok(track.inTheAir <= 2);
          if (track.outcome !== undefined) assert.equal(track.inTheAir, 0);
        }
        pass(5000);
        assert.equal(track.results.length, 1);
        assert.equal(track.inTheAir, 0);
      }),
    );
  });
});

describe('the reason behind an errno', () => {
  const reasons: Record<string, ConnectFailure> = {
    ECONNREFUSED: 'connect-refused',
    ECONNRESET: 'connect-refused',
    ETIMEDOUT: 'connect-timeout',
    EHOSTUNREACH: 'connect-unreachable',
    ENETUNREACH: 'connect-unreachable',
    EHOSTDOWN: 'connect-unreachable',
    EMFILE: 'connect-failed',
    EACCES: 'connect-failed',
  };
  for (const [errno, reason] of Object.entries(reasons)) {
    test(`${errno} is ${reason}`, () => assert.equal(connectFailure(errno), reason));
  }
});

describe('candidates that are not known yet', () => {
  /** Answers when it is told to. */
  class Late {
    asked = 0;
    #answer: (upstreams: readonly Endpoint[]) => void = () => {};

    readonly ask: LateUpstreams = () => {
      this.asked++;
      return new Promise((resolve) => {
        this.#answer = resolve;
      });
    };

    async is(...ports: readonly number[]): Promise<void> {
      this.#answer(ports.map(upstream));
      await Promise.resolve();
      await Promise.resolve();
    }
  }

  const trackOf = (count: number, late: Late) => new Track(upstreams(count), undefined, late.ask);

  test('nobody waits for them while there are others', () => {
    const late = new Late();
    const track = trackOf(2, late);
    track.dialledAt(0).ends('connect-refused');
    track.dialledAt(1).ends();
    pass(60_000);
    assert.deepEqual([track.outcome, late.asked], ['won by 2', 0]);
  });

  test('they are asked for when all others have refused, and dialled in their order', async () => {
    const late = new Late();
    const track = trackOf(1, late);
    track.dialledAt(0).ends('connect-refused');
    assert.deepEqual([track.outcome, late.asked], [undefined, 1]);
    await late.is(7, 8);
    track.dialledAt(1).ends('connect-refused');
    track.dialledAt(2).ends();
    assert.deepEqual([track.ports, track.outcome, late.asked], [[1, 7, 8], 'won by 8', 1]);
  });

  test('one that is known already is not dialled twice', async () => {
    const late = new Late();
    const track = trackOf(1, late);
    track.dialledAt(0).ends('connect-refused');
    await late.is(1);
    assert.deepEqual([track.ports, track.outcome], [[1], 'connect-refused']);
  });

  test('without any the race is lost as it was', async () => {
    const late = new Late();
    const track = trackOf(1, late);
    track.dialledAt(0).ends('connect-unreachable');
    await late.is();
    assert.equal(track.outcome, 'connect-unreachable');
    pass(60_000);
    assert.deepEqual([track.results.length, late.asked], [1, 1]);
  });

  test('a silent candidate goes on while they are asked for', async () => {
    const late = new Late();
    const track = trackOf(1, late);
    pass(249);
    assert.equal(late.asked, 0);
    pass(1);
    assert.equal(late.asked, 1);
    await late.is(7);
    assert.deepEqual([track.ports, track.inTheAir], [[1, 7], 2]);
    track.dialledAt(0).ends();
    assert.deepEqual([track.outcome, track.dialledAt(1).abandoned], ['won by 1', 1]);
  });

  test('a refusal while they are asked for is not the end', async () => {
    const late = new Late();
    const track = trackOf(1, late);
    pass(250);
    track.dialledAt(0).ends('connect-refused');
    assert.equal(track.outcome, undefined);
    await late.is(7);
    track.dialledAt(1).ends();
    assert.equal(track.outcome, 'won by 7');
  });

  test('they may come too late', async () => {
    const late = new Late();
    const track = trackOf(1, late);
    track.dialledAt(0).ends('connect-refused');
    pass(timeouts.connectMs);
    assert.equal(track.outcome, 'connect-timeout');
    await late.is(7);
    assert.deepEqual(track.ports, [1]);
  });

  test('whoever has cancelled hears nothing of them', async () => {
    const late = new Late();
    const track = trackOf(1, late);
    track.dialledAt(0).ends('connect-refused');
    track.race.cancel();
    await late.is(7);
    assert.deepEqual([track.ports, track.results], [[1], []]);
  });
});
