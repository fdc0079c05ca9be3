/**
 * The difference between the rules that run and those that are wanted. A rule is known by its name, which is
 * its port: an unchanged one keeps its sockets whatever else of it changes.
 */
import type { Rule } from '../config/rules.ts';

export interface Difference {
  readonly open: readonly Rule[];
  readonly keep: readonly Rule[];
  readonly close: readonly string[];
}

export function reconcile(running: ReadonlySet<string>, wanted: readonly Rule[]): Difference {
  const names = new Set(wanted.map((rule) => rule.name));
  return {
    open: wanted.filter((rule) => !running.has(rule.name)).sort(byChoice),
    keep: wanted.filter((rule) => running.has(rule.name)),
    close: [...running].filter((name) => !names.has(name)),
  };
}

/** Fixed ports first: a rule with a choice must not take the only port another one has. */
function byChoice(a: Rule, b: Rule): number {
  return choices(a) - choices(b);
}

function choices({ port: { hostPorts } }: Rule): number {
  return hostPorts === undefined ? Number.MAX_SAFE_INTEGER : hostPorts.last - hostPorts.first;
}
