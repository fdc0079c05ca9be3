/**
 * What goes on and how long it will take: one line that is rewritten on a terminal, a line every ten seconds
 * elsewhere. The time left is the plan's estimate, corrected by how the part that is done compares with it.
 */
import type { Writable } from 'node:stream';

const everyMs = { terminal: 200, elsewhere: 10_000 };

export class Progress {
  readonly #out: Writable & { readonly isTTY?: boolean; readonly columns?: number };
  readonly #started = performance.now();
  #expected = 0;
  #done = 0;
  #shownAt = Number.NEGATIVE_INFINITY;

  constructor(out: Writable & { readonly isTTY?: boolean; readonly columns?: number }) {
    this.#out = out;
  }

  expect(seconds: number): void {
    this.#expected = seconds;
  }

  done(seconds: number): void {
    this.#done += seconds;
  }

  doing(what: string): void {
    const now = performance.now();
    const { isTTY = false, columns = 80 } = this.#out;
    if (now - this.#shownAt < (isTTY ? everyMs.terminal : everyMs.elsewhere)) return;
    this.#shownAt = now;
    const line = `${this.#left(now)}  ${what}`;
    this.#out.write(isTTY ? `\r\x1b[K${line.slice(0, columns - 1)}` : `${line}\n`);
  }

  /** A line that stays. */
  say(text: string): void {
    this.#clear();
    this.#out.write(`${text}\n`);
  }

  end(): void {
    this.#clear();
  }

  #clear(): void {
    if (this.#out.isTTY === true) this.#out.write('\r\x1b[K');
  }

  /** Until a twentieth is done the estimate is better than the measurement. */
  #left(now: number): string {
    const elapsed = (now - this.#started) / 1000;
    const pace = this.#done > this.#expected / 20 ? elapsed / this.#done : 1;
    const seconds = Math.max(0, Math.round((this.#expected - this.#done) * pace));
    const percent = Math.min(99, Math.floor((100 * this.#done) / Math.max(1, this.#expected)));
    return `${`${percent}`.padStart(2)} %, ${Math.floor(seconds / 60)} min ${`${seconds % 60}`.padStart(2, '0')} s left`;
  }
}
