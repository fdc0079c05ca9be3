/**
 * How many flows a rule has, and each source within it, when several threads serve the rule: kept in memory they
 * all see, so that a limit means the same however many threads there are.
 *
 * A rule has a number of its own. Sources are too many for that and come and go: each is added to one number in
 * each of four rows, found by four hashes, and the least of the four is its count (a count-min sketch). A source
 * that shares all four with others counts as too many, never as too few, so a limit is never passed; and with
 * twice as many numbers in a row as there may be flows that is rare. Which sources share is settled by random
 * factors, so that no client can choose whose limit it uses up.
 */
import { randomFillSync } from 'node:crypto';

const rows = 4;
/** An IPv4 address has 16 bytes in its key, an IPv6 /64 has 8; and the rule. */
const words = 5;
const leastColumns = 1024;
const mostColumns = 2 ** 22;

/** One for all rules and threads. */
export interface SourceTable {
  /** Row by row; as many columns as a power of two. */
  readonly counts: Int32Array;
  /** Odd, `words` of them a row. */
  readonly factors: Int32Array;
}

/** @param maxFlows most flows at once, over all rules and threads */
export function makeSourceTable(maxFlows: number): SourceTable {
  const wanted = Math.min(mostColumns, Math.max(leastColumns, 2 * maxFlows));
  const columns = 2 ** Math.ceil(Math.log2(wanted));
  const factors = randomFillSync(new Int32Array(rows * words)).map((factor) => factor | 1);
  return { counts: sharedNumbers(rows * columns), factors };
}

/** Numbers that threads change together, with Atomics. */
export function sharedNumbers(count: number): Int32Array {
  return new Int32Array(new SharedArrayBuffer(count * Int32Array.BYTES_PER_ELEMENT));
}

/** One rule's part; every thread makes its own over the same memory. */
export class SharedFlows {
  readonly #flows: Int32Array;
  readonly #table: SourceTable;
  readonly #rule: number;
  /** How far a hash is shifted to be a column. */
  readonly #shift: number;
  readonly #places = new Int32Array(rows);

  /**
   * @param rule tells the rule's sources from those of others
   * @param flows one number, the rule's own
   */
  constructor(rule: number, flows: Int32Array, table: SourceTable) {
    this.#rule = rule;
    this.#flows = flows;
    this.#table = table;
    this.#shift = 32 - Math.log2(table.counts.length / rows);
  }

  /** Of the rule. */
  get count(): number {
    return Atomics.load(this.#flows, 0);
  }

  /** @param source by `sourceKey` */
  countOf(source: string): number {
    let least = Number.POSITIVE_INFINITY;
    for (const place of this.#find(source)) least = Math.min(least, Atomics.load(this.#table.counts, place));
    return least;
  }

  add(source: string, by: 1 | -1): void {
    Atomics.add(this.#flows, 0, by);
    for (const place of this.#find(source)) Atomics.add(this.#table.counts, place, by);
  }

  /** The four numbers of a source; good until the next call. */
  #find(source: string): Int32Array {
    const { counts, factors } = this.#table;
    const columns = counts.length / rows;
    for (let row = 0; row < rows; row++) {
      let hash = Math.imul(this.#rule, factors[row * words] ?? 0);
      for (let word = 1; 4 * word <= source.length; word++)
        hash += Math.imul(wordOf(source, 4 * (word - 1)), factors[row * words + word] ?? 0);
      // The high bits, on which all the lower ones have had their effect.
      this.#places[row] = row * columns + (hash >>> this.#shift);
    }
    return this.#places;
  }
}

/** Four characters, each a byte, as one number. */
function wordOf(text: string, at: number): number {
  return (
    text.charCodeAt(at) |
    (text.charCodeAt(at + 1) << 8) |
    (text.charCodeAt(at + 2) << 16) |
    (text.charCodeAt(at + 3) << 24)
  );
}
