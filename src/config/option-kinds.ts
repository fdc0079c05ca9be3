/**
 * The kinds of options: how the text of one becomes a value, and what is allowed, said once for parsing,
 * `--help` and the documentation. The table itself is options.ts.
 */
import { DualportError } from '../errors.ts';
import { type Family, isIpv4 } from '../net/address.ts';
import { type Cidr, parseCidr } from '../net/cidr.ts';
import { formatDuration, parseDuration } from './duration.ts';
import { suggestion } from './nearest.ts';
import { notAllowed, type Place, parseAt, refusedAt, type Written } from './place.ts';

/** What each row of the table says beside its kind. */
export interface Described {
  /** A flag of one letter. */
  readonly short?: string;
  /** The heading in `--help`. */
  readonly group: string;
  /** What it does, in a sentence without its default. */
  readonly help: string;
}

export interface Option<T> extends Described {
  /** Placeholder of the value in `--help`; undefined for a switch, which takes none. */
  readonly placeholder: string | undefined;
  /** A list may be repeated as a flag, and written with commas or spaces everywhere. */
  readonly list: boolean;
  /** What may be written. */
  readonly allowed: string;
  readonly default: T;
  readonly defaultText: string;
  /**
   * The value of what was written in one place; one text, or for a list any number.
   *
   * @throws DualportError naming the place
   */
  readonly read: (written: readonly Written[], at: Place) => T;
}

/** One of a few words. */
export function choice<const T extends string>(words: readonly T[], byDefault: T, row: Described): Option<T> {
  const allowed = words.join(', ');
  const parse = (text: string) => {
    const found = words.find((word) => word === text);
    if (found === undefined) throw notAllowed(text, `${allowed}${suggestion(text, words)}`);
    return found;
  };
  const placeholder = words.length > 4 ? '<mode>' : `<${words.join('|')}>`;
  return scalar(parse, { ...row, placeholder, allowed, default: byDefault, defaultText: byDefault });
}

/** On or off; a flag without a value. */
export function toggle(row: Described): Option<boolean> {
  const allowed = 'true or false (or yes, no, on, off, 1, 0)';
  const parse = (text: string) => {
    if (/^(?:true|yes|on|1)$/i.test(text)) return true;
    if (/^(?:false|no|off|0)$/i.test(text)) return false;
    throw notAllowed(text, allowed);
  };
  return scalar(parse, { ...row, placeholder: undefined, allowed, default: false, defaultText: 'false' });
}

export interface DurationBounds {
  readonly min: string;
  readonly max: string;
  /** What 0 means, where it is allowed beside min to max. */
  readonly zero?: string;
}

/** A length of time; the value is in milliseconds. */
export function duration(byDefault: string, bounds: DurationBounds, row: Described): Option<number> {
  const [min, max] = [milliseconds(bounds.min), milliseconds(bounds.max)];
  const zero = bounds.zero === undefined ? '' : `0 (${bounds.zero}) or `;
  const allowed = `${zero}a duration from ${bounds.min} to ${bounds.max}, as 250ms, 5s, 2m, 1h or a number of seconds`;
  const parse = (text: string) => {
    const ms = parseDuration(text) ?? Number.NaN;
    if ((ms >= min && ms <= max) || (ms === 0 && zero !== '')) return ms;
    throw notAllowed(text, allowed);
  };
  const ms = milliseconds(byDefault);
  const defaultText = ms === 0 ? `0 (${bounds.zero})` : formatDuration(ms);
  return scalar(parse, { ...row, placeholder: '<duration>', allowed, default: ms, defaultText });
}

/** A whole number that may stay unset. */
export function limit(unset: string, max: number, row: Described): Option<number | undefined> {
  const kind = wholeNumber(1, max);
  return scalar(kind.parse, {
    ...row,
    ...kind,
    placeholder: '<count>',
    default: undefined,
    defaultText: unset,
  });
}

/** How many of something, from 1 on. */
export function count(byDefault: number, max: number, row: Described): Option<number> {
  return { ...whole(byDefault, 1, max, row), placeholder: '<count>' };
}

/** A whole number between bounds. */
export function whole(byDefault: number, min: number, max: number, row: Described): Option<number> {
  const kind = wholeNumber(min, max);
  const defaultText = String(byDefault);
  return scalar(kind.parse, { ...row, ...kind, placeholder: '<number>', default: byDefault, defaultText });
}

function wholeNumber(min: number, max: number) {
  const allowed = `a whole number from ${min} to ${max}`;
  const parse = (text: string) => {
    const number = /^\d{1,15}$/.test(text) ? Number(text) : -1;
    if (number >= min && number <= max) return number;
    throw notAllowed(text, allowed);
  };
  return { allowed, parse };
}

export interface PrefixBounds {
  readonly family: Family;
  /** Lengths in the family's own bits. */
  readonly shortest: number;
  readonly longest: number;
}

/** One prefix that addresses of hosts can be taken from. */
export function prefix(byDefault: string, bounds: PrefixBounds, row: Described): Option<Cidr> {
  const { family, shortest, longest } = bounds;
  const lengths = shortest === longest ? `length ${shortest}` : `a length from ${shortest} to ${longest}`;
  const allowed = `an IPv${family} prefix of ${lengths} for addresses of hosts, such as ${byDefault}`;
  const parse = (text: string) => {
    const cidr = parseCidr(text);
    const length = family === 4 ? cidr.bits - 96 : cidr.bits;
    const fits = isIpv4(cidr.address) === (family === 4) && length >= shortest && length <= longest;
    if (!fits || !isForHosts(cidr)) throw notAllowed(text, allowed);
    return cidr;
  };
  const placeholder = '<cidr>';
  return scalar(parse, { ...row, placeholder, allowed, default: parse(byDefault), defaultText: byDefault });
}

/** No part of it is "this network", loopback or multicast, whose packets no host would answer. */
function isForHosts({ address, bits }: Cidr): boolean {
  if (!isIpv4(address)) return address[0] !== 0xff && address[0] !== 0;
  const first = address[12] ?? 0;
  const last = first | (0xff >> Math.min(8, bits - 96));
  const reserved = (octet: number) => octet === 0 || octet === 127 || (octet >= 224 && octet <= 239);
  return !Array.from({ length: last - first + 1 }, (_, i) => first + i).some(reserved);
}

export interface TextKind<T> {
  readonly placeholder: string;
  readonly allowed: string;
  /** What holds when nothing was written. */
  readonly unset: string;
  /** Throws a DualportError that says what is wrong with the text. */
  readonly parse: (text: string) => T;
}

/** A text with a grammar of its own that may stay unset. */
export function text<T>(kind: TextKind<T>, row: Described): Option<T | undefined> {
  const { parse, unset, ...rest } = kind;
  return scalar<T | undefined>(parse, { ...row, ...rest, default: undefined, defaultText: unset });
}

/** The same with a default, which is written like any other value. */
export function textOr<T>(kind: Omit<TextKind<T>, 'unset'>, byDefault: string, row: Described): Option<T> {
  return scalar(kind.parse, { ...row, ...kind, default: kind.parse(byDefault), defaultText: byDefault });
}

/**
 * Any number of texts; each may give several items. `empty` is what to say to a list without any, `most` how many items
 * there may be where a short text can give many.
 */
export function list<T, D extends readonly T[] | undefined>(
  kind: TextKind<readonly T[]> & { readonly default: D; readonly empty?: string; readonly most?: number },
  row: Described,
): Option<readonly T[] | D> {
  const { parse, unset, empty, most = Number.POSITIVE_INFINITY, ...rest } = kind;
  const read = (written: readonly Written[], at: Place) => {
    const values: T[] = [];
    const parseItems = (items: string) => {
      for (const item of splitList(items)) {
        for (const value of parse(item)) values.push(value);
        if (values.length > most) throw tooMany(most);
      }
    };
    for (const item of written) parseAt(item, parseItems);
    if (values.length === 0 && empty !== undefined) throw refusedAt(at, notAllowed('', empty));
    return values;
  };
  return { ...row, ...rest, list: true, defaultText: unset, read };
}

export function tooMany(most: number): DualportError {
  return new DualportError(
    'USAGE',
    `found more than ${most} up to here; allowed: ${most} in all, ranges counted one by one`,
  );
}

/** Between commas or white space; neither occurs in a port, a host or a prefix. An empty text has one item. */
export function splitList(items: string): readonly string[] {
  return items.trim().split(/\s*,\s*|\s+/);
}

/** When a flag was given twice, the last counts. */
function scalar<T>(parse: (text: string) => T, option: Omit<Option<T>, 'list' | 'read'>): Option<T> {
  const read = (written: readonly Written[], at: Place) => parseAt(written.at(-1) ?? { text: '', at }, parse);
  return { ...option, list: false, read };
}

function milliseconds(literal: string): number {
  return parseDuration(literal) ?? Number.NaN;
}
