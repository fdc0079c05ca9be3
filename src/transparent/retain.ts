/**
 * What a running dualport must not take away when its rules change: TCP flows of a rule that is gone go on, and
 * their answers have to find back. What only UDP needs goes at once, as its flows do. Pure.
 */
import { emptyPlan, merged, type Plan, type PolicyRule } from './plan.ts';

/**
 * @param before what has been in force
 * @param exists whether there is such an interface; without it there is no flow over it either
 */
export function retaining(next: Plan, before: Plan, exists: (name: string) => boolean): Plan {
  const rules = before.rules.filter((rule) => !isForUdp(rule) && exists(interfaceOf(rule)));
  const interfaces = new Set([
    ...(next.marking?.interfaces ?? []),
    ...(before.marking?.interfaces ?? []).filter(exists),
  ]);
  const marking = next.marking ?? before.marking;
  const plan = merged([
    next,
    { ...emptyPlan, routes: before.routes.filter(({ words }) => !isForWildcard(words)), rules },
  ]);
  const named = [...interfaces].sort();
  return {
    ...plan,
    marking: marking === undefined || named.length === 0 ? undefined : { ...marking, interfaces: named },
  };
}

function isForUdp({ words }: PolicyRule): boolean {
  return / ipproto udp /.test(` ${words} `) || words === 'iif lo nop';
}

/** The table of one source address, which only the rules by UDP port lead to. */
function isForWildcard(words: string): boolean {
  return / table \d+ src /.test(words);
}

function interfaceOf({ words }: PolicyRule): string {
  return /(?:^| )iif (\S+)/.exec(words)?.[1] ?? '';
}
