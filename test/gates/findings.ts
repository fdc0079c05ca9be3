/**
 * What a gate has measured and what it has found broken. A gate goes on after a finding, so that all that is wrong
 * stands in the report; each finding says what was expected and what was seen.
 */

/** Figures by name, as they stand in the JSON. */
export type Figures = Readonly<Record<string, number>>;

export class Findings {
  readonly broken: string[] = [];
  readonly #figures: Record<string, number> = {};

  get figures(): Figures {
    return this.#figures;
  }

  /** Notes a figure; returns it. */
  note(name: string, value: number): number {
    this.#figures[name] = value;
    return value;
  }

  /** @param detail what else is known, for whoever has to find the cause */
  equal(what: string, seen: number, expected: number, detail = ''): void {
    if (seen !== expected) this.#add(`${what}: expected ${expected}, seen ${seen}`, detail);
  }

  atMost(what: string, seen: number, most: number, detail = ''): void {
    if (!(seen <= most))
      this.#add(`${what}: expected ${rounded(most)} at most, seen ${rounded(seen)}`, detail);
  }

  atLeast(what: string, seen: number, least: number, detail = ''): void {
    if (!(seen >= least))
      this.#add(`${what}: expected ${rounded(least)} at least, seen ${rounded(seen)}`, detail);
  }

  same(what: string, seen: string, expected: string): void {
    if (seen !== expected)
      this.#add(`${what}: expected ${expected || 'nothing'}, seen ${seen || 'nothing'}`, '');
  }

  #add(text: string, detail: string): void {
    this.broken.push(detail === '' ? text : `${text} (${detail})`);
  }
}

function rounded(value: number): string {
  return String(Math.round(value * 100) / 100);
}

/** `{"not done in 10 s":2}` as words. */
export function faultsText(faults: Readonly<Record<string, number>>): string {
  return Object.entries(faults)
    .map(([what, times]) => `${times} × ${what}`)
    .join(', ');
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
