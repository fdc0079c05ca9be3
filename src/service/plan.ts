/**
 * What an engine is given for a rule. A plan is functions, which stay on their thread; what most are compiled from
 * is data, which goes to the other threads, so that each compiles the same plan for itself.
 */
import type { Rule } from '../config/rules.ts';
import type { FlowLimits, RuleGroup } from '../engine/admission.ts';
import type { Plan } from '../engine/engine.ts';
import type { FlowRecord } from '../flow/flow.ts';
import type { Endpoint } from '../net/address.ts';
import { compileApproach } from '../policy/approach.ts';
import { compileDecide, compileTrust } from '../policy/decide.ts';
import type { HostNetworks, Surroundings } from '../policy/surroundings.ts';
import { replyBudgetOf } from './limits.ts';

/** RFC 8305 §5 recommends 250 ms and calls less than 100 ms too eager. */
const raceMs = 250;

export interface PlanData {
  readonly rule: Rule;
  /** Every address of the rule's targets, as they are known now. */
  readonly upstreams: readonly Endpoint[];
  readonly around: HostNetworks;
  readonly limits: FlowLimits;
  readonly accessLog: boolean;
}

export interface RulePlan extends Plan {
  /** Undefined when the main thread alone can decide: of flows that get pseudo addresses, or late upstreams. */
  readonly data: PlanData | undefined;
}

/** What the engine says of it. */
type Heard = Pick<Plan, 'ended' | 'acceptFailed'>;

/** On another thread. */
export function compilePlan(data: PlanData, group: RuleGroup, heard: Heard): Plan {
  const { rule, upstreams, limits } = data;
  const around = { ...nowhere, ...data.around };
  const decide = compileDecide(rule, upstreams, around);
  return makePlan(rule, { decide, approach: compileApproach(rule, upstreams, around) }, limits, group, heard);
}

export function makePlan(
  rule: Rule,
  showing: Pick<Plan, 'decide' | 'approach'>,
  limits: FlowLimits,
  group: RuleGroup,
  heard: Heard,
): Plan {
  const { name, timeouts } = rule;
  return {
    rule: name,
    ...showing,
    trusts: compileTrust(rule),
    timeouts: { ...timeouts, raceMs },
    limits,
    replies: replyBudgetOf(rule),
    group,
    ...heard,
  };
}

/** Of a host without networks, and without pseudo addresses. */
export const nowhere: Surroundings = {
  own: [],
  networks: [],
  pseudo: { 4: false, 6: false },
  pseudonyms: {
    of: () => {
      throw new Error('a rule that uses no pseudo addresses asked for one');
    },
    hasOneFor: () => false,
  },
};

export function reachedNobody({ reason }: FlowRecord): boolean {
  return reason.startsWith('connect-');
}
