/**
 * What is logged of a flow, once, when it has ended: with the access log every flow, otherwise only those
 * that failed. Attribute names are OpenTelemetry's where it has one. Refusals and failures have a budget per
 * reason; a client can cause as many of them as it likes.
 */
import type { CloseReason, FlowRecord } from '../flow/flow.ts';
import { type Log, SharedCounts } from '../log.ts';
import { type Endpoint, familyOf, formatAddress, formatHost } from '../net/address.ts';

type Level = 'info' | 'warn' | 'debug';

/** How much each end matters to an operator who did not ask for an access log. */
const levels: Record<CloseReason, Level> = {
  done: 'debug',
  'client-reset': 'debug',
  'upstream-reset': 'debug',
  'client-gone': 'debug',
  idle: 'debug',
  'half-close-idle': 'debug',
  'rule-changed': 'debug',
  shutdown: 'debug',
  evicted: 'warn',
  denied: 'info',
  'not-allowed': 'info',
  'client-not-unicast': 'warn',
  'no-upstream': 'warn',
  'family-mismatch': 'warn',
  'no-pseudo-address': 'warn',
  'connect-refused': 'warn',
  'connect-timeout': 'warn',
  'connect-unreachable': 'warn',
  'connect-failed': 'warn',
  'source-unavailable': 'warn',
  'header-untrusted': 'warn',
  'header-invalid': 'warn',
  'header-missing': 'warn',
  'header-timeout': 'warn',
  'limit-flows': 'warn',
  'limit-rule': 'warn',
  'limit-source': 'warn',
  loop: 'warn',
};

/** Of the lines about clients that could not be accepted. */
const acceptKind = 'accept';

/** Whether one more line of this kind may be logged. */
export interface LineBudget {
  allows(kind: CloseReason | typeof acceptKind): boolean;
}

/** @param memory that of another thread, with which the budget is shared */
export function lineCounts(memory?: Int32Array): SharedCounts {
  return new SharedCounts([...Object.keys(levels), acceptKind], memory);
}

/** The one function that hears of ended flows. */
export function flowLog(log: Log, budget: LineBudget, accessLog: boolean): (record: FlowRecord) => void {
  return (record) => {
    const level = levels[record.reason];
    const failed = level !== 'debug';
    if (!failed && !accessLog) return;
    // A refused datagram is no flow, and its source may be forged: no log can promise a line for each.
    const promised = accessLog && record.flow.protocol === 'tcp';
    if (failed && !promised && !budget.allows(record.reason)) return;
    log[failed ? level : 'info'](attributes(record), failed ? 'flow failed' : 'flow ended');
  };
}

/** Of connections that could not be accepted. */
export function acceptLog(log: Log, budget: LineBudget, rule: string): (errno: string) => void {
  return (errno) => {
    if (!budget.allows(acceptKind)) return;
    log.warn({ 'dualport.rule': rule, errno }, 'cannot accept: clients wait');
  };
}

/** Durations are in seconds, as everywhere in OpenTelemetry. */
export function attributes(record: FlowRecord): Record<string, unknown> {
  const { flow, upstream, bytes } = record;
  return {
    'dualport.rule': record.rule,
    'network.transport': flow.protocol,
    'network.type': familyName(flow.client),
    ...named('client', flow.client),
    ...(flow.client === flow.peer ? {} : named('network.peer', flow.peer)),
    ...named('network.local', flow.local),
    ...(upstream === undefined
      ? {}
      : { ...named('server', upstream), 'dualport.upstream.type': familyName(upstream) }),
    ...(record.source === undefined ? {} : seen(record.source)),
    ...(record.plain === undefined ? {} : { 'dualport.source.plain': record.plain }),
    'dualport.fallback': record.fallback,
    ...(record.uniqueId === undefined ? {} : { 'dualport.unique_id': record.uniqueId }),
    'dualport.bytes.from_client': bytes[0],
    'dualport.bytes.from_upstream': bytes[1],
    'dualport.duration': Math.round(record.durationMs) / 1000,
    'dualport.close_reason': record.reason,
  };
}

/** Whom the upstream takes the client for. The port is not known before it was connected. */
function seen({ address, port }: Endpoint): Record<string, unknown> {
  return {
    'dualport.source.address': formatAddress(address),
    ...(port === 0 ? {} : { 'dualport.source.port': port }),
  };
}

function named(prefix: string, endpoint: Endpoint): Record<string, unknown> {
  const address = endpoint.zone === '' ? formatAddress(endpoint.address) : formatHost(endpoint);
  return { [`${prefix}.address`]: address, [`${prefix}.port`]: endpoint.port };
}

function familyName(endpoint: Endpoint): string {
  return familyOf(endpoint.address) === 4 ? 'ipv4' : 'ipv6';
}
