/**
 * Both engines play the same random scripts and must come to the same outcome, which is also what the script says.
 * The suite asks for each promise by itself; here they meet: half-closes, resets, readers that stop, trains and
 * headers, on engines that live through all scripts, so that a pipe or slot that was not left clean is found by
 * whoever comes next.
 *
 * The scripts are the same in every run: number n is made from seed n. PARITY_SCRIPTS is how many are played, and
 * PARITY_SEED the first; `PARITY_SEED=17 PARITY_SCRIPTS=1` plays one again.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { makeLinuxEngine } from '../../src/engine/linux/linux.ts';
import { loadNative } from '../../src/engine/linux/load.ts';
import { makePortableEngine } from '../../src/engine/portable/portable.ts';
import { descriptorsSettled, openDescriptors } from '../support/fds.ts';
import { skipWithoutCore } from '../support/requirements.ts';
import { type Dice, dice } from '../unit/proxy-protocol/random.ts';
import { Harness } from './harness.ts';
import { expectedTcp, playTcp, tcpScript } from './parity-tcp.ts';
import { expectedUdp, playUdp, udpScript } from './parity-udp.ts';

const loaded = loadNative();
const skip = skipWithoutCore();
const scripts = Number(process.env['PARITY_SCRIPTS'] ?? 200);
const first = Number(process.env['PARITY_SEED'] ?? 1);
/** A script waits more than it works. */
const atOnce = 4;

interface Kind<S, O> {
  readonly name: string;
  readonly script: (roll: Dice) => S;
  readonly play: (harness: Harness, script: S) => Promise<O>;
  readonly expected: (script: S) => O;
}

const tcp = { name: 'TCP', script: tcpScript, play: playTcp, expected: expectedTcp };
const udp = { name: 'UDP', script: udpScript, play: playUdp, expected: expectedUdp };

describe('parity of the engines', { skip, concurrency: atOnce }, () => {
  let engines: { portable: Harness; linux: Harness };
  let descriptors = 0;

  before(async () => {
    assert.ok('native' in loaded, 'reason' in loaded ? loaded.reason : '');
    const portable = new Harness(makePortableEngine(1000));
    // With the first listener of a process libuv opens one for itself.
    await portable.closedPort('127.0.0.1');
    descriptors = openDescriptors();
    engines = {
      portable,
      linux: new Harness(makeLinuxEngine(loaded.native, 1000)),
    };
  });
  after(async () => {
    await engines.portable.close();
    await engines.linux.close();
    assert.equal(await descriptorsSettled(descriptors), descriptors, 'every descriptor was given back');
  });

  for (let seed = first; seed < first + scripts; seed++) {
    if (seed % 3 === 0) playBoth(udp, seed);
    else playBoth(tcp, seed);
  }

  function playBoth<S, O>({ name, script: make, play, expected }: Kind<S, O>, seed: number): void {
    test(`${name} script ${seed}`, { timeout: 30_000 }, async () => {
      const script = make(dice(seed));
      const again = `PARITY_SEED=${seed} PARITY_SCRIPTS=1 plays it again: ${inspect(script, { depth: 9 })}`;
      const [portable, linux] = await Promise.all([
        told(play(engines.portable, script), `portable engine; ${again}`),
        told(play(engines.linux, script), `linux engine; ${again}`),
      ]);
      assert.deepEqual({ linux }, { linux: portable }, `both engines alike; ${again}`);
      assert.deepEqual(portable, expected(script), `as the script says; ${again}`);
    });
  }
});

/** A failure that says what was played. */
async function told<T>(outcome: Promise<T>, what: string): Promise<T> {
  try {
    return await outcome;
  } catch (cause) {
    throw new Error(`${cause}: ${what}`, { cause });
  }
}
