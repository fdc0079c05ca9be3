/**
 * Logging: one line per event, JSON for machines, readable on a terminal. The only file that knows pino. Only the
 * main thread writes; the others make their lines themselves and hand them over.
 *
 * Lines are written without waiting; when the reader of stdout stands still, up to a mebibyte is kept and
 * what comes after is dropped and counted, because the data path must not wait for a log. pino's own destination
 * is not used: at exit it retries for ever to write to a reader that has gone. JSON escapes
 * control characters; the readable form does the same, so no client can write to the operator's terminal.
 */
import { styleText } from 'node:util';
import { type DestinationStream, type Logger, type LoggerOptions, pino, stdTimeFunctions } from 'pino';

export type Log = Logger;

export interface LogOptions {
  readonly level: 'error' | 'warn' | 'info' | 'debug';
  readonly format: 'auto' | 'json' | 'pretty';
}

const maxWaitingBytes = 1024 * 1024;

export function makeLog(options: LogOptions): Log {
  const pretty = options.format === 'pretty' || (options.format === 'auto' && process.stdout.isTTY);
  return pino(settings(options.level), output(pretty ? (line) => `${readable(line)}\n` : (line) => line));
}

function settings(level: string): LoggerOptions {
  return {
    level,
    base: null,
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  };
}

/** Lines that a slow reader of stdout made us drop. */
export const droppedLines = { count: 0 };

function output(form: (line: string) => string): DestinationStream {
  // The reader is gone (EPIPE): the service goes on without a log.
  process.stdout.on('error', () => droppedLines.count++);
  return {
    write(line: string): void {
      if (process.stdout.writableLength > maxWaitingBytes) droppedLines.count++;
      else process.stdout.write(form(line));
    },
  };
}

/** What two threads know of the lines one hands to the other: bytes that are not written yet, lines dropped. */
export type HandOver = Int32Array;
const unread = 0;
const dropped = 1;

export function makeHandOver(): HandOver {
  return new Int32Array(new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT));
}

/**
 * The log of another thread. What comes up within one turn of its event loop is handed over together; while the
 * main thread takes nothing, up to a mebibyte waits for it and the rest is dropped and counted, as in `output`.
 *
 * @param level as the main thread's
 * @param give has the main thread call {@link writeLines}
 */
export function makeThreadLog(level: string, over: HandOver, give: (lines: readonly string[]) => void): Log {
  let lines: string[] = [];
  const flush = () => {
    give(lines);
    lines = [];
  };
  return pino(settings(level), {
    write(line: string): void {
      if (Atomics.load(over, unread) > maxWaitingBytes) return void Atomics.add(over, dropped, 1);
      Atomics.add(over, unread, line.length);
      if (lines.length === 0) queueMicrotask(flush);
      lines.push(line);
    },
  });
}

export function writeLines(log: Log, over: HandOver, lines: readonly string[]): void {
  const { [pino.symbols.streamSym]: destination } = log as Log & WithDestination;
  for (const line of lines) {
    destination.write(line);
    Atomics.sub(over, unread, line.length);
  }
  droppedLines.count += Atomics.exchange(over, dropped, 0);
}

interface WithDestination {
  readonly [pino.symbols.streamSym]: DestinationStream;
}

const colours = { error: 'red', warn: 'yellow', info: 'green', debug: 'gray' } as const;

/** One JSON line as `12:30:59 info  message key=value …`. */
export function readable(line: string, colour: boolean = process.stdout.hasColors?.() ?? false): string {
  const { level, time, msg, ...rest } = JSON.parse(line) as Record<string, unknown>;
  const name = String(level);
  const paint = colour && name in colours ? colours[name as keyof typeof colours] : undefined;
  const label =
    paint === undefined ? name.padEnd(5) : styleText(paint, name.padEnd(5), { validateStream: false });
  const pairs = Object.entries(rest).map(([key, value]) => `${key}=${plain(value)}`);
  return [String(time).slice(11, 19), label, plain(msg ?? ''), ...pairs].join(' ');
}

/** Text as it is, anything else as JSON; control and direction characters escaped in both. */
function plain(value: unknown): string {
  return escapeControls(typeof value === 'string' ? value : JSON.stringify(value));
}

/** Others' text, fit for a terminal. */
export function escapeControls(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, escapeCharacter);
}

function escapeCharacter(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}

/** How many lines of each kind there were in the present period. */
export interface LineCounts {
  /** One more; the result is how many there are now. */
  add(kind: string): number;
  /** A new period begins. */
  take(): Iterable<readonly [kind: string, lines: number]>;
}

/**
 * Lets a kind of message through a few times per period and says later how many more there were: a flood of
 * bad packets must not become a flood of lines.
 */
export class LogBudget {
  readonly #log: Log;
  readonly #lines: LineCounts;
  readonly #timer: NodeJS.Timeout;

  constructor(log: Log, periodMs = 10_000, lines: LineCounts = new OwnCounts()) {
    this.#log = log;
    this.#lines = lines;
    this.#timer = setInterval(() => this.#settle(), periodMs);
    this.#timer.unref();
  }

  /** @param kind from a closed set, such as a close reason; every kind has a budget of its own */
  allows(kind: string): boolean {
    return this.#lines.add(kind) <= linesPerPeriod;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#settle();
  }

  #settle(): void {
    for (const [kind, lines] of this.#lines.take()) {
      if (lines > linesPerPeriod)
        this.#log.warn({ kind, suppressed: lines - linesPerPeriod }, 'similar messages suppressed');
    }
  }
}

const linesPerPeriod = 10;

class OwnCounts implements LineCounts {
  #lines = new Map<string, number>();

  add(kind: string): number {
    const lines = (this.#lines.get(kind) ?? 0) + 1;
    this.#lines.set(kind, lines);
    return lines;
  }

  take(): Iterable<readonly [string, number]> {
    const lines = this.#lines;
    this.#lines = new Map();
    return lines;
  }
}

/** Threads that share one budget: each counts here, and one of them has the LogBudget that takes. */
export class SharedCounts implements LineCounts {
  /** By kind; another thread makes its counts of the same. */
  readonly memory: Int32Array;
  readonly #kinds: readonly string[];

  constructor(kinds: readonly string[], memory?: Int32Array) {
    const bytes = kinds.length * Int32Array.BYTES_PER_ELEMENT;
    this.memory = memory ?? new Int32Array(new SharedArrayBuffer(bytes));
    this.#kinds = kinds;
  }

  add(kind: string): number {
    return Atomics.add(this.memory, this.#kinds.indexOf(kind), 1) + 1;
  }

  /** As the LogBudget over these counts says. */
  allows(kind: string): boolean {
    return this.add(kind) <= linesPerPeriod;
  }

  *take(): Iterable<readonly [string, number]> {
    for (const [i, kind] of this.#kinds.entries()) yield [kind, Atomics.exchange(this.memory, i, 0)];
  }
}
