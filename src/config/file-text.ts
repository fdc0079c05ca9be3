/**
 * The configuration file as text: what can go wrong between its name and its first character. What the text
 * means is yaml-document.ts and file.ts.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { DualportError, errnoOf, messageOf } from '../errors.ts';

/** Bytes; thousands of rules fit. */
const mostBytes = 1024 * 1024;

/** Reads a file; may throw a system error, and may stop one byte past what is allowed. */
export type ReadFile = (path: string) => Uint8Array;

/**
 * @param name what errors call the file: the path as it was written
 * @throws DualportError CONFIG_FILE
 */
export function readFileText(name: string, path: string, readFile: ReadFile = readStart): string {
  const bytes = readBytes(name, path, readFile);
  if (bytes.length > mostBytes) {
    throw unusable(name, 'is larger than 1 MiB; publish ranges of ports instead of many single ones');
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw unusable(name, 'is not UTF-8 text; save it as UTF-8', cause);
  }
}

/** A configuration that cannot be used as a whole. */
export function unusable(name: string, why: string, cause?: unknown): DualportError {
  return new DualportError('CONFIG_FILE', `${name}: the configuration file ${why}`, { cause });
}

function readBytes(name: string, path: string, readFile: ReadFile): Uint8Array {
  try {
    return readFile(path);
  } catch (cause) {
    throw unusable(name, advice[errnoOf(cause) ?? ''] ?? `cannot be read: ${messageOf(cause)}`, cause);
  }
}

const advice: Record<string, string | undefined> = {
  ENOENT: 'does not exist; check the path given by --config or DUALPORT_CONFIG, or the mount it is in',
  EACCES: 'may not be read by this user; change its owner or mode',
  EISDIR: 'is a directory; name the file in it',
};

/** Reads by pieces, not by the size: a pipe has none, and what is no file at all may never end. */
function readStart(path: string): Uint8Array {
  const buffer = new Uint8Array(mostBytes + 1);
  const fd = openSync(path, 'r');
  try {
    let length = 0;
    for (let read = -1; read !== 0 && length < buffer.length; length += read) {
      read = readSync(fd, buffer, length, buffer.length - length, null);
    }
    return buffer.subarray(0, length);
  } finally {
    closeSync(fd);
  }
}
