/** What a look-up leaves behind: nothing. What it finds is seen from outside, in test/e2e/names.test.ts. */
import assert from 'node:assert/strict';
import { createHook } from 'node:async_hooks';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { pino } from 'pino';
import { loadConfig } from '../../../src/config/load.ts';
import { Resolver } from '../../../src/service/resolver.ts';

for (const to of ['127.0.0.1', 'localhost']) {
  test(`a hundred changes of rules for ${to} in a row leave no timers, and nothing that Node would warn of`, async () => {
    const warnings: Error[] = [];
    const heed = (warning: Error) => warnings.push(warning);
    const timers = new Set<number>();
    const hook = createHook({
      init: (id, type) => void (type === 'Timeout' && timers.add(id)),
      destroy: (id) => void timers.delete(id),
    }).enable();
    process.on('warning', heed);
    const resolver = new Resolver(pino({ level: 'silent' }), () => {});
    const { rules } = loadConfig({ flags: { publish: ['8080:80'], to: [to] }, env: {} });
    for (let i = 0; i < 100; i++) {
      await resolver.follow(rules);
      resolver.retain([]);
    }
    await setImmediate();
    await setImmediate();
    hook.disable();
    resolver.close();
    process.off('warning', heed);
    assert.deepEqual(warnings, []);
    assert.ok(timers.size <= 1, `${timers.size} timers beside the one that looks again`);
  });
}
