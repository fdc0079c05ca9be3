import assert from 'node:assert/strict';
import test from 'node:test';
import { nearest, suggestion } from '../../../src/config/nearest.ts';

const known = ['to', 'source', 'connectTimeout', 'idleTimeout', 'udpTimeout', 'deny'];

test('the word with the fewest edits is the nearest', () => {
  assert.equal(nearest('sorce', known), 'source');
  assert.equal(nearest('udlTimeout', known), 'udpTimeout');
  assert.equal(nearest('denny', known), 'deny');
});

test('case, dashes and underscores are no edits', () => {
  assert.equal(nearest('CONNECT-TIMEOUT', known), 'connectTimeout');
  assert.equal(nearest('idle_timeout', known), 'idleTimeout');
});

test('a word that is far from all has no nearest', () => {
  assert.equal(nearest('listen', known), undefined);
  assert.equal(nearest('x'.repeat(100_000), known), undefined);
  assert.equal(nearest('anything', []), undefined);
  assert.equal(nearest('<<', known), undefined);
  assert.equal(nearest('', known), undefined);
});

test('a suggestion is a question, or nothing', () => {
  assert.equal(suggestion('sorce', known), '; did you mean source?');
  assert.equal(suggestion('listen', known), '');
});
