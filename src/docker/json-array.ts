/**
 * Splits a JSON array, as its bytes come in, into the texts of its elements. The list of containers holds what
 * others wrote: one container with a megabyte of labels must neither fill the memory nor hide the rest, so an
 * element beyond its bound is passed over and only its beginning is kept, to say whose it was.
 *
 * Brackets and quotes are ASCII, and no byte of another UTF-8 character is: bytes can be split anywhere.
 */

/** What comes out, in order. */
export interface Elements {
  element(text: string): void;
  /** One that is too long: how it begins. */
  tooLong(beginning: string): void;
}

const [quote, backslash, comma] = [0x22, 0x5c, 0x2c];
const [openBracket, closeBracket, openBrace, closeBrace] = [0x5b, 0x5d, 0x7b, 0x7d];
const beginningBytes = 512;

export class JsonArray {
  readonly #elements: Elements;
  readonly #maxBytes: number;
  #kept: Buffer[] = [];
  #keptBytes = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;
  #ended = false;

  /** @param maxBytes the longest element that is kept whole */
  constructor(maxBytes: number, elements: Elements) {
    this.#maxBytes = maxBytes;
    this.#elements = elements;
  }

  /** @returns false when this is no JSON array */
  push(chunk: Buffer): boolean {
    let start = 0;
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i] as number;
      if (this.#inString) {
        this.#string(byte);
      } else if (this.#depth === 0) {
        if (!this.#outside(byte)) return false;
        start = i + 1;
      } else if (this.#depth === 1 && (byte === comma || byte === closeBracket)) {
        this.#keep(chunk.subarray(start, i));
        this.#emit(byte === closeBracket);
        start = i + 1;
      } else {
        this.#inside(byte);
      }
    }
    if (this.#depth > 0) this.#keep(chunk.subarray(start));
    return true;
  }

  /** True when the whole array was there. */
  get complete(): boolean {
    return this.#ended;
  }

  #outside(byte: number): boolean {
    const isSpace = byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
    if (isSpace) return true;
    if (byte !== openBracket || this.#ended) return false;
    this.#depth = 1;
    return true;
  }

  #inside(byte: number): void {
    if (byte === quote) this.#inString = true;
    else if (byte === openBrace || byte === openBracket) this.#depth++;
    else if (byte === closeBrace || byte === closeBracket) this.#depth--;
  }

  #string(byte: number): void {
    if (this.#escaped) this.#escaped = false;
    else if (byte === backslash) this.#escaped = true;
    else if (byte === quote) this.#inString = false;
  }

  /** Copied, for a chunk is used again by its stream's owner and may be far larger than what is kept of it. */
  #keep(bytes: Buffer): void {
    const room = this.#maxBytes + 1 - this.#keptBytes;
    if (room <= 0 || bytes.length === 0) return;
    const kept = Buffer.from(bytes.subarray(0, room));
    this.#kept.push(kept);
    this.#keptBytes += kept.length;
  }

  #emit(last: boolean): void {
    const bytes = Buffer.concat(this.#kept);
    this.#kept = [];
    this.#keptBytes = 0;
    if (last) {
      this.#depth = 0;
      this.#ended = true;
    }
    if (bytes.length > this.#maxBytes)
      return this.#elements.tooLong(bytes.toString('utf8', 0, beginningBytes));
    const text = bytes.toString();
    // An empty array has no element between its brackets.
    if (!last || text.trim() !== '') this.#elements.element(text);
  }
}
