import assert from 'node:assert/strict';
import test from 'node:test';
import { parseFile } from '../../../src/config/file.ts';
import { formatPortSpec } from '../../../src/config/port-spec.ts';
import { formatTarget } from '../../../src/config/target.ts';
import { DualportError, type ErrorCode } from '../../../src/errors.ts';
import { formatCidr } from '../../../src/net/cidr.ts';

function lines(...text: readonly string[]): string {
  return `${text.join('\n')}\n`;
}

/** Refuses the text with this code and a message that starts with these words. */
function refuses(code: ErrorCode, text: string, start: string): void {
  assert.throws(
    () => parseFile('d.yaml', text),
    (error) => {
      assert.ok(error instanceof DualportError, String(error));
      assert.equal(`${error.code} ${error.message.slice(0, start.length)}`, `${code} ${start}`);
      assert.equal(error.exitStatus, 78);
      return true;
    },
  );
}

function published(text: string): readonly string[] {
  return parseFile('d.yaml', text).entries.flatMap((entry) =>
    entry.published.flatMap(({ ports }) => ports.map(formatPortSpec)),
  );
}

test('a file gives the values it has and no others', () => {
  const file = parseFile(
    'd.yaml',
    lines(
      'engine: portable',
      'maxFlows: 1000',
      'drainTimeout: 2',
      'admin: ":9090"',
      'accessLog: yes',
      'defaults: { source: proxy-v2, idleTimeout: 1h }',
      'publish:',
      '  - ports: ["[::]:443:8443", "53:53/udp"]',
      '    to: [172.17.0.2, "fd00::2"]',
      '    allow: 2001:db8::/32, 10.0.0.0/8',
      '  - ports: 8080',
    ),
  );
  const { admin, ...process } = file.process;
  assert.deepEqual(process, { engine: 'portable', maxFlows: 1000, drainTimeout: 2000, accessLog: true });
  assert.equal(admin?.kind, 'tcp');
  assert.deepEqual(file.defaults, { source: 'proxy-v2', idleTimeout: 3_600_000 });
  const [first, second] = file.entries;
  assert.deepEqual(first?.values.to?.map(formatTarget), ['172.17.0.2', 'fd00::2']);
  assert.deepEqual(first?.values.allow?.map(formatCidr), ['2001:db8::/32', '10.0.0.0/8']);
  assert.deepEqual(Object.keys(first?.values ?? {}), ['to', 'allow']);
  assert.deepEqual(second?.values, {});
});

test('ports need no quotes, whatever YAML of another version makes of them', () => {
  assert.deepEqual(published('publish: [{ ports: 8080 }]'), ['8080/tcp']);
  assert.deepEqual(published('publish: [{ ports: 8080:80 }]'), ['8080:80/tcp']);
  assert.deepEqual(published('%YAML 1.1\n---\npublish: [{ ports: 22:22 }]'), ['22:22/tcp']);
  assert.deepEqual(published('publish: [{ ports: [080, 53:53/udp] }]'), ['80/tcp', '53:53/udp']);
  assert.deepEqual(published('publish: [{ ports: "80:80, 81:81" }]'), ['80:80/tcp', '81:81/tcp']);
});

test('each port of a list keeps its own place', () => {
  const [entry] = parseFile(
    'd.yaml',
    lines('publish:', '  - ports:', '      - 80:80', '      - 81:81'),
  ).entries;
  assert.deepEqual(
    entry?.published.map((item) => item.at.text),
    ['d.yaml:3:9: publish[0].ports[0]', 'd.yaml:4:9: publish[0].ports[1]'],
  );
});

test('an anchor can be used again, and an error shows where it is used', () => {
  const text = lines(
    'defaults: &d',
    '  to: 10.0.0.2',
    'publish:',
    '  - { ports: 80, to: &t [app] }',
    '  - ports: 81',
    '    to: *t',
  );
  assert.equal(parseFile('d.yaml', text).entries[1]?.values.to?.length, 1);
  refuses('CONFIG_VALUE', 'logLevel: &x loud', 'd.yaml:1:14: logLevel: found "loud"');
  const twice = lines('publish:', '  - { ports: 80, family: same, source: &bad [x] }');
  refuses(
    'CONFIG_VALUE',
    twice,
    'd.yaml:2:45: publish[0].source: found a list; allowed: none, proxy-v1, proxy-v2, transparent, pseudo',
  );
  const alias = lines('defaults:', '  to: &x 10.0.0.2', '  source: *x');
  refuses('CONFIG_VALUE', alias, 'd.yaml:3:11: defaults.source: found "10.0.0.2"; allowed: none,');
});

test('what an alias stands for is looked through on the way to a place', () => {
  const text = lines(
    'publish:',
    '  - &e',
    '    ports: 80',
    '    source: none',
    '  - *e',
    'defaults: { sorce: x }',
  );
  refuses('CONFIG_KEY', text, 'd.yaml:6:13: defaults.sorce: ');
  const inAlias = lines('publish:', '  - ports: &p [80:80, "81:81"]', '  - ports: *p');
  const [, second] = parseFile('d.yaml', inAlias).entries;
  assert.equal(second?.published[1]?.at.text, 'd.yaml:2:23: publish[1].ports[1]');
});

const wrongValues: Record<string, readonly [string, string]> = {
  'a word that is not allowed': [
    lines('# comment', 'defaults:', '  source: proxy'),
    'd.yaml:3:11: defaults.source: found "proxy"; allowed: none, proxy-v1, proxy-v2, transparent, pseudo; did you mean proxy-v1?',
  ],
  'a value that is missing': [
    lines('defaults:', '  idleTimeout:', '  source: none'),
    'd.yaml:2:15: defaults.idleTimeout: found nothing; allowed: 0 (off) or a duration from 10ms to 168h',
  ],
  'a list item that is wrong': [
    lines('publish:', '  - ports: 80', '    to:', '      - 10.0.0.2', '      - 10.0.0.3:80'),
    'd.yaml:5:9: publish[0].to[1]: "10.0.0.3:80" is not a host to connect to: write the host without a port',
  ],
  'a port outside the grammar': [
    lines('publish:', '  - ports: [80:80, "localhost:81:81"]'),
    'd.yaml:2:20: publish[0].ports[1]: "localhost:81:81" is not a port to publish',
  ],
  'a list of no ports': [
    lines('publish:', '  - ports: []'),
    'd.yaml:2:12: publish[0].ports: found nothing; allowed: at least one port',
  ],
  'an entry without ports': [
    lines('publish:', '  - to: 10.0.0.2'),
    'd.yaml:2:5: publish[0]: found no key ports; allowed: a mapping with the key ports',
  ],
  'an entry that is a text': [
    lines('publish:', '  - 8080:80'),
    'd.yaml:2:5: publish[0]: found "8080:80"; allowed: a mapping with the key ports, as in - ports: "8080:80"',
  ],
  'an entry that is a list': [
    lines('publish:', '  - [80]'),
    'd.yaml:2:5: publish[0]: found a list; allowed: a mapping with the key ports',
  ],
  'a mapping in place of a list of entries': [
    lines('publish:', '  ports: 80'),
    'd.yaml:2:3: publish: found a mapping; allowed: a list of entries, each with ports',
  ],
  'a list in place of a text': [
    'logLevel: [info]',
    'd.yaml:1:11: logLevel: found a list; allowed: error, warn, info, debug',
  ],
  'a mapping in place of a list item': [
    lines('defaults:', '  to: [app, {host: app}]'),
    'd.yaml:2:13: defaults.to[1]: found a mapping; allowed: an IP address',
  ],
  'a mapping in place of a list': [
    lines('defaults:', '  to: {host: app}'),
    'd.yaml:2:7: defaults.to: found a mapping; allowed: an IP address',
  ],
  'defaults that are a list': [
    'defaults: [source]',
    'd.yaml:1:11: defaults: found a list; allowed: a mapping of rule options',
  ],
  'defaults that are empty': [
    'defaults:\n',
    'd.yaml:1:10: defaults: found nothing; allowed: a mapping of rule options',
  ],
  'a file that is a list': [
    '- ports: 80',
    'd.yaml:1:1: found a list; allowed: a mapping with the keys publish',
  ],
  'a file that is a text': ['hello', 'd.yaml:1:1: found "hello"; allowed: a mapping with the keys publish'],
  'a number in a form YAML has and dualport has not': [
    'maxFlows: 1_000',
    'd.yaml:1:11: maxFlows: found "1_000"; allowed: a whole number from 1',
  ],
};

for (const [what, [text, start]] of Object.entries(wrongValues)) {
  test(`${what} is refused at its place`, () => refuses('CONFIG_VALUE', text, start));
}

const wrongKeys: Record<string, readonly [string, string]> = {
  'a misspelt key of the process': [
    lines('engine: auto', 'logLevl: info'),
    'd.yaml:2:1: logLevl: found an unknown key; did you mean logLevel?; allowed: publish, defaults, docker, ',
  ],
  'a flag as a key': [
    lines('defaults:', '  connect-timeout: 5s'),
    'd.yaml:2:3: defaults.connect-timeout: found an unknown key; did you mean connectTimeout?; allowed: to,',
  ],
  'a misspelt key of an entry': [
    lines('publish:', '  - port: 80:80', '    ports: 81'),
    'd.yaml:2:5: publish[0].port: found an unknown key; did you mean ports?; allowed: ports, to,',
  ],
  'a rule option at the top': [
    'source: none',
    'd.yaml:1:1: source: found an unknown key; write it under defaults, or in an entry of publish; allowed: publish,',
  ],
  'a process option in an entry': [
    lines('publish:', '  - ports: 80', '    engine: auto'),
    'd.yaml:3:5: publish[0].engine: found an unknown key; write it at the top of the file; allowed: ports,',
  ],
  'the name of the file in the file': [
    'config: x.yaml',
    'd.yaml:1:1: config: found an unknown key; only --config and DUALPORT_CONFIG name the file; allowed: ',
  ],
  'a key like nothing else': ['listen: 80', 'd.yaml:1:1: listen: found an unknown key; allowed: publish,'],
  'a key that is no word': ['"a b": 1', 'd.yaml:1:1: "a b": found an unknown key; allowed: publish,'],
  'a merge key, which YAML 1.2 has not': [
    lines('publish:', '  - <<: {source: none}', '    ports: 80'),
    'd.yaml:2:5: publish[0]."<<": found an unknown key; allowed: ports,',
  ],
  'the prototype of all objects': [
    '__proto__: {engine: auto}',
    'd.yaml:1:1: __proto__: found an unknown key; allowed: publish,',
  ],
  'a key of all objects': [
    lines('defaults:', '  constructor: x'),
    'd.yaml:2:3: defaults.constructor: found an unknown key; allowed: to,',
  ],
  'toString in an entry': [
    lines('publish:', '  - ports: 80', '    toString: x'),
    'd.yaml:3:5: publish[0].toString: found an unknown key',
  ],
};

for (const [what, [text, start]] of Object.entries(wrongKeys)) {
  test(`${what} is refused as a key, with the nearest`, () => refuses('CONFIG_KEY', text, start));
}

test('a refused __proto__ has changed nothing', () => {
  refuses(
    'CONFIG_KEY',
    lines('publish:', '  - ports: 80', '    __proto__: {to: x}'),
    'd.yaml:3:5: publish[0].__proto__',
  );
  assert.equal(Object.hasOwn(Object.prototype, 'to'), false);
});

const wrongSyntax: Record<string, readonly [string, string]> = {
  'a key that is there twice': [
    lines('engine: auto', 'engine: auto'),
    'd.yaml:2:1: this is not the YAML dualport reads: the key "engine" stands twice in one mapping',
  ],
  'a key that is there twice, between brackets': [lines('defaults: { to: a, "to": b }'), 'd.yaml:1:20: '],
  'an open bracket': [lines('publish:', '  - ports: [80'), 'd.yaml:3:1: '],
  'a tab as indentation': [lines('publish:', '\t- ports: 80'), 'd.yaml:2:1: '],
  'a second document': [
    lines('engine: auto', '---', 'engine: auto'),
    'd.yaml:2:1: this is not the YAML dualport reads: a second document begins here, and one is allowed; put everything',
  ],
  'a key that is no text': [lines('? [a]', ': b'), 'd.yaml:1:3: '],
  'a tag of a program': ['engine: !js x', 'd.yaml:1:9: '],
  'an alias of nothing': [lines('defaults: &d', '  to: *d2', 'engine: *d'), 'd.yaml:2:7: '],
};

for (const [what, [text, start]] of Object.entries(wrongSyntax)) {
  test(`${what} is refused as YAML, at its line and column`, () => refuses('CONFIG_SYNTAX', text, start));
}

test('a document that multiplies itself is refused', () => {
  const levels = ['a: &l0 [x, x]'];
  for (let i = 1; i < 12; i++)
    levels.push(
      `a${i}: &l${i} [${Array(9)
        .fill(`*l${i - 1}`)
        .join(', ')}]`,
    );
  refuses(
    'CONFIG_SYNTAX',
    lines(...levels),
    'd.yaml:1:1: this is not the YAML dualport reads: Excessive alias count',
  );
});

/** Half of what a file may have; a reload keeps everybody waiting meanwhile. Compared one by one it takes minutes. */
const length = 512 * 1024;
const sensibleMs = 30_000;

test('a document of keys or aliases alone is refused in a sensible time', () => {
  const start = performance.now();
  let keys = '';
  for (let i = 0; keys.length < length - 20; i++) keys += `k${i}: x\n`;
  refuses('CONFIG_KEY', keys, 'd.yaml:1:1: k0: found an unknown key');
  const aliases = `x: &x a\npublish:\n${'- *x\n'.repeat(length / 5 - 10)}`;
  refuses(
    'CONFIG_SYNTAX',
    aliases,
    'd.yaml:1003:3: this is not the YAML dualport reads: found more than 1000',
  );
  const ms = performance.now() - start;
  assert.ok(ms < sensibleMs, `${Math.round(ms)} ms`);
});

test('no more ports are published than both protocols have', () => {
  const all = '1-65535:1-65535';
  assert.equal(published(`publish: [{ ports: ["${all}", "${all}/udp"] }]`).length, 131_070);
  const said = 'found more than 131070 up to here; allowed: 131070 in all';
  refuses(
    'CONFIG_VALUE',
    `publish: [{ ports: ["${all},${all}/udp,80"] }]`,
    `d.yaml:1:21: publish[0].ports[0]: ${said}`,
  );
  const entry = lines('  - &a', `    ports: ["${all}"]`);
  refuses(
    'CONFIG_VALUE',
    `publish:\n${entry}${'  - *a\n'.repeat(999)}`,
    `d.yaml:3:13: publish[2].ports[0]: ${said}`,
  );
});

test('a document too deep for the parser is refused before it is parsed', () => {
  const deep = 'd.yaml:1:1: this is not the YAML dualport reads: nested deeper than 100 levels';
  refuses('CONFIG_SYNTAX', '['.repeat(50_000), deep);
  refuses('CONFIG_SYNTAX', '- '.repeat(20_000), deep);
  refuses('CONFIG_SYNTAX', '{a: '.repeat(20_000), deep);
  refuses('CONFIG_SYNTAX', `a: 1\n${' '.repeat(101)}b: 1`, deep.replace('1:1', '2:1'));
});

test('many brackets side by side are not deep', () => {
  const ports = Array.from({ length: 500 }, (_, i) => `"[::1]:${i + 1}:80"`).join(', ');
  assert.equal(published(`publish: [{ ports: [${ports}] }]`).length, 500);
});

for (const text of ['', '\n', '# nothing\n', '---\n', '""']) {
  test(`${JSON.stringify(text)} is an empty file and is answered with an example`, () => {
    refuses(
      'CONFIG_FILE',
      text,
      'd.yaml: the configuration file is empty; give it at least one port:\npublish:\n',
    );
  });
}
