/**
 * The import law: which folder may know which. It holds the source to ARCHITECTURE.md by reading it; what
 * finds a violation is itself tested below, on sources that break the law.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { posix } from 'node:path';
import test from 'node:test';

/** From the ground up. A part imports from lower floors, and a folder from itself; its neighbours it never sees. */
const floors: readonly (readonly string[])[] = [
  ['errors', 'log'],
  ['net'],
  ['flow', 'proxy-protocol', 'config'],
  ['policy', 'engine', 'pseudo'],
  ['service', 'docker', 'transparent'],
  ['cli'],
  ['main'],
];

/** Values and decisions do not log. */
const loggers = ['engine', 'service', 'docker', 'transparent', 'cli', 'main'];

/** The one part that knows each package. */
const owners: Readonly<Record<string, string>> = {
  commander: 'cli',
  pino: 'log',
  'ip-address': 'net',
  'proxy-protocol-js': 'proxy-protocol',
  yaml: 'config',
  valibot: 'config',
  dockerode: 'docker',
};

/** Modules of Node that a part may use; parts that are not here may use any. */
const nodeModules: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  net: [],
  flow: [],
  'proxy-protocol': [],
  policy: [],
  // It reads one file.
  config: ['node:fs', 'node:path'],
  // It keeps a table on disk.
  pseudo: ['node:crypto', 'node:fs', 'node:fs/promises', 'node:path', 'node:timers/promises', 'node:zlib'],
};

const namelessNames = ['utils', 'util', 'helpers', 'helper', 'common', 'types', 'index'];

/** Texts by path below src/, such as `net/cidr.ts`. */
type Sources = ReadonlyMap<string, string>;

/** Every sentence says which file does what it must not. */
function violations(sources: Sources): readonly string[] {
  return [...sources].flatMap(([path, text]) => {
    const code = withoutComments(text);
    return [...badImports(path, code), ...badName(path), ...badContent(path, code)].map(
      (what) => `${path} ${what}`,
    );
  });
}

/** `net/cidr.ts` is of the part `net`, `log.ts` of `log`. */
function partOf(path: string): string {
  return path.split('/')[0]?.replace(/\.ts$/, '') ?? '';
}

function floorOf(part: string): number {
  return floors.findIndex((parts) => parts.includes(part));
}

/** Comments on lines of their own: code may be quoted there. */
function withoutComments(text: string): string {
  return text.replace(/^\s*\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
}

function importsOf(code: string): readonly string[] {
  const written = /^(?:import|export|\})[^'"\n]*?from\s*['"]([^'"]+)|^import\s*['"]([^'"]+)/gm;
  const called = /\b(?:import|require)\(\s*['"]([^'"]+)/g;
  return [...code.matchAll(written), ...code.matchAll(called)].map(([, a, b]) => a ?? b ?? '');
}

function badImports(path: string, code: string): readonly string[] {
  const part = partOf(path);
  if (floorOf(part) < 0) return [`is in no part that has a floor`];
  return importsOf(code).flatMap((specifier) => {
    if (specifier.startsWith('.')) return badNeighbour(part, posix.join(posix.dirname(path), specifier));
    return isBuiltin(specifier) ? badBuiltin(part, specifier) : badPackage(part, specifier);
  });
}

function badNeighbour(part: string, target: string): readonly string[] {
  const other = partOf(target);
  if (other === part || other === 'errors') return [];
  if (floorOf(other) < 0) return [`imports ${target}, which has no floor`];
  if (other === 'log' && !loggers.includes(part)) return ['imports log.ts, and does not log'];
  return floorOf(other) < floorOf(part) ? [] : [`imports ${target}, which is not below it`];
}

function badBuiltin(part: string, specifier: string): readonly string[] {
  const allowed = nodeModules[part];
  return allowed === undefined || allowed.includes(specifier)
    ? []
    : [`imports ${specifier}, and does no I/O`];
}

function badPackage(part: string, specifier: string): readonly string[] {
  const name = specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
  return owners[name] === part ? [] : [`imports ${name}, which belongs to ${owners[name] ?? 'nobody'}`];
}

function badName(path: string): readonly string[] {
  const words = path.replace(/\.ts$/, '').split('/');
  if (words.some((word) => namelessNames.includes(word))) return ['has a name that says nothing'];
  return words.every((word) => /^[a-z0-9]+(?:-[a-z0-9]+)*$/.test(word)) ? [] : ['is not named in kebab-case'];
}

function badContent(path: string, code: string): readonly string[] {
  const isMain = path === 'main.ts';
  return [
    ...(/^export default\b|\bas default\b/m.test(code) ? ['has a default export'] : []),
    ...(!isMain && /\bprocess\.(?:exit|reallyExit|abort)\b/.test(code) ? ['ends the process'] : []),
  ];
}

const root = new URL('../../../', import.meta.url);

function readSources(): Sources {
  const src = new URL('src/', root);
  const paths = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((path) =>
    path.endsWith('.ts'),
  );
  return new Map(paths.sort().map((path) => [path, readFileSync(new URL(path, src), 'utf8')]));
}

test('the sources keep the law', () => {
  const sources = readSources();
  assert.ok(sources.has('main.ts') && sources.has('net/address.ts'));
  assert.deepEqual(violations(sources), []);
});

test('every import of the sources is one the law has seen', () => {
  for (const [path, text] of readSources()) {
    const froms = withoutComments(text).match(/\bfrom '[^']+';$/gm) ?? [];
    assert.ok(importsOf(withoutComments(text)).length >= froms.length, path);
  }
});

test('ARCHITECTURE.md has a word for every file of the core in C, and for none that is not there', () => {
  const root = new URL('../../../', import.meta.url);
  const text = readFileSync(new URL('ARCHITECTURE.md', root), 'utf8');
  const [, section = ''] = /^## The core in C\n([\s\S]*?)^## /m.exec(text) ?? [];
  const named = [...section.matchAll(/`([\w-]+\.c)`/g)].map(([, name = '']) => name);
  const there = readdirSync(new URL('native', root)).filter((name) => name.endsWith('.c'));
  assert.deepEqual([...new Set(named)].sort(), there.sort());
});

test('every package the program depends on has its owner', () => {
  const { dependencies } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'));
  for (const name of Object.keys(dependencies)) assert.ok(Object.hasOwn(owners, name), name);
});

/** What may be written where. */
const lawful: readonly (readonly [path: string, text: string])[] = [
  ['net/cidr.ts', "import { DualportError } from '../errors.ts';\nimport { isIpv4 } from './address.ts';\n"],
  ['log.ts', "import { pino } from 'pino';\nimport { messageOf } from './errors.ts';\n"],
  ['policy/route.ts', "import type { Rule } from '../config/rules.ts';\n"],
  [
    'engine/portable/relay.ts',
    "import type { Socket } from 'node:net';\nimport { count } from '../../flow/counters.ts';\n",
  ],
  ['engine/linux/core.ts', "import { makeLog } from '../../log.ts';\n"],
  [
    'service/service.ts',
    "import { a } from '../engine/engine.ts';\nimport { b } from '../policy/decide.ts';\n",
  ],
  ['pseudo/table.ts', "import { createHmac } from 'node:crypto';\nimport { x } from '../net/cidr.ts';\n"],
  ['config/load.ts', "import { resolve } from 'node:path';\nimport * as v from 'valibot';\n"],
  [
    'transparent/setup.ts',
    "import type { Log } from '../log.ts';\nimport { a } from '../engine/engine.ts';\n",
  ],
  ['docker/watcher.ts', "const { default: Docker } = await import('dockerode');\n"],
  [
    'main.ts',
    "import { run } from './cli/program.ts';\nimport { makeLog } from './log.ts';\nprocess.exit(0);\n",
  ],
  ['net/a.ts', "/**\n * import { x } from '../main.ts';\n * process.exit(1)\n */\n// export default 1\n"],
  ['cli/a.ts', 'process.exitCode = 1;\n'],
];
for (const [path, text] of lawful) {
  test(`${path} may have ${JSON.stringify(text.slice(0, 70))}`, () => {
    assert.deepEqual(violations(new Map([[path, text]])), []);
  });
}

/** What may not, and what is said of it. */
const unlawful: readonly (readonly [path: string, text: string, what: string])[] = [
  ['net/a.ts', "import { x } from '../config/rules.ts';\n", 'imports config/rules.ts, which is not below it'],
  ['net/a.ts', "import type { X } from '../flow/flow.ts';\n", 'imports flow/flow.ts, which is not below it'],
  ['errors.ts', "import { x } from './net/address.ts';\n", 'imports net/address.ts, which is not below it'],
  [
    'flow/a.ts',
    "import type { X } from '../config/rules.ts';\n",
    'imports config/rules.ts, which is not below it',
  ],
  [
    'flow/a.ts',
    "import { x } from '../proxy-protocol/v1.ts';\n",
    'imports proxy-protocol/v1.ts, which is not below it',
  ],
  [
    'proxy-protocol/a.ts',
    "export { x } from '../flow/flow.ts';\n",
    'imports flow/flow.ts, which is not below it',
  ],
  ['proxy-protocol/a.ts', "import '../config/load.ts';\n", 'imports config/load.ts, which is not below it'],
  [
    'config/a.ts',
    "import {\n  x,\n  y,\n} from '../flow/flow.ts';\n",
    'imports flow/flow.ts, which is not below it',
  ],
  [
    'config/a.ts',
    'import { x } from "../proxy-protocol/v1.ts";\n',
    'imports proxy-protocol/v1.ts, which is not below it',
  ],
  [
    'policy/a.ts',
    "import { x } from '../engine/race.ts';\n",
    'imports engine/race.ts, which is not below it',
  ],
  [
    'engine/a.ts',
    "import { x } from '../policy/decide.ts';\n",
    'imports policy/decide.ts, which is not below it',
  ],
  [
    'engine/portable/a.ts',
    "type X = import('../../policy/route.ts').X;\n",
    'imports policy/route.ts, which is not below it',
  ],
  [
    'policy/a.ts',
    "import { x } from '../pseudo/table.ts';\n",
    'imports pseudo/table.ts, which is not below it',
  ],
  [
    'pseudo/a.ts',
    "import { x } from '../policy/route.ts';\n",
    'imports policy/route.ts, which is not below it',
  ],
  ['pseudo/a.ts', "import { x } from '../log.ts';\n", 'imports log.ts, and does not log'],
  ['pseudo/a.ts', "import { lookup } from 'node:dns';\n", 'imports node:dns, and does no I/O'],
  [
    'service/a.ts',
    "import { x } from '../docker/watcher.ts';\n",
    'imports docker/watcher.ts, which is not below it',
  ],
  [
    'docker/a.ts',
    "import { x } from '../service/service.ts';\n",
    'imports service/service.ts, which is not below it',
  ],
  [
    'docker/a.ts',
    "const x = await import('../cli/serve.ts');\n",
    'imports cli/serve.ts, which is not below it',
  ],
  [
    'transparent/a.ts',
    "import { x } from '../service/service.ts';\n",
    'imports service/service.ts, which is not below it',
  ],
  [
    'service/a.ts',
    "import { x } from '../transparent/setup.ts';\n",
    'imports transparent/setup.ts, which is not below it',
  ],
  ['cli/a.ts', "import { x } from '../main.ts';\n", 'imports main.ts, which is not below it'],
  ['cli/a.ts', "import { x } from '../../test/a.ts';\n", 'imports ../test/a.ts, which has no floor'],
  ['extra/a.ts', 'export {};\n', 'is in no part that has a floor'],
  ['net/a.ts', "import { x } from '../log.ts';\n", 'imports log.ts, and does not log'],
  ['policy/a.ts', "import type { Log } from '../log.ts';\n", 'imports log.ts, and does not log'],
  ['config/a.ts', "import { x } from '../log.ts';\n", 'imports log.ts, and does not log'],
  ['service/a.ts', "import { Command } from 'commander';\n", 'imports commander, which belongs to cli'],
  ['cli/a.ts', "import { pino } from 'pino';\n", 'imports pino, which belongs to log'],
  ['config/a.ts', "import { Address6 } from 'ip-address';\n", 'imports ip-address, which belongs to net'],
  [
    'engine/a.ts',
    "import { x } from 'proxy-protocol-js';\n",
    'imports proxy-protocol-js, which belongs to proxy-protocol',
  ],
  ['docker/a.ts', "import { parse } from 'yaml';\n", 'imports yaml, which belongs to config'],
  ['cli/a.ts', "import * as v from 'valibot';\n", 'imports valibot, which belongs to config'],
  [
    'service/a.ts',
    "const x = require('dockerode/lib/docker');\n",
    'imports dockerode, which belongs to docker',
  ],
  ['net/a.ts', "import x from '@scope/name/deep';\n", 'imports @scope/name, which belongs to nobody'],
  ['net/a.ts', "import { isIP } from 'node:net';\n", 'imports node:net, and does no I/O'],
  ['flow/a.ts', "import { readFileSync } from 'fs';\n", 'imports fs, and does no I/O'],
  [
    'policy/a.ts',
    "import { lookup } from 'node:dns/promises';\n",
    'imports node:dns/promises, and does no I/O',
  ],
  [
    'proxy-protocol/a.ts',
    "import { randomUUID } from 'node:crypto';\n",
    'imports node:crypto, and does no I/O',
  ],
  ['config/a.ts', "import { connect } from 'node:net';\n", 'imports node:net, and does no I/O'],
  ['cli/a.ts', 'if (x) process.exit(1);\n', 'ends the process'],
  ['engine/a.ts', 'process.abort();\n', 'ends the process'],
  ['net/a.ts', 'export default function () {}\n', 'has a default export'],
  ['net/a.ts', 'export { x as default };\n', 'has a default export'],
  ['net/fooBar.ts', '', 'is not named in kebab-case'],
  ['net/Foo.ts', '', 'is not named in kebab-case'],
  ['net/foo_bar.ts', '', 'is not named in kebab-case'],
  ...namelessNames.map((name) => [`net/${name}.ts`, '', 'has a name that says nothing'] as const),
  ['engine/common/a.ts', '', 'has a name that says nothing'],
];
for (const [path, text, what] of unlawful) {
  const shown = text === '' ? 'be there' : `have ${JSON.stringify(text.slice(0, 70))}`;
  test(`${path} may not ${shown}`, () => {
    assert.deepEqual(violations(new Map([[path, text]])), [`${path} ${what}`]);
  });
}
