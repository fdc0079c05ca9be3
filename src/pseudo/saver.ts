/**
 * Writes what is new in the table to disk, once a second at most and a bounded number of lines each time: a flood of
 * clients costs no more than that. Nothing waits for it. While the disk refuses, what is not written is kept, as
 * far as the table keeps it, and tried again.
 */
import { appendFile } from 'node:fs/promises';
import { messageOf } from '../errors.ts';
import { compactTable, formatLine, tableMode, tablePath } from './state-file.ts';
import type { PseudoEntry, PseudoTable } from './table.ts';

const periodMs = 1000;
/** While writing fails. */
const retryMs = 30_000;
const linesPerPeriod = 2048;
/** The file may hold this many lines more than twice those that count. */
const slack = 4096;

export class Saver {
  readonly #table: PseudoTable;
  readonly #path: string;
  readonly #notice: (text: string) => void;
  readonly #timer: NodeJS.Timeout;
  #lines: number;
  #work: Promise<void> = Promise.resolve();
  #busy = false;
  #failedMs: number | undefined;
  /** The file may end in the middle of a line. */
  #isTorn = false;

  /** @param lines that the file has already */
  constructor(table: PseudoTable, directory: string, lines: number, notice: (text: string) => void) {
    this.#table = table;
    this.#path = tablePath(directory);
    this.#lines = lines;
    this.#notice = notice;
    this.#timer = setInterval(() => this.#tick(), periodMs);
    this.#timer.unref();
  }

  /** Writes all there is, and no more after that. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#work;
    while (this.#table.hasUnsaved && (await this.#append())) {}
  }

  #tick(): void {
    if (this.#busy || !this.#table.hasUnsaved) return;
    if (this.#failedMs !== undefined && performance.now() - this.#failedMs < retryMs) return;
    this.#busy = true;
    this.#work = this.#save().finally(() => {
      this.#busy = false;
    });
  }

  async #save(): Promise<void> {
    if (!(await this.#append()) || this.#lines <= 2 * this.#table.size + slack) return;
    try {
      this.#lines = await compactTable(this.#path, this.#path, this.#table.capacity);
    } catch (error) {
      this.#failed(error);
    }
  }

  async #append(): Promise<boolean> {
    const entries = this.#table.takeUnsaved(linesPerPeriod);
    try {
      await appendFile(this.#path, (this.#isTorn ? '\n' : '') + textOf(entries), { mode: tableMode });
      this.#lines += entries.length;
      this.#isTorn = false;
      this.#failedMs = undefined;
      return true;
    } catch (error) {
      this.#isTorn = true;
      this.#table.putBack(entries);
      this.#failed(error);
      return false;
    }
  }

  #failed(error: unknown): void {
    if (this.#failedMs === undefined) {
      this.#notice(
        `pseudo addresses cannot be written to ${this.#path}, new ones may change with the next start: ${messageOf(error)}`,
      );
    }
    this.#failedMs = performance.now();
  }
}

function textOf(entries: readonly PseudoEntry[]): string {
  return entries.map(formatLine).join('');
}
