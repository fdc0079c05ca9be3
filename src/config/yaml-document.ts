/**
 * YAML with the place of everything in it. All scalars stay text (YAML's failsafe schema): whether `8080` or
 * `yes` is right is for the option's own parser to say, the same one that reads flags and variables, and no
 * YAML version turns `22:22` into a number of minutes.
 */
import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  visit,
} from 'yaml';
import { DualportError, messageOf } from '../errors.ts';
import { unusable } from './file-text.ts';
import type { Place } from './place.ts';

/** From the top: keys of mappings and indexes of lists. */
export type Path = readonly (string | number)[];

export interface YamlDocument {
  /** Texts, lists and mappings. */
  readonly value: unknown;
  /** Where the value at a path that exists begins. */
  readonly placeOf: (path: Path) => Place;
  /** Where the key at the end of the path is. */
  readonly placeOfKey: (path: Path) => Place;
}

/** The parser recurses, and a stack that overflows inside it can take the process with it. */
const deepest = 100;

/** Enough for an anchor used in every entry by hand, too few for a document that multiplies itself. */
const mostAliases = 1000;

/**
 * @param name what errors call the file
 * @throws DualportError CONFIG_SYNTAX with line and column, CONFIG_FILE when there is nothing in it
 */
export function parseYaml(name: string, text: string): YamlDocument {
  refuseDepth(name, text);
  const lines = new LineCounter();
  const document = parseDocument(text, {
    schema: 'failsafe',
    // The parser compares each key with every one before it, which takes minutes for as many as a mebibyte has.
    uniqueKeys: false,
    stringKeys: true,
    prettyErrors: false,
    // At 'silent' the parser leaves a second document out without a word.
    logLevel: 'error',
    lineCounter: lines,
  });
  const problem = [...document.errors, ...document.warnings][0];
  if (problem !== undefined) {
    const why = problem.code === 'MULTIPLE_DOCS' ? secondDocument : problem.message;
    throw invalid(position(name, lines, problem.pos[0]), why);
  }
  refuseRepeated(name, lines, document);
  const value = resolved(name, lines, document);
  if (value === null || value === '') throw unusable(name, nothingInIt);
  const placeAt = (path: Path, node: Node | null | undefined): Place => ({
    origin: 'file',
    text: [position(name, lines, node?.range?.[0] ?? 0), formatPath(path)].filter(Boolean).join(': '),
  });
  return {
    value,
    placeOf: (path) => placeAt(path, locate(document, path).value),
    placeOfKey: (path) => placeAt(path, locate(document, path).key),
  };
}

const nothingInIt = `is empty; give it at least one port:\npublish:\n  - ports: "8080:80"`;

/** The parser's own words for it tell a programmer which function to call. */
const secondDocument =
  'a second document begins here, and one is allowed; put everything under one publish, without the line ---';

/** A bound from above that needs no parser: brackets, and what can open a block at the start of a line. */
function refuseDepth(name: string, text: string): void {
  let brackets = 0;
  for (const [i, line] of text.split('\n').entries()) {
    const start = /^[-?:\s]*/.exec(line)?.[0].length ?? 0;
    for (const character of line) brackets += depthChange[character] ?? 0;
    if (Math.max(start, brackets) > deepest) {
      throw invalid(`${name}:${i + 1}:1`, `nested deeper than ${deepest} levels`);
    }
  }
}

const depthChange: Record<string, number | undefined> = { '[': 1, '{': 1, ']': -1, '}': -1 };

/** Keys that stand twice in one mapping, and more aliases than are looked up in any sensible time. */
function refuseRepeated(name: string, lines: LineCounter, document: Document): void {
  const refuse = (node: Node, why: string) => {
    throw invalid(position(name, lines, node.range?.[0] ?? 0), why);
  };
  let aliases = 0;
  visit(document, {
    Alias: (_, alias) => {
      if (++aliases > mostAliases) refuse(alias, `found more than ${mostAliases} aliases`);
    },
    Map: (_, { items }) => {
      const known = new Set<unknown>();
      for (const { key } of items) {
        if (!isScalar(key)) continue;
        if (known.has(key.value))
          refuse(key, `the key ${JSON.stringify(key.value)} stands twice in one mapping`);
        known.add(key.value);
      }
    },
  });
}

function resolved(name: string, lines: LineCounter, document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: mostAliases });
  } catch (error) {
    throw invalid(position(name, lines, unresolvedAlias(document)), messageOf(error));
  }
}

/** The parser's error has no place. Too many aliases are nowhere in particular, which is the start. */
function unresolvedAlias(document: Document): number {
  let offset = 0;
  visit(document, {
    Alias: (_, alias) => {
      if (alias.resolve(document) !== undefined) return undefined;
      offset = alias.range?.[0] ?? 0;
      return visit.BREAK;
    },
  });
  return offset;
}

/** The last step is not looked through: an error shows the alias, not what it stands for. */
function locate(document: Document, path: Path): { key?: Node; value: Node | null | undefined } {
  let found: { key?: Node; value: Node | null | undefined } = { value: document.contents };
  for (const step of path) {
    const parent = isAlias(found.value) ? found.value.resolve(document) : found.value;
    if (isSeq<Node>(parent)) found = { value: parent.items[Number(step)] };
    else if (isMap<Node, Node>(parent)) {
      const pair = parent.items.find(({ key }) => isScalar(key) && key.value === step);
      found = pair === undefined ? found : { key: pair.key, value: pair.value };
    }
  }
  return found;
}

function position(name: string, lines: LineCounter, offset: number): string {
  const { line, col } = lines.linePos(offset);
  return `${name}:${line}:${col}`;
}

/** `publish[0].to`; a key that is no plain word is quoted. */
function formatPath(path: Path): string {
  return path.reduce<string>((text, step) => {
    if (typeof step === 'number') return `${text}[${step}]`;
    const key = /^[\w-]+$/.test(step) ? step : JSON.stringify(step);
    return text === '' ? key : `${text}.${key}`;
  }, '');
}

function invalid(where: string, why: string): DualportError {
  return new DualportError('CONFIG_SYNTAX', `${where}: this is not the YAML dualport reads: ${why}`);
}
