/**
 * The configuration file: which keys it may have, and their values with the places they were written at.
 * Process options stand at the top, rule options under `defaults` or in an entry of `publish`.
 */
import * as v from 'valibot';
import { DualportError } from '../errors.ts';
import { suggestion } from './nearest.ts';
import { tooMany } from './option-kinds.ts';
import {
  mostPorts,
  type OptionValues,
  options,
  processKeys,
  type RuleOptionValues,
  ruleKeys,
} from './options.ts';
import { notAllowed, type Place, refusedAt, type Written } from './place.ts';
import type { PublishedPort } from './port-spec.ts';
import { type Path, parseYaml, type YamlDocument } from './yaml-document.ts';

/** What a file says, and nothing it leaves out. */
export interface FileConfig {
  readonly process: Partial<OptionValues>;
  readonly defaults: Partial<RuleOptionValues>;
  readonly entries: readonly FileEntry[];
}

/** One entry of `publish`. */
export interface FileEntry {
  readonly published: readonly { readonly ports: readonly PublishedPort[]; readonly at: Place }[];
  readonly values: Partial<RuleOptionValues>;
}

/**
 * Reads the text of a configuration file.
 *
 * @param name what errors call the file
 * @throws DualportError CONFIG_SYNTAX, CONFIG_KEY or CONFIG_VALUE, each as `file:line:column: key: …`;
 *   CONFIG_FILE when the file is empty
 */
export function parseFile(name: string, text: string): FileConfig {
  const document = parseYaml(name, text);
  const result = v.safeParse(fileShape, document.value);
  // A mistyped key is also a missing one; what was written says more than what was not.
  if (!result.success) throw misshapen(document, result.issues.find(isUnknownKey) ?? result.issues[0]);
  const { defaults = {}, publish = [], ...process } = result.output;
  const room = { ports: mostPorts };
  return {
    process: readSection(document, [], processKeys, process),
    defaults: readSection(document, ['defaults'], ruleKeys, defaults),
    entries: publish.map((entry, i) => readEntry(document, ['publish', i], entry, room)),
  };
}

type Raw = string | readonly string[];

/** By a function of the input and not a union, so that an item that is no text is named by its own place. */
function rawShape(list: boolean, allowed: string): v.GenericSchema<unknown, Raw> {
  if (!list) return v.string(allowed);
  return v.lazy((input) => (Array.isArray(input) ? v.array(v.string(allowed)) : v.string(allowed)));
}

function optionShapes<K extends keyof typeof options>(keys: readonly K[]) {
  const shapes = keys.map((key) => {
    const { list, allowed } = options[key];
    return [key, v.optional(rawShape(list, allowed))];
  });
  return Object.fromEntries(shapes) as Record<K, v.OptionalSchema<v.GenericSchema<unknown, Raw>, undefined>>;
}

/** To valibot a list is an object with the keys 0, 1, 2…. */
function mapping<T>(shape: v.GenericSchema<unknown, T>, allowed: string): v.GenericSchema<unknown, T> {
  return v.lazy((input) => (Array.isArray(input) ? v.never(allowed) : shape));
}

const rulesAllowed = 'a mapping of rule options, such as to and source';
const entryAllowed = 'a mapping with the key ports, as in - ports: "8080:80"';
const entryShape = v.strictObject(
  { ports: rawShape(true, options.publish.allowed), ...optionShapes(ruleKeys) },
  entryAllowed,
);
const fileAllowed = 'a mapping with the keys publish, defaults and options of the process';
const fileShape = mapping(
  v.strictObject(
    {
      ...optionShapes(processKeys),
      defaults: v.optional(mapping(v.strictObject(optionShapes(ruleKeys), rulesAllowed), rulesAllowed)),
      publish: v.optional(v.array(mapping(entryShape, entryAllowed), 'a list of entries, each with ports')),
    },
    fileAllowed,
  ),
  fileAllowed,
);

function readSection<K extends keyof typeof options>(
  document: YamlDocument,
  path: Path,
  keys: readonly K[],
  section: Readonly<Partial<Record<K, Raw | undefined>>>,
): Partial<Pick<OptionValues, K>> {
  const values: Partial<Record<K, unknown>> = {};
  for (const key of keys) {
    const raw = section[key];
    if (raw === undefined) continue;
    const written = writtenAt(document, [...path, key], raw);
    values[key] = options[key].read(written, document.placeOf([...path, key]));
  }
  return values as Partial<Pick<OptionValues, K>>;
}

function readEntry(
  document: YamlDocument,
  path: Path,
  { ports, ...section }: v.InferOutput<typeof entryShape>,
  room: { ports: number },
): FileEntry {
  const written = writtenAt(document, [...path, 'ports'], ports);
  const { read } = options.publish;
  if (written.length === 0) read(written, document.placeOf([...path, 'ports']));
  return {
    published: written.map((item) => {
      const published = read([item], item.at);
      room.ports -= published.length;
      if (room.ports < 0) throw refusedAt(item.at, tooMany(mostPorts));
      return { ports: published, at: item.at };
    }),
    values: readSection(document, path, ruleKeys, section),
  };
}

function writtenAt(document: YamlDocument, path: Path, raw: Raw): readonly Written[] {
  if (typeof raw === 'string') return [{ text: raw, at: document.placeOf(path) }];
  return raw.map((text, i) => ({ text, at: document.placeOf([...path, i]) }));
}

function misshapen(document: YamlDocument, issue: v.BaseIssue<unknown>): DualportError {
  const path = (issue.path ?? []).map((item) => item.key as string | number);
  if (isUnknownKey(issue)) return unknownKey(document, path);
  // A key that is missing has no place; the mapping it is missing from has.
  if (isKeyIssue(issue))
    return refusedAt(document.placeOf(path.slice(0, -1)), missing(String(path.at(-1)), issue.message));
  return refusedAt(document.placeOf(path), wrongKind(issue.input, issue.message));
}

function isKeyIssue(issue: v.BaseIssue<unknown>): boolean {
  return issue.type === 'strict_object' && issue.path?.at(-1)?.origin === 'key';
}

function isUnknownKey(issue: v.BaseIssue<unknown>): boolean {
  return isKeyIssue(issue) && issue.expected === 'never';
}

function unknownKey(document: YamlDocument, path: Path): DualportError {
  const key = String(path.at(-1));
  const known: readonly string[] = knownKeys(path);
  const hint = misplaced(key, path) ?? suggestion(key, known);
  return new DualportError(
    'CONFIG_KEY',
    `${document.placeOfKey(path).text}: found an unknown key${hint}; allowed: ${known.join(', ')}`,
  );
}

function knownKeys(path: Path): readonly string[] {
  if (path.length === 1) return ['publish', 'defaults', ...processKeys];
  return path[0] === 'publish' ? ['ports', ...ruleKeys] : ruleKeys;
}

/** A key that is right, but not there. */
function misplaced(key: string, path: Path): string | undefined {
  if (key === 'config') return '; only --config and DUALPORT_CONFIG name the file';
  if (path.length === 1 && ruleKeys.some((known) => known === key)) {
    return '; write it under defaults, or in an entry of publish';
  }
  return processKeys.some((known) => known === key) ? '; write it at the top of the file' : undefined;
}

function missing(key: string, allowed: string): DualportError {
  return new DualportError('CONFIG_VALUE', `found no key ${key}; allowed: ${allowed}`);
}

function wrongKind(found: unknown, allowed: string): DualportError {
  if (typeof found === 'string') return notAllowed(found, allowed);
  const kind = Array.isArray(found) ? 'a list' : 'a mapping';
  return new DualportError('CONFIG_VALUE', `found ${kind}; allowed: ${allowed}`);
}
