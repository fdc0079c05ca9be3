/** docs/docker.md against the code it tells of. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { flagOf, optionKeys, options } from '../../../src/config/options.ts';
import { labelNames, longestValue, readLabels } from '../../../src/docker/labels.ts';
import { calls } from '../../../src/docker/trouble.ts';

const doc = readFileSync(new URL('../../../../docs/docker.md', import.meta.url), 'utf8');
const rows = [...doc.matchAll(/^\| `(io\.dualport\.[^`]+)` \| (.+?) \| `(.+?)` \|/gm)];

test('the table has every label there is, and no other', () => {
  assert.deepEqual(
    rows.map(([, label]) => label),
    labelNames,
  );
});

test('the examples of the table are taken', () => {
  for (const [, label = '', , example = ''] of rows) {
    const labels = { 'io.dualport.port.a.target': '80', [label.replace('<name>', 'a')]: example };
    assert.deepEqual(readLabels(new Map(Object.entries(labels)), 32).complaints, [], label);
  }
});

test('the example of a port with a name does what is said of it', () => {
  const [, yaml = ''] = /labels:\n((?: {6}io.*\n)+)/.exec(doc) ?? [];
  const labels = [...yaml.matchAll(/^ +(io\S+): "?([^"#\n]+?)"?(?: +#.*)?$/gm)].map(
    ([, key = '', value = '']) => [key, value] as const,
  );
  const { ports, complaints } = readLabels(new Map(labels), 32);
  assert.deepEqual(complaints, []);
  assert.deepEqual(
    ports.map(({ port, source }) => [port.hostPorts?.first, port.containerPort, source]),
    [
      [2525, 25, 'proxy-v2'],
      [5870, 587, undefined],
      [8080, 80, undefined],
    ],
  );
});

test('every option of Docker is mentioned, with the default it has', () => {
  for (const key of optionKeys.filter((one) => options[one].group === 'Docker'))
    assert.ok(doc.includes(flagOf(key)), key);
  assert.ok(doc.includes(`(${options.dockerMaxPorts.defaultText})`));
  assert.ok(doc.includes(`more\nthan ${longestValue} characters`));
});

test('a socket proxy with the pattern of the document lets the four calls through, and nothing else', () => {
  const [, pattern = ''] = /^GET (\^.+\$)$/m.exec(doc) ?? [];
  const passes = (path: string) => new RegExp(pattern).test(path);
  for (const call of calls) {
    for (const path of [call, `/v1.41${call}`, `/v1.50${call}?filters=%7B%7D`]) assert.ok(passes(path), path);
  }
  for (const path of [
    '/containers/abc/json',
    '/v1.41/containers/json/../abc/archive',
    '/containers/jsonx',
    '/networks/abc',
    '/v1.41/exec/events',
    '/versions',
    '/',
  ]) {
    assert.equal(passes(path), false, path);
  }
});
