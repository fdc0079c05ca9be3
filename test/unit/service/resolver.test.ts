/** What a look-up leaves behind: nothing. What it finds is seen from outside, in test/e2e/names.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { pino } from 'pino';
import { loadConfig } from '../../../src/config/load.ts';
import { Resolver } from '../../../src/service/resolver.ts';

for (const to of ['127.0.0.1', 'localhost']) {
  test(`a hundred changes of rules for ${to} in a row pile nothing up that Node would warn of`, async () => {
    const warnings: Error[] = [];
    const heed = (warning: Error) => warnings.push(warning);
    process.on('warning', heed);
    const resolver = new Resolver(pino({ level: 'silent' }), () => {});
    const { rules } = loadConfig({ flags: { publish: ['8080:80'], to: [to] }, env: {} });
    for (let i = 0; i < 100; i++) {
      await resolver.follow(rules);
      resolver.retain([]);
    }
    resolver.close();
    await setImmediate();
    process.off('warning', heed);
    assert.deepEqual(warnings, []);
  });
}
