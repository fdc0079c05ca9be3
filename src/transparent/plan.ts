/**
 * What is to be in the kernel: routes, rules and one nft table, in the words of the tools that make them, each
 * with its reason. How a plan comes about is planner.ts.
 */
import type { TransparentConfig } from '../config/load.ts';
import { routeTableSpan } from '../config/transparent-options.ts';
import { type Address, type Family, formatAddress } from '../net/address.ts';

/** In the words of `ip route`, without its protocol. */
export interface Route {
  readonly family: Family;
  readonly words: string;
  readonly why: string;
}

/** In the words of `ip rule`, without priority and protocol. */
export interface PolicyRule {
  readonly family: Family;
  readonly priority: number;
  readonly words: string;
  readonly why: string;
}

/** The nft table. */
export interface Marking {
  readonly interfaces: readonly string[];
  readonly why: string;
}

export interface Plan {
  readonly routes: readonly Route[];
  readonly rules: readonly PolicyRule[];
  readonly marking: Marking | undefined;
  /** What an operator has to know, or what is left out. */
  readonly remarks: readonly string[];
}

export const emptyPlan: Plan = { routes: [], rules: [], marking: undefined, remarks: [] };

export type Names = Pick<TransparentConfig, 'interfaces' | 'mark' | 'priority' | 'routeTable'>;

/** Offsets from the first priority, for what is told by interface and mark, by source, and by UDP port. */
export const order = { interface: 0, source: 1, skip: 2, port: 3, end: 4 } as const;

/** How many local addresses can have a route table of their own: the first table is for all. */
export const mostSources = routeTableSpan - 1;

/** The one route of a table. */
export function allLocal(family: Family, table: number, source?: Address): Route {
  const any = family === 4 ? '0.0.0.0/0' : '::/0';
  const from = source === undefined ? '' : ` src ${formatAddress(source)}`;
  return {
    family,
    words: `local ${any} dev lo table ${table}${from}`,
    why: 'in this table every address is one of this host',
  };
}

/** One plan of several, in their order; of what two have, the first one's counts. */
export function merged(plans: readonly Plan[]): Plan {
  return {
    routes: distinct(
      plans.flatMap((plan) => plan.routes),
      slotOf,
    ),
    rules: distinct(
      plans.flatMap((plan) => plan.rules),
      ruleKey,
    ),
    marking: plans.find(({ marking }) => marking !== undefined)?.marking,
    remarks: plans.flatMap((plan) => plan.remarks),
  };
}

/** Rules that have this in common are one. */
export function ruleKey({ family, priority, words }: Omit<PolicyRule, 'why'>): string {
  return `${family} ${priority} ${words}`;
}

/** The kernel has one route to a destination with one metric in a table; its source can be replaced only. */
export function slotOf({ family, words }: Omit<Route, 'why'>): string {
  return `${family} ${words.replace(/ src \S+$/, '')}`;
}

function distinct<T>(all: readonly T[], keyOf: (one: T) => string): readonly T[] {
  const byKey = new Map<string, T>();
  for (const one of all) if (!byKey.has(keyOf(one))) byKey.set(keyOf(one), one);
  return [...byKey.values()];
}
