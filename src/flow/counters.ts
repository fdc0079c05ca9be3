/**
 * The counter block: one per rule and thread, in shared memory, so that reading statistics is no call into an
 * engine, which adds to it in C as well. Only one thread adds to a block, for adding is a read and a write; what a
 * rule has is the sum of its blocks. Values are doubles, exact up to 2^53.
 */

/** Names in the order of the block. Gauges come first; everything else only grows. */
export const counterNames = [
  'tcpFlowsActive',
  'udpFlowsActive',
  'tcpFlows',
  'udpFlows',
  'bytesFromClient',
  'bytesFromUpstream',
  'datagramsFromClient',
  'datagramsFromUpstream',
  'fallbacks',
  'connectRefused',
  'connectTimeout',
  'connectUnreachable',
  'connectFailed',
  'sourceUnavailable',
  'plainSameSubnet',
  'plainUpstreamItself',
  'plainLinkLocal',
  'plainOwnAddress',
  'refusedByAccess',
  'refusedBySource',
  'refusedByLimit',
  'refusedAsLoop',
  'headerErrors',
  'resets',
  'evictions',
  'droppedSource',
  'droppedOversize',
  'droppedQueue',
  'droppedNoUpstream',
  'droppedBudget',
  'icmpRefusals',
  'acceptFailures',
] as const;

export type CounterName = (typeof counterNames)[number];

export type Counters = Float64Array;

/** The index of each name in the block. */
export const counterIndex = Object.fromEntries(counterNames.map((name, i) => [name, i])) as Record<
  CounterName,
  number
>;

export function makeCounters(): Counters {
  return new Float64Array(new SharedArrayBuffer(counterNames.length * Float64Array.BYTES_PER_ELEMENT));
}

export function count(counters: Counters, name: CounterName, by = 1): void {
  const index = counterIndex[name];
  counters[index] = (counters[index] ?? 0) + by;
}

/** Over all threads. */
export function sumCounter(blocks: readonly Counters[], name: CounterName): number {
  return blocks.reduce((sum, block) => sum + readCounter(block, name), 0);
}

export function readCounter(counters: Counters, name: CounterName): number {
  return counters[counterIndex[name]] ?? 0;
}
