/**
 * What a TCP connection costs besides its sockets, its addresses and its verdict: a place among the flows, the
 * order of its upstreams, the race between them with its timers, and the counters (which, unlike the others,
 * every chunk and every datagram adds to). The dial of the race is answered at once: what is left is the race.
 */
import { Admission, type Place, RuleGroup } from '../../src/engine/admission.ts';
import type { Timeouts } from '../../src/engine/engine.ts';
import { FailedUpstreams } from '../../src/engine/failed-upstreams.ts';
import { Race } from '../../src/engine/race.ts';
import { count, readCounter } from '../../src/flow/counters.ts';
import { type Endpoint, endpointOf, type Family } from '../../src/net/address.ts';
import { clients } from './clients.ts';
import { nth, type Operation, operation, type Question } from './question.ts';

const upstreams: readonly Endpoint[] = [endpointOf('172.17.0.2', 80), endpointOf('fd00::2', 80)];

const timeouts: Timeouts = {
  connectMs: 5000,
  raceMs: 250,
  headerMs: 5000,
  idleMs: 0,
  halfCloseMs: 120_000,
  udpMs: 30_000,
  udpStreamMs: 180_000,
};

export const flowStart: Question = {
  name: 'flow-start',
  sentence: 'What does a connection cost between accept and relay, besides sockets and verdict?',
  operations: () => [
    placed(4),
    placed(6),
    ordered('no failure remembered', []),
    ordered('the first has failed', upstreams.slice(0, 1)),
    raced(),
    counted(),
    clock(),
  ],
};

function placed(family: Family): Operation {
  const admission = new Admission(10_000);
  const group = new RuleGroup();
  const limits = { perRule: 5000, perSource: 1000 };
  // Other flows of the rule: the map of sources is not empty in earnest either.
  for (const { address } of clients[family === 4 ? 6 : 4]) admission.admit(group, limits, 'tcp', address);
  const passed = (call: number): Place => {
    const place = admission.admit(group, limits, 'tcp', nth(clients[family], call).address);
    if (typeof place === 'string') throw new Error(place);
    admission.release(place);
    return place;
  };
  const others = admission.flows;
  return operation(`a place taken and given back, IPv${family}`, passed, () => admission.flows === others);
}

function ordered(name: string, broken: readonly Endpoint[]): Operation {
  // The clock stands still, so that failures are never old.
  const failed = new FailedUpstreams(() => 0);
  for (const upstream of broken) failed.failed(upstream);
  const first = upstreams[broken.length];
  return operation(
    `order of two upstreams, ${name}`,
    () => failed.order(upstreams),
    (order) => order.length === 2 && order[0] === first,
  );
}

function raced(): Operation {
  const failed = new FailedUpstreams(() => 0);
  const attempt = { abandon: () => {} };
  let winner: Endpoint | undefined;
  return operation(
    'a race of two upstreams, the first answers',
    () => {
      winner = undefined;
      let answered: (() => void) | undefined;
      const dial = (_: Endpoint, outcome: () => void) => {
        answered = outcome;
        return attempt;
      };
      new Race(upstreams, timeouts, failed, dial, (result) => {
        if ('upstream' in result) winner = result.upstream;
      });
      answered?.();
      return winner;
    },
    (result) => result === upstreams[0],
  );
}

/** A relay does it for every chunk, in both directions. */
function counted(): Operation {
  const { counters } = new RuleGroup();
  let expected = 0;
  return operation(
    'adding to a counter',
    () => {
      expected += 1024;
      count(counters, 'bytesFromUpstream', 1024);
      return counters;
    },
    () => readCounter(counters, 'bytesFromUpstream') === expected,
  );
}

function clock(): Operation {
  let before = 0;
  return operation(
    'performance.now()',
    () => performance.now(),
    (now) => {
      const isLater = now >= before;
      before = now;
      return isLater;
    },
  );
}
