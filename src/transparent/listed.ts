/**
 * What `ip -N -j -d rule show` and `route show` list, in the words that make it: which keys an object has says which
 * words. Pure.
 */
import type { Family } from '../net/address.ts';

export type Listed = Readonly<Record<string, unknown>>;

export interface ListedRule {
  readonly family: Family;
  readonly priority: number;
  /** Without priority and protocol. */
  readonly words: string;
  readonly protocol: string;
  /** Undefined when it does something else than look into a table. */
  readonly table: number | undefined;
  /** The words say all of it. */
  readonly plain: boolean;
}

export interface ListedRoute {
  readonly family: Family;
  /** Without its protocol. */
  readonly words: string;
  readonly table: number;
  readonly metric: number;
}

/** Nothing to list is an empty text to some versions. */
export function parseList(text: string): readonly Listed[] {
  return text.trim() === '' ? [] : JSON.parse(text);
}

export function parseRule(rule: Listed, family: Family): ListedRule {
  return {
    family,
    priority: Number(rule['priority']),
    words: ruleWords(rule, family).join(' '),
    protocol: String(rule['protocol']),
    table: rule['table'] === undefined ? undefined : Number(rule['table']),
    plain: Object.keys(rule).every((key) => ruleKeys.has(key)),
  };
}

const ruleKeys = new Set(
  'priority src srclen iif iif_detached fwmark fwmask ipproto sport sport_start sport_end table goto unresolved nop protocol'.split(
    ' ',
  ),
);

/** In the order in which plans have them. */
function ruleWords(rule: Listed, family: Family): readonly string[] {
  const words = (key: string, word: string, text: (value: string) => string = String) =>
    Object.hasOwn(rule, key) ? [word, text(String(rule[key]))] : [];
  return [
    ...(rule['src'] === 'all'
      ? []
      : words('src', 'from', (src) => `${src}/${rule['srclen'] ?? width(family)}`)),
    ...words('iif', 'iif'),
    ...words('fwmark', 'fwmark', (value) => `${value}/${rule['fwmask'] ?? '0xffffffff'}`),
    ...words('ipproto', 'ipproto', protocolName),
    ...words('sport', 'sport'),
    ...words('sport_start', 'sport', (first) => `${first}-${rule['sport_end']}`),
    ...words('table', 'lookup'),
    ...words('goto', 'goto'),
    ...(Object.hasOwn(rule, 'nop') ? ['nop'] : []),
  ];
}

function width(family: Family): number {
  return family === 4 ? 32 : 128;
}

/** With numbers for names, iproute2 writes `ipproto-17`. */
function protocolName(text: string): string {
  const names: Readonly<Record<string, string>> = { 'ipproto-6': 'tcp', 'ipproto-17': 'udp' };
  return names[text] ?? text;
}

const localTable = 255;

/** @param table where the list leaves it out, because it is of one table */
export function parseRoute(
  route: Listed,
  family: Family,
  table: number = Number(route['table']),
): ListedRoute {
  const metric = Number(route['metric'] ?? 0);
  // What the kernel gives to an IPv6 route that was made without one.
  const isGiven = metric !== 0 && !(family === 6 && metric === 1024);
  const words = [
    ...[
      routeType(String(route['type'])),
      destination(String(route['dst']), family),
      'dev',
      String(route['dev']),
    ],
    ...['table', table === localTable ? 'local' : String(table)],
    ...(isGiven ? ['metric', String(metric)] : []),
    ...(route['prefsrc'] === undefined ? [] : ['src', String(route['prefsrc'])]),
  ];
  return { family, words: words.join(' '), table, metric };
}

function destination(text: string, family: Family): string {
  if (text === 'default') return family === 4 ? '0.0.0.0/0' : '::/0';
  return text.includes('/') ? text : `${text}/${width(family)}`;
}

/** RTN_… of linux/rtnetlink.h. */
const routeTypes = [
  'unspec',
  'unicast',
  'local',
  'broadcast',
  'anycast',
  'multicast',
  'blackhole',
  'unreachable',
];

function routeType(text: string): string {
  return routeTypes[Number(text)] ?? text;
}
