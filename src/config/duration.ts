/**
 * Lengths of time as a user writes them: `250ms`, `5s`, `2m`, `1h`, or a bare number of seconds. Inside
 * dualport every length of time is a whole number of milliseconds.
 */

const unitMs = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 } as const;
type Unit = keyof typeof unitMs;

/**
 * @returns milliseconds, rounded to whole ones; undefined when the text is not a length of time
 */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h)?$/.exec(text);
  if (match === null) return undefined;
  const [, amount, unit = 's'] = match;
  return Math.round(Number(amount) * unitMs[unit as Unit]);
}

/** The shortest text in whole units: 120000 → `2m`. */
export function formatDuration(ms: number): string {
  if (ms === 0) return '0';
  const unit = (['h', 'm', 's'] as const).find((unit) => ms % unitMs[unit] === 0) ?? 'ms';
  return `${ms / unitMs[unit]}${unit}`;
}
