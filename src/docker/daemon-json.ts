/**
 * dockerd's daemon.json as text: one key is put in, changed or taken out, and everything else stays as its owner wrote
 * it, to the blank. The result is parsed again; where the text is too unusual to be edited it is written anew.
 */
import { isDeepStrictEqual } from 'node:util';
import { DualportError, messageOf } from '../errors.ts';
import { recordOf } from './json.ts';

export const proxyPathKey = 'userland-proxy-path';

export type DaemonConfig = Readonly<Record<string, unknown>>;

/**
 * @param text of the file; empty when there is none, which is to dockerd as if it were `{}`
 * @throws DualportError DAEMON_JSON
 */
export function parseDaemonJson(path: string, text: string): DaemonConfig {
  if (text.trim() === '') return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw refused(
      path,
      `it is not valid JSON (${messageOf(error).replaceAll(/\s+/g, ' ')}); dockerd would not start with it: mend it first`,
    );
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw refused(path, 'found no object; allowed: { "key": value, ... }');
  }
  return recordOf(value);
}

/** The text with this path in it; the same text when it has it already. */
export function withProxyPath(path: string, text: string, program: string): string {
  const config = parseDaemonJson(path, text);
  if (config[proxyPathKey] === program) return text;
  const pair = `${JSON.stringify(proxyPathKey)}: ${JSON.stringify(program)}`;
  const wanted = { ...config, [proxyPathKey]: program };
  const edited = proxyPathKey in config ? text.replace(pairPattern, () => pair) : inserted(text, pair);
  return checked(edited, text, wanted);
}

/** The text without any such path. */
export function withoutProxyPath(path: string, text: string): string {
  const { [proxyPathKey]: program, ...wanted } = parseDaemonJson(path, text);
  if (program === undefined) return text;
  return checked(removed(text), text, wanted);
}

const pairPattern = new RegExp(`${JSON.stringify(proxyPathKey)}\\s*:\\s*"(?:[^"\\\\]|\\\\.)*"`);

/** In front of all others, on a line of its own where they have theirs. */
function inserted(text: string, pair: string): string {
  const [, start = '', between = '', next = ''] = /^(\s*\{)(\s*)([\s\S]?)/.exec(text) ?? [];
  if (start === '' || next === '}') return `{\n${indentOf(text)}${pair}\n}\n`;
  const gap = between.includes('\n') ? between : ' ';
  return `${start}${between.includes('\n') ? between : ''}${pair},${gap}${text.slice(start.length + between.length)}`;
}

/** With its comma: the one behind it, or for the last one the one before it. */
function removed(text: string): string {
  const source = pairPattern.source;
  const first = new RegExp(`${source}\\s*,\\s*`);
  return first.test(text) ? text.replace(first, '') : text.replace(new RegExp(`,?\\s*${source}`), '');
}

function checked(edited: string, text: string, wanted: object): string {
  try {
    if (isDeepStrictEqual(JSON.parse(edited), wanted)) return edited;
  } catch {
    // Written anew below.
  }
  return `${JSON.stringify(wanted, undefined, indentOf(text))}\n`;
}

function indentOf(text: string): string {
  return /^\s*\{\s*\n([ \t]+)/.exec(text)?.[1] ?? '  ';
}

/** The lines that differ, with up to two around them that do not. */
export function difference(before: string, afterwards: string): readonly string[] {
  const [old, fresh] = [linesOf(before), linesOf(afterwards)];
  const [shorter] = [old, fresh].sort((a, b) => a.length - b.length);
  const most = shorter?.length ?? 0;
  let head = 0;
  while (head < most && old[head] === fresh[head]) head++;
  let tail = 0;
  while (tail < most - head && old.at(-1 - tail) === fresh.at(-1 - tail)) tail++;
  const end = fresh.length - tail;
  return [
    ...fresh.slice(Math.max(0, head - 2), head).map((line) => `  ${line}`),
    ...old.slice(head, old.length - tail).map((line) => `- ${line}`),
    ...fresh.slice(head, end).map((line) => `+ ${line}`),
    ...fresh.slice(end, end + 2).map((line) => `  ${line}`),
  ];
}

function linesOf(text: string): readonly string[] {
  return text === '' ? [] : text.replace(/\n$/, '').split('\n');
}

export function refused(path: string, why: string): DualportError {
  return new DualportError('DAEMON_JSON', `${path}: ${why}; nothing was changed`);
}
