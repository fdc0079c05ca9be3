/**
 * A gate: something that dualport promises, loaded until it could give way. Each is a file of promises/ and is run for
 * each engine, in a network of its own.
 */
import type { Arena } from './arena.ts';
import type { Figures, Findings } from './findings.ts';

export interface Gate {
  readonly name: string;
  /** What is promised, as a sentence. */
  readonly promise: string;
  /** Gates of one lane are run one by one, those of different lanes at once; only one lane works all the time. */
  readonly lane: 'works' | 'waits' | 'holds';
  /** Measures, and says what is broken. An error it throws is broken, too. */
  run(arena: Arena, findings: Findings): Promise<void>;
  /** Its line in the report, from the figures of each engine; the words and their order are fixed. */
  line(of: EngineFigures): string;
}

/** Asks the figures of all engines for one. */
export interface EngineFigures {
  readonly engines: readonly string[];
  least(name: string): number;
  most(name: string): number;
  sum(name: string): number;
  /** Such as `portable=12.3 linux=4.5`. */
  each(name: string, digits?: number): string;
}

export function figuresOf(all: ReadonlyMap<string, Figures>): EngineFigures {
  const values = (name: string) => [...all.values()].map((figures) => figures[name] ?? Number.NaN);
  return {
    engines: [...all.keys()],
    least: (name) => Math.min(...values(name)),
    most: (name) => Math.max(...values(name)),
    sum: (name) => values(name).reduce((total, value) => total + value, 0),
    each: (name, digits = 0) =>
      [...all]
        .map(([engine, figures]) => `${engine}=${(figures[name] ?? Number.NaN).toFixed(digits)}`)
        .join(' '),
  };
}
