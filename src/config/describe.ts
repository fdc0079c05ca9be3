/**
 * The rules in force as plain rows, for a table or as JSON: every value as text or number, nothing left out
 * because it was not written.
 */
import { formatCidr } from '../net/cidr.ts';
import { boundHosts } from './listener-index.ts';
import type { Config } from './load.ts';
import { formatBindHost, formatPortRange, type PublishedPort } from './port-spec.ts';
import type { Rule, RuleTimeouts } from './rules.ts';
import { formatUpstream } from './target.ts';

export interface EffectiveRule {
  readonly name: string;
  readonly protocol: string;
  /** Socket addresses; `*` where the kernel chooses the port, `8000-9000` where any of these will do. */
  readonly listen: readonly string[];
  /** Addresses or names, with the container port. */
  readonly upstreams: readonly string[];
  readonly family: string;
  readonly source: string;
  readonly mismatch: string;
  readonly sourcePort: string;
  readonly udpHeader: string;
  readonly proxyCrc32c: boolean;
  readonly proxyUniqueId: boolean;
  readonly acceptProxy: readonly string[];
  readonly allow: readonly string[];
  readonly deny: readonly string[];
  /** In milliseconds. */
  readonly timeouts: RuleTimeouts;
  readonly udpReplies: string;
  /** Null: the service's own share of all flows. */
  readonly maxFlowsPerRule: number | null;
  readonly maxFlowsPerSource: number | null;
}

/** One row per rule, in their order. */
export function effectiveRules(config: Pick<Config, 'rules'>): readonly EffectiveRule[] {
  return config.rules.map(effectiveRule);
}

function effectiveRule(rule: Rule): EffectiveRule {
  return {
    name: rule.name,
    protocol: rule.port.protocol,
    listen: listenTexts(rule.port),
    upstreams: rule.to.map((target) => formatUpstream(target, rule.port.containerPort)),
    family: rule.family,
    source: rule.source,
    mismatch: rule.mismatch,
    sourcePort: rule.sourcePort,
    udpHeader: rule.udpHeader,
    proxyCrc32c: rule.proxyCrc32c,
    proxyUniqueId: rule.proxyUniqueId,
    acceptProxy: rule.acceptProxy.map(formatCidr),
    allow: rule.allow.map(formatCidr),
    deny: rule.deny.map(formatCidr),
    timeouts: rule.timeouts,
    udpReplies: rule.udpReplies,
    maxFlowsPerRule: rule.maxFlowsPerRule ?? null,
    maxFlowsPerSource: rule.maxFlowsPerSource ?? null,
  };
}

/** `0.0.0.0:8080` and `[::]:8080`, or the one address that was named. */
export function listenTexts(port: PublishedPort): readonly string[] {
  const ports = port.hostPorts === undefined ? '*' : formatPortRange(port.hostPorts);
  return boundHosts(port.host).map((host) => `${formatBindHost(host)}:${ports}`);
}
