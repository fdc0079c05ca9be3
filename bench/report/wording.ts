/** How numbers, dates and places are put into words; the same in the page and in the README's table. */
import type { Cell, Families, MetricRecord, Ratio } from '../results.ts';
import { falseVerdicts, fewestRounds } from '../statistics.ts';

const threeDigits = new Intl.NumberFormat('en', { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** Three significant digits, all of those before the point: 0, 0.0421, 16.0, 93,512. */
export function figure(value: number): string {
  if (value === 0) return '0';
  return Math.abs(value) >= 100 ? grouped.format(value) : threeDigits.format(value);
}

/** Two decimals, more where those would say 0.00, fewer where they would say nothing. */
export function ratioFigure(value: number): string {
  if (value !== 0 && value < 0.1) return value.toPrecision(2);
  return value >= 100 ? grouped.format(value) : value.toFixed(2);
}

/** `75 % interval`: 95 is what is aimed at, and few rounds cannot give it. */
export function intervalName(rounds: number): string {
  return `${Math.round(100 * Math.min(0.95, 1 - falseVerdicts(rounds)))} % interval`;
}

/** `[1.25–1.40]`, or how many rounds there were if that is too few for an interval. */
export function intervalText({ low, high, rounds }: Ratio): string {
  if (rounds < fewestRounds) return `(${counted(rounds, 'round')})`;
  return `[${ratioFigure(low)}–${ratioFigure(high)}]`;
}

/** `15.9 [15.2–16.4]`. */
export function cellText({ median, min, max }: Cell): string {
  return `${figure(median)} [${figure(min)}–${figure(max)}]`;
}

export function metricText({ title, unit }: MetricRecord): string {
  return unit === '' ? title : `${title}, ${unit}`;
}

export function betterText({ better }: Pick<MetricRecord, 'better'>): string {
  return `${better} is better`;
}

const familiesTexts: Readonly<Record<Families, string>> = {
  '4to4': 'IPv4 → IPv4',
  '6to6': 'IPv6 → IPv6',
  '6to4': 'IPv6 → IPv4',
};

/** The client's family, then the program's. */
export function familiesText(families: Families): string {
  return familiesTexts[families];
}

export function whole(count: number): string {
  return grouped.format(count);
}

/** The same in a sentence. */
export function familiesMeaning(families: Families): string {
  return `The client speaks ${families.startsWith('4') ? 'IPv4' : 'IPv6'}, the program behind ${families.endsWith('4') ? 'IPv4' : 'IPv6'}.`;
}

export function counted(count: number, noun: string): string {
  return `${whole(count)} ${noun}${count === 1 ? '' : 's'}`;
}

/** `a, b and c`. */
export function listed(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
}

export function bytesText(bytes: number): string {
  return `${threeDigits.format(bytes / 2 ** 30)} GiB`;
}

const dateFormat = new Intl.DateTimeFormat('en-GB', { dateStyle: 'long', timeZone: 'UTC' });
const timeFormat = new Intl.DateTimeFormat('en-GB', { timeStyle: 'short', timeZone: 'UTC' });

/** `21 November 2026`, in UTC as the file has it. */
export function dateText(iso: string): string {
  return dateFormat.format(new Date(iso));
}

export function timeText(iso: string): string {
  return timeFormat.format(new Date(iso));
}

/** `2 h 38 min`. */
export function durationText(from: string, to: string): string {
  const minutes = Math.round((Date.parse(to) - Date.parse(from)) / 60_000);
  if (minutes < 60) return minutes < 1 ? 'less than a minute' : `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
