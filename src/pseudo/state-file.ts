/**
 * The table and its secret on disk, in one directory:
 *
 *   pseudo.key     the secret of the hash: whoever knows it can find out whom an address stands for
 *   pseudo.table   a line of 64 bytes for each client, the last one of a client counts:
 *
 *     f01c2b3a 20010db8000100020000000000000000/064 68f0a1b2 1a2b3c4d
 *     address  network                         bits seconds  CRC-32 of what stands before it
 *
 * New lines are appended, so that a client costs 64 bytes once; what has been overtaken goes when the file is
 * written anew, beside it and then renamed. A line that was cut off by a crash is left out; one that is damaged
 * is left out too, and the file it was in is kept. Two processes may share the directory: they have the same secret,
 * so they agree on all but the few addresses for which two clients compete.
 */
import { randomBytes } from 'node:crypto';
import {
  accessSync,
  constants,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { errnoOf } from '../errors.ts';
import type { SavedEntry } from './table.ts';

export interface SavedTable {
  /** In the order of the file. */
  readonly entries: readonly SavedEntry[];
  /** Lines that are not what was written; the last one, if it was cut off, is none of them. */
  readonly damaged: number;
  /** The file is as it should be: lines can be appended to it. */
  readonly isWhole: boolean;
}

const keyBytes = 32;
/** Lines that are gone through without a pause for anybody else. */
const linesAtOnce = 1024;
const keyName = 'pseudo.key';
const tableName = 'pseudo.table';
/** Which clients there were is nobody else's business. */
const mode = 0o600;

const shape = /^([0-9a-f]{8}) ([0-9a-f]{32})\/(\d{3}) ([0-9a-f]{8}) ([0-9a-f]{8})$/;

export function tablePath(directory: string): string {
  return join(directory, tableName);
}

export function formatLine({ number, key, bits, usedS }: SavedEntry): string {
  const network = Buffer.from(key, 'latin1').toString('hex');
  const said = `${hex(number)} ${network}/${String(bits).padStart(3, '0')} ${hex(usedS)}`;
  return `${said} ${hex(crc32(said))}\n`;
}

function parseLine(line: string): SavedEntry | undefined {
  const [, number = '', network = '', bits = '', usedS = '', crc = ''] = shape.exec(line) ?? [];
  if (crc === '' || crc32(line.slice(0, -9)) !== Number.parseInt(crc, 16)) return undefined;
  return {
    key: Buffer.from(network, 'hex').toString('latin1'),
    bits: Number(bits),
    number: Number.parseInt(number, 16),
    usedS: Number.parseInt(usedS, 16),
  };
}

/** An empty table where there is no file; throws the system's error when it cannot be read. */
export function readTable(directory: string): SavedTable {
  const text = readIfThere(tablePath(directory))?.toString('latin1') ?? '';
  const lines = text.split('\n');
  const rest = lines.pop();
  // A write that failed is followed by an empty line, so that it spoils no other.
  const parsed = lines.filter((line) => line !== '').map(parseLine);
  const entries = parsed.filter((entry) => entry !== undefined);
  return { entries, damaged: parsed.length - entries.length, isWhole: rest === '' };
}

/**
 * Writes a file with the last line of each client only, in the order of these lines; it is the lines that count and
 * not a table, so that another process may append to the same file.
 *
 * @param most as many of the last ones are kept
 * @returns how many there are
 */
export async function compactTable(from: string, to: string, most: number): Promise<number> {
  const lines = (await readFile(from, 'latin1')).split('\n');
  const last = new Map<string, string>();
  for (const [i, line] of lines.entries()) {
    if (i % linesAtOnce === 0) await setImmediate();
    if (parseLine(line) === undefined) continue;
    const network = line.slice(9, 45);
    last.delete(network);
    last.set(network, line);
  }
  const kept = [...last.values()].slice(-most);
  await replaceFile(to, kept);
  return kept.length;
}

/** All at once, or not at all. */
async function replaceFile(path: string, lines: readonly string[]): Promise<void> {
  const fresh = `${path}.${process.pid}`;
  const file = await open(fresh, 'w', mode);
  try {
    for (let i = 0; i < lines.length; i += linesAtOnce) {
      await file.write(`${lines.slice(i, i + linesAtOnce).join('\n')}\n`);
    }
    await file.datasync();
    await rename(fresh, path);
  } catch (error) {
    await rm(fresh, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

/** The secret; undefined when there is none, or what there is cannot be one. */
export function readKey(directory: string): Buffer | undefined {
  const text = readIfThere(join(directory, keyName))?.toString('latin1').trim() ?? '';
  return /^[0-9a-f]{64}$/.test(text) ? Buffer.from(text, 'hex') : undefined;
}

/**
 * The secret, made when there is none: all at once or not at all, and never over one that another process has
 * just made.
 *
 * @returns also whether something else had its name, which is kept beside it
 */
export function makeKey(directory: string): { readonly key: Buffer; readonly wasDamaged: boolean } {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  // Now, and not with the first client.
  accessSync(directory, constants.W_OK);
  const known = readKey(directory);
  if (known !== undefined) return { key: known, wasDamaged: false };
  const path = join(directory, keyName);
  const wasDamaged = readIfThere(path) !== undefined;
  if (wasDamaged) setAside(path);
  const fresh = `${path}.${process.pid}`;
  try {
    writeFileSync(fresh, `${randomBytes(keyBytes).toString('hex')}\n`, { mode, flush: true });
    linkSync(fresh, path);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  } finally {
    rmSync(fresh, { force: true });
  }
  const key = readKey(directory);
  if (key === undefined) throw new Error(`${path} cannot be read again`);
  return { key, wasDamaged };
}

/** Gives a damaged file another name, which says when; returns that. */
export function setAside(path: string): string {
  const aside = `${path}.damaged-${new Date().toISOString().replaceAll(/[-:]|\.\d+/g, '')}`;
  renameSync(path, aside);
  return aside;
}

export const tableMode: number = mode;

function readIfThere(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

function hex(number: number): string {
  return number.toString(16).padStart(8, '0');
}
