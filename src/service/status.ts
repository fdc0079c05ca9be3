/**
 * What runs now, as plain values: the answer of `/status`, of `dualport status`, and of SIGUSR1.
 */
import { type CounterName, sumCounter } from '../flow/counters.ts';
import { formatEndpoint } from '../net/address.ts';
import type { Service } from './service.ts';

export interface Status {
  readonly version: string;
  readonly engine: string;
  readonly ready: boolean;
  readonly uptimeSeconds: number;
  readonly maxFlows: number;
  /** The main thread first. */
  readonly threads: readonly ThreadStatus[];
  readonly rules: readonly RuleStatus[];
}

/** How the clients are spread. */
export interface ThreadStatus {
  readonly flowsActive: number;
  /** Of the rules that run now. */
  readonly flows: number;
}

export interface RuleStatus {
  readonly name: string;
  readonly listen: readonly string[];
  readonly upstreams: readonly string[];
  readonly source: string;
  readonly flowsActive: number;
  readonly flows: number;
  readonly fallbacks: number;
  readonly failures: number;
  /** From clients, from upstreams. */
  readonly bytes: readonly [number, number];
}

export function statusOf(service: Service, version: string): Status {
  return {
    version,
    engine: service.engine.name,
    ready: !service.draining,
    uptimeSeconds: Math.floor((Date.now() - service.startedAt.getTime()) / 1000),
    maxFlows: service.maxFlows,
    threads: threadsOf(service),
    rules: service.rules.map(({ rule, counters, listeners, upstreams }) => {
      const sum = (...names: readonly CounterName[]) =>
        names.reduce((total, name) => total + sumCounter(counters, name), 0);
      return {
        name: rule.name,
        listen: listeners.map(({ local }) => formatEndpoint(local)),
        upstreams: upstreams.map(formatEndpoint),
        source: rule.source,
        flowsActive: sum('tcpFlowsActive', 'udpFlowsActive'),
        flows: sum('tcpFlows', 'udpFlows'),
        fallbacks: sum('fallbacks'),
        failures: sum(
          'connectRefused',
          'connectTimeout',
          'connectUnreachable',
          'connectFailed',
          'sourceUnavailable',
        ),
        bytes: [sum('bytesFromClient'), sum('bytesFromUpstream')],
      };
    }),
  };
}

export function threadsOf({ engine, rules }: Service): readonly ThreadStatus[] {
  return Array.from({ length: engine.count }, (_, thread) => {
    const blocks = rules.flatMap(({ counters }) => counters[thread] ?? []);
    const sum = (...names: readonly CounterName[]) =>
      names.reduce((total, name) => total + sumCounter(blocks, name), 0);
    return { flowsActive: sum('tcpFlowsActive', 'udpFlowsActive'), flows: sum('tcpFlows', 'udpFlows') };
  });
}
