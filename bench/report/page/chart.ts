/**
 * What the browser is given to draw, one record a figure. All wording and formatting is done before, so that
 * the page's script knows nothing of the bench.
 */
export type Kind = 'bound' | 'peer' | 'dualport';

export interface Bars {
  readonly form: 'bars';
  readonly label: string;
  /** One of several beside each other. */
  readonly small: boolean;
  /** In the order shown. */
  readonly rows: readonly Bar[];
}

export interface Bar {
  readonly name: string;
  readonly kind: Kind;
  /** What stands beside the bar, or in its place. */
  readonly text: string;
  readonly tip: string;
  /** Without, there is nothing to draw and `text` says why. */
  readonly value?: number;
  readonly min?: number;
  readonly max?: number;
}

export interface Lines {
  readonly form: 'lines';
  readonly label: string;
  readonly x: Axis;
  /** Logarithmic. */
  readonly y: { readonly label: string };
  readonly lines: readonly Line[];
}

export interface Axis {
  readonly label: string;
  /** `nines` places a percentile p at −log₁₀(1 − p/100), so that 90, 99 and 99.9 lie equally far apart. */
  readonly scale: 'log' | 'nines';
  /** Those that have room are shown. */
  readonly ticks: readonly number[];
}

export interface Line {
  readonly name: string;
  readonly kind: Kind;
  /** Ascending by x. */
  readonly points: readonly (readonly [x: number, y: number])[];
}

export type Chart = Bars | Lines;
