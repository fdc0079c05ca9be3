/**
 * From what there is to what a plan wants: steps, each a command with the one that undoes it. Pure. Nothing that
 * is right already is touched, so a second time there are no steps; a removal is the change to the empty plan.
 *
 * The order keeps every moment harmless: a packet is led to a table only when the table is there, and marked
 * only when the mark leads somewhere. What is no longer wanted goes in the reverse order.
 */
import { isSameMarking, markingScript, removalScript } from './marking.ts';
import { type Plan, type PolicyRule, type Route, ruleKey, slotOf } from './plan.ts';
import {
  ownProtocol,
  type PlaceNames,
  type Present,
  type PresentRoute,
  type PresentRule,
} from './present.ts';
import type { Command } from './system.ts';

export interface Step {
  readonly command: Command;
  readonly undo: Command;
  readonly why: string;
  /** Of what is there and not wanted. */
  readonly removes: boolean;
}

export function stepsTo(plan: Plan, present: Present, names: PlaceNames): readonly Step[] {
  const kept = new Set(plan.rules.map(ruleKey));
  const stale = {
    rules: present.rules.filter((rule) => !kept.has(ruleKey(rule))),
    routes: staleRoutes(plan, present),
  };
  return [
    ...routeSteps(plan, present),
    ...newRules(plan, present).map((rule) =>
      step(ruleCommand('add', rule), ruleCommand('del', rule), rule.why),
    ),
    ...markingSteps(plan, present, names),
    ...stale.rules.map((rule) => removal(ruleCommand('del', rule), ruleCommand('add', rule))).reverse(),
    ...stale.routes.map((route) => removal(routeCommand('del', route), routeCommand('add', route))),
  ];
}

function step(command: Command, undo: Command, why: string): Step {
  return { command, undo, why, removes: false };
}

function removal(command: Command, undo: Command): Step {
  return { command, undo, why: 'no longer wanted', removes: true };
}

function newRules(plan: Plan, present: Present): readonly PolicyRule[] {
  const there = new Set(present.rules.map(ruleKey));
  return plan.rules.filter((rule) => !there.has(ruleKey(rule)));
}

function routeSteps(plan: Plan, present: Present): readonly Step[] {
  return plan.routes.flatMap((route) => {
    const held = present.routes.find((other) => slotOf(other) === slotOf(route));
    if (held === undefined) return [step(routeCommand('add', route), routeCommand('del', route), route.why)];
    if (held.words === route.words) return [];
    return [step(routeCommand('replace', route), routeCommand('replace', held), route.why)];
  });
}

function staleRoutes(plan: Plan, present: Present): readonly PresentRoute[] {
  const wanted = new Set(plan.routes.map(slotOf));
  return present.routes.filter((route) => !wanted.has(slotOf(route)));
}

function markingSteps({ marking }: Plan, present: Present, names: PlaceNames): readonly Step[] {
  const before = present.marking;
  const deletion = removalScript(names.table);
  const restoring =
    before === undefined ? deletion : `add table inet ${names.table}\n${deletion}${before.text}`;
  if (marking === undefined) {
    return before === undefined ? [] : [removal(nftCommand(deletion), nftCommand(restoring))];
  }
  if (before !== undefined && isSameMarking(before.objects, marking, names)) return [];
  return [step(nftCommand(markingScript(marking, names)), nftCommand(restoring), marking.why)];
}

function nftCommand(input: string): Command {
  return { tool: 'nft', args: ['-f', '-'], input };
}

function ruleCommand(verb: 'add' | 'del', { family, priority, words }: PresentRule): Command {
  const rule = ['pref', String(priority), ...words.split(' '), 'protocol', ownProtocol];
  return { tool: 'ip', args: [`-${family}`, 'rule', verb, ...rule] };
}

function routeCommand(verb: 'add' | 'replace' | 'del', { family, words }: Route | PresentRoute): Command {
  return { tool: 'ip', args: [`-${family}`, 'route', verb, ...words.split(' '), 'proto', ownProtocol] };
}
