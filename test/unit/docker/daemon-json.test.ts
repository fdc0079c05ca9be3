/** One key of dockerd's file is changed, and nothing else of it. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { difference, withoutProxyPath, withProxyPath } from '../../../src/docker/daemon-json.ts';

const program = '/opt/dual port/docker-proxy';
const pair = '"userland-proxy-path": "/opt/dual port/docker-proxy"';
const put = (text: string) => withProxyPath('daemon.json', text, program);
const take = (text: string) => withoutProxyPath('daemon.json', text);

for (const { what, text, result } of [
  { what: 'no file', text: '', result: `{\n  ${pair}\n}\n` },
  { what: 'an empty object', text: '{}', result: `{\n  ${pair}\n}\n` },
  { what: 'an empty object over lines', text: '{\n}\n', result: `{\n  ${pair}\n}\n` },
  {
    what: 'two blanks',
    text: '{\n  "log-driver": "journald",\n  "dns": ["10.0.0.1"]\n}\n',
    result: `{\n  ${pair},\n  "log-driver": "journald",\n  "dns": ["10.0.0.1"]\n}\n`,
  },
  {
    what: 'tabs, and an odd form',
    text: '{\n\t"dns" : [ "10.0.0.1" ,\n"10.0.0.2"],\n\n\t"mtu": 1400 }',
    result: `{\n\t${pair},\n\t"dns" : [ "10.0.0.1" ,\n"10.0.0.2"],\n\n\t"mtu": 1400 }`,
  },
  { what: 'one line', text: '{"mtu": 1400}', result: `{${pair}, "mtu": 1400}` },
  { what: 'one line with blanks', text: '{ "mtu": 1400 }\n', result: `{${pair}, "mtu": 1400 }\n` },
]) {
  test(`${what}: the key comes in, and the rest stays as it was written`, () =>
    assert.equal(put(text), result));
}

test('another path is replaced where it stands', () => {
  const text = '{\n  "mtu": 1400,\n  "userland-proxy-path" : "/old\\"one",\n  "ipv6": true\n}\n';
  assert.equal(put(text), `{\n  "mtu": 1400,\n  ${pair},\n  "ipv6": true\n}\n`);
});

test('what is there already is left as it is', () => {
  const text = `{ ${pair.replace(': ', '   :\n')} }`;
  assert.equal(put(text), text);
});

for (const { what, text, result } of [
  { what: 'first', text: `{\n  ${pair},\n  "mtu": 1400\n}\n`, result: '{\n  "mtu": 1400\n}\n' },
  { what: 'last', text: `{\n  "mtu": 1400,\n  ${pair}\n}\n`, result: '{\n  "mtu": 1400\n}\n' },
  { what: 'in the middle', text: `{"a": 1, ${pair}, "b": 2}`, result: '{"a": 1, "b": 2}' },
  { what: 'alone', text: `{\n  ${pair}\n}\n`, result: '{\n}\n' },
  { what: 'not there', text: '{"a": 1}', result: '{"a": 1}' },
]) {
  test(`the key is taken out: ${what}`, () => assert.equal(take(text), result));
}

test('a key of that name further down, or in a text, is not mistaken for it', () => {
  const text =
    '{\n  "nested": { "userland-proxy-path": "/not/this" },\n  "userland-proxy-path": "/but/this"\n}\n';
  assert.deepEqual(JSON.parse(put(text)), {
    nested: { 'userland-proxy-path': '/not/this' },
    'userland-proxy-path': program,
  });
  assert.deepEqual(JSON.parse(take(text)), { nested: { 'userland-proxy-path': '/not/this' } });
});

test('whatever is in the file: all but the key stays, and taking it out undoes putting it in', () => {
  const indent = fc.constantFrom(undefined, 1, 2, 4, '\t');
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), indent, (config, space) => {
      delete config['userland-proxy-path'];
      const text = JSON.stringify(config, undefined, space);
      const installed = put(text);
      assert.deepEqual(JSON.parse(installed), { ...JSON.parse(text), 'userland-proxy-path': program });
      assert.deepEqual(JSON.parse(take(installed)), JSON.parse(text));
      assert.equal(put(installed), installed);
    }),
  );
});

for (const text of ['{', '[]', '"text"', '7', 'null', '{"a": 1,}', '// a comment\n{}', '{"a": 1} more']) {
  test(`${JSON.stringify(text)} is refused as it is`, () => {
    const refusal = {
      code: 'DAEMON_JSON',
      message: /^daemon\.json: (it is not valid JSON|found no object).*; nothing was changed$/,
    };
    assert.throws(() => put(text), refusal);
    assert.throws(() => take(text), refusal);
  });
}

test('the difference shows what is changed, and two lines around it', () => {
  const before = '{\n  "a": 1,\n  "b": 2,\n  "c": 3,\n  "d": 4\n}\n';
  assert.deepEqual(difference(before, before.replace('"c": 3', '"c": 33')), [
    '    "a": 1,',
    '    "b": 2,',
    '-   "c": 3,',
    '+   "c": 33,',
    '    "d": 4',
    '  }',
  ]);
  assert.deepEqual(difference('', '{\n}\n'), ['+ {', '+ }']);
  assert.deepEqual(difference('{}\n', '{}\n'), ['  {}']);
});
