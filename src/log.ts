/**
 * Logging: one line per event, JSON for machines, readable on a terminal. The only file that knows pino.
 *
 * Lines are written without waiting; when the reader of stdout stands still, up to a mebibyte is kept and
 * what comes after is dropped and counted, because the data path must not wait for a log. pino's own destination
 * is not used: at exit it retries for ever to write to a reader that has gone. JSON escapes
 * control characters; the readable form does the same, so no client can write to the operator's terminal.
 */
import { styleText } from 'node:util';
import { type DestinationStream, type Logger, pino, stdTimeFunctions } from 'pino';

export type Log = Logger;

export interface LogOptions {
  readonly level: 'error' | 'warn' | 'info' | 'debug';
  readonly format: 'auto' | 'json' | 'pretty';
}

const maxWaitingBytes = 1024 * 1024;

export function makeLog(options: LogOptions): Log {
  const pretty = options.format === 'pretty' || (options.format === 'auto' && process.stdout.isTTY);
  const settings = {
    level: options.level,
    base: null,
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  };
  return pino(settings, output(pretty ? (line) => `${readable(line)}\n` : (line) => line));
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

/**
 * Lets a kind of message through a few times per period and says later how many more there were: a flood of
 * bad packets must not become a flood of lines.
 */
export class LogBudget {
  readonly #log: Log;
  readonly #lines = new Map<string, number>();
  readonly #timer: NodeJS.Timeout;

  constructor(log: Log, periodMs = 10_000) {
    this.#log = log;
    this.#timer = setInterval(() => this.#settle(), periodMs);
    this.#timer.unref();
  }

  /** @param kind from a closed set, such as a close reason; every kind has a budget of its own */
  allows(kind: string): boolean {
    const lines = (this.#lines.get(kind) ?? 0) + 1;
    this.#lines.set(kind, lines);
    return lines <= linesPerPeriod;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#settle();
  }

  #settle(): void {
    for (const [kind, lines] of this.#lines) {
      if (lines > linesPerPeriod)
        this.#log.warn({ kind, suppressed: lines - linesPerPeriod }, 'similar messages suppressed');
    }
    this.#lines.clear();
  }
}

const linesPerPeriod = 10;
