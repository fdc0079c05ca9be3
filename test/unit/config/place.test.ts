import assert from 'node:assert/strict';
import test from 'node:test';
import { notAllowed, parseAt } from '../../../src/config/place.ts';
import { DualportError } from '../../../src/errors.ts';

const refuse = (text: string) => {
  throw notAllowed(text, 'less');
};

test('a refusal from the file is a CONFIG_VALUE, with the first error as its cause', () => {
  const at = { origin: 'file', text: 'd.yaml:1:2: to' } as const;
  assert.throws(
    () => parseAt({ text: 'more', at }, refuse),
    (error) => {
      assert.ok(error instanceof DualportError && error.cause instanceof DualportError);
      assert.equal(error.code, 'CONFIG_VALUE');
      assert.equal(error.message, 'd.yaml:1:2: to: found "more"; allowed: less');
      assert.equal(error.cause.code, 'USAGE');
      return true;
    },
  );
});

test('a refusal from anywhere else keeps its code', () => {
  for (const origin of ['flag', 'environment'] as const) {
    assert.throws(() => parseAt({ text: '', at: { origin, text: 'X' } }, refuse), {
      code: 'USAGE',
      message: 'X: found nothing; allowed: less',
    });
  }
});

test('a fault in a parser is not passed off as a mistake of the user', () => {
  const fault = new TypeError('fault');
  const parse = () => {
    throw fault;
  };
  assert.throws(
    () => parseAt({ text: 'x', at: { origin: 'flag', text: '--x' } }, parse),
    (error) => error === fault,
  );
});
