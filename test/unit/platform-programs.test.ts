/** What is relied on of the kernel has a program in native/platform, and the comment that relies on it names it. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));

function files(folder: string, ending: RegExp): readonly string[] {
  const names = readdirSync(join(root, folder)).filter((name) => ending.test(name));
  return names.map((name) => join(folder, name));
}

const programs = files('native/platform', /\.c$/).map((path) => path.replace('native/', ''));
const sources = [...files('native', /\.[ch]$/), ...files('src/engine/linux', /\.ts$/)];

function comments(path: string): string {
  return (readFileSync(join(root, path), 'utf8').match(/\/\*[\s\S]*?\*\/|\/\/.*/g) ?? []).join('\n');
}

/** By file, as `platform/NAME.c`. */
const named = new Map(
  sources.map((path) => {
    const found = comments(path).matchAll(/\bplatform\/[\w-]+(?:\.\w+)?/g);
    return [path, [...found].map(([name]) => name)] as const;
  }),
);

test('there are programs, and comments that name them', () => {
  assert.ok(programs.length >= 8 && [...named.values()].flat().length >= 8);
});

for (const program of programs) {
  test(`${program} is named by a comment of what relies on it`, () => {
    const who = [...named].filter(([, names]) => names.includes(program)).map(([path]) => path);
    assert.notDeepEqual(who, [], 'a program that nobody relies on is to be removed');
  });
}

for (const [path, names] of named) {
  if (names.length === 0) continue;
  test(`${path} names programs that there are`, () => {
    assert.deepEqual(
      names.filter((name) => !programs.includes(name)),
      [],
    );
  });
}
