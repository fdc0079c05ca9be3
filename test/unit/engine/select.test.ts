import assert from 'node:assert/strict';
import test from 'node:test';
import type { Shortcoming } from '../../../src/engine/engine.ts';
import { loadNative } from '../../../src/engine/linux/load.ts';
import { makeEngine, refuseEngine } from '../../../src/engine/select.ts';

const loaded = loadNative();
const missing = { reason: 'there is none' };

test('auto takes the best engine there is, and says what stands against a better one', async () => {
  const heard: Shortcoming[] = [];
  const engine = makeEngine('auto', 8, (shortcoming) => heard.push(shortcoming));
  await engine.close();
  assert.equal(engine.name, 'native' in loaded ? 'linux' : 'portable');
  assert.deepEqual(
    heard.map(({ fallback }) => fallback),
    'native' in loaded ? [] : ['engine'],
  );
});

test('auto without the native core is the portable engine, with the reason', async () => {
  const heard: Shortcoming[] = [];
  const engine = makeEngine('auto', 8, (shortcoming) => heard.push(shortcoming), 0, missing);
  await engine.close();
  assert.equal(engine.name, 'portable');
  assert.deepEqual(heard, [{ fallback: 'engine', text: 'the linux engine is not here: there is none' }]);
});

test('portable is portable, and nothing is missed', async () => {
  const engine = makeEngine('portable', 8, () => assert.fail('a notice'));
  await engine.close();
  assert.equal(engine.name, 'portable');
});

test('linux by name is an error where it cannot run, and never a silent second best', () => {
  assert.throws(() => makeEngine('linux', 8, () => {}, 0, missing), { code: 'ENGINE' });
  assert.throws(() => refuseEngine('linux', 1, missing), {
    code: 'ENGINE',
    message: /: there is none; --engine portable/,
  });
  refuseEngine('auto', 1, missing);
  refuseEngine('portable', 1, missing);
});

test('several threads are the linux engine, or an error that says why not', () => {
  assert.throws(() => refuseEngine('auto', 3, missing), {
    code: 'ENGINE',
    message:
      /only the linux engine runs on 3 threads, and it cannot run here: there is none; use --threads 1/,
  });
  assert.throws(() => refuseEngine('linux', 3, missing), { code: 'ENGINE', message: /there is none/ });
  for (const found of [missing, loaded]) {
    assert.throws(() => refuseEngine('portable', 2, found), {
      code: 'ENGINE',
      message: /runs on one thread, and 2 are asked for/,
    });
  }
  refuseEngine('portable', 1, missing);
});
