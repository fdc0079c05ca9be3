/**
 * The counters of every rule in Prometheus' text format 0.0.4. Names follow its naming rules (base units,
 * `_total`); no label holds anything a client can choose, so the number of series is bounded by the rules.
 */
import { type CounterName, sumCounter } from '../flow/counters.ts';
import { droppedLines } from '../log.ts';
import type { RunningRule, Service } from './service.ts';
import { threadsOf } from './status.ts';

interface Series {
  readonly counter: CounterName;
  readonly labels: Readonly<Record<string, string>>;
}

interface Metric {
  readonly name: string;
  readonly type: 'counter' | 'gauge';
  readonly help: string;
  readonly series: readonly Series[];
}

const one = (counter: CounterName): readonly Series[] => [{ counter, labels: {} }];

const by = (label: string, values: Readonly<Record<string, CounterName>>): readonly Series[] =>
  Object.entries(values).map(([value, counter]) => ({ counter, labels: { [label]: value } }));

const metrics: readonly Metric[] = [
  {
    name: 'dualport_flows_active',
    type: 'gauge',
    help: 'Flows that exist now.',
    series: by('protocol', { tcp: 'tcpFlowsActive', udp: 'udpFlowsActive' }),
  },
  {
    name: 'dualport_flows_total',
    type: 'counter',
    help: 'Flows that were accepted.',
    series: by('protocol', { tcp: 'tcpFlows', udp: 'udpFlows' }),
  },
  {
    name: 'dualport_bytes_total',
    type: 'counter',
    help: 'Payload bytes by the side they came from.',
    series: by('from', { client: 'bytesFromClient', upstream: 'bytesFromUpstream' }),
  },
  {
    name: 'dualport_datagrams_total',
    type: 'counter',
    help: 'UDP datagrams by the side they came from.',
    series: by('from', { client: 'datagramsFromClient', upstream: 'datagramsFromUpstream' }),
  },
  {
    name: 'dualport_fallbacks_total',
    type: 'counter',
    help: 'Flows served by another upstream than the first of their order.',
    series: one('fallbacks'),
  },
  {
    name: 'dualport_upstream_connect_failures_total',
    type: 'counter',
    help: 'Flows for which no upstream could be reached.',
    series: by('reason', {
      refused: 'connectRefused',
      timeout: 'connectTimeout',
      unreachable: 'connectUnreachable',
      failed: 'connectFailed',
      source: 'sourceUnavailable',
    }),
  },
  {
    name: 'dualport_source_plain_total',
    type: 'counter',
    help: 'Flows of source transparent whose upstream did not see the client.',
    series: by('reason', {
      same_subnet: 'plainSameSubnet',
      upstream_itself: 'plainUpstreamItself',
      link_local: 'plainLinkLocal',
      own_address: 'plainOwnAddress',
    }),
  },
  {
    name: 'dualport_rejected_total',
    type: 'counter',
    help: 'Flows that were turned away.',
    series: by('reason', {
      access: 'refusedByAccess',
      limit: 'refusedByLimit',
      loop: 'refusedAsLoop',
      proxy_header: 'headerErrors',
      source: 'refusedBySource',
    }),
  },
  {
    name: 'dualport_accept_failures_total',
    type: 'counter',
    help: 'Times a connection could not be accepted, for want of descriptors or memory.',
    series: one('acceptFailures'),
  },
  {
    name: 'dualport_resets_total',
    type: 'counter',
    help: 'TCP flows that one side reset.',
    series: one('resets'),
  },
  {
    name: 'dualport_udp_evictions_total',
    type: 'counter',
    help: 'Unanswered UDP flows that made room for new ones.',
    series: one('evictions'),
  },
  {
    name: 'dualport_udp_refusals_total',
    type: 'counter',
    help: 'ICMP refusals from upstreams.',
    series: one('icmpRefusals'),
  },
  {
    name: 'dualport_udp_dropped_total',
    type: 'counter',
    help: 'UDP datagrams that were dropped.',
    series: by('reason', {
      source: 'droppedSource',
      oversize: 'droppedOversize',
      queue: 'droppedQueue',
      no_upstream: 'droppedNoUpstream',
      budget: 'droppedBudget',
    }),
  },
];

/** What the service itself remembers of its reloads. */
export interface ReloadHistory {
  readonly succeeded: number;
  readonly failed: number;
  /** Milliseconds since the epoch. */
  readonly lastSuccessMs: number;
}

export function metricsText(service: Service, version: string, reloads: ReloadHistory): string {
  const rules = service.rules;
  return [
    ...metrics.map((metric) => metricText(metric, rules)),
    ...pseudoLines(service),
    ...processLines(service, version, reloads),
    '',
  ].join('\n');
}

function metricText({ name, type, help, series }: Metric, rules: readonly RunningRule[]): string {
  const lines = rules.flatMap(({ rule, counters }) =>
    series.map(({ counter, labels }) =>
      line(name, { rule: rule.name, ...labels }, sumCounter(counters, counter)),
    ),
  );
  return [...heading(name, type, help), ...lines].join('\n');
}

function pseudoLines({ pseudonyms }: Service): readonly string[] {
  if (pseudonyms === undefined) return [];
  return [
    ...heading('dualport_pseudo_addresses', 'gauge', 'Clients that have a pseudo address.'),
    line('dualport_pseudo_addresses', {}, pseudonyms.size),
    ...heading('dualport_pseudo_addresses_limit', 'gauge', 'Most of them at once.'),
    line('dualport_pseudo_addresses_limit', {}, pseudonyms.capacity),
  ];
}

function processLines(service: Service, version: string, reloads: ReloadHistory): readonly string[] {
  const build = { version, engine: service.engine.name, node: process.version };
  return [
    ...heading('dualport_build_info', 'gauge', 'What runs.'),
    line('dualport_build_info', build, 1),
    ...heading('dualport_flows_limit', 'gauge', 'Most flows at once.'),
    line('dualport_flows_limit', {}, service.maxFlows),
    ...heading(
      'dualport_thread_flows_active',
      'gauge',
      'Flows that exist now, by the thread that relays them.',
    ),
    ...threadsOf(service).map(({ flowsActive }, i) =>
      line('dualport_thread_flows_active', { thread: String(i + 1) }, flowsActive),
    ),
    ...heading('dualport_config_reloads_total', 'counter', 'Reloads by their result.'),
    line('dualport_config_reloads_total', { result: 'success' }, reloads.succeeded),
    line('dualport_config_reloads_total', { result: 'failure' }, reloads.failed),
    ...heading(
      'dualport_config_last_reload_success_timestamp_seconds',
      'gauge',
      'When the running rules were read.',
    ),
    line('dualport_config_last_reload_success_timestamp_seconds', {}, reloads.lastSuccessMs / 1000),
    ...heading('dualport_log_lines_dropped_total', 'counter', 'Log lines nobody read in time.'),
    line('dualport_log_lines_dropped_total', {}, droppedLines.count),
    ...heading('process_start_time_seconds', 'gauge', 'Start of the process since the epoch.'),
    line('process_start_time_seconds', {}, service.startedAt.getTime() / 1000),
    ...heading('process_resident_memory_bytes', 'gauge', 'Resident memory.'),
    line('process_resident_memory_bytes', {}, process.memoryUsage.rss()),
  ];
}

/** One more value that only whoever runs the service knows. */
export function valueText(name: string, type: Metric['type'], help: string, value: number): string {
  return [...heading(name, type, help), line(name, {}, value), ''].join('\n');
}

function heading(name: string, type: string, help: string): readonly string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`];
}

function line(name: string, labels: Readonly<Record<string, string>>, value: number): string {
  const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
  return pairs.length === 0 ? `${name} ${value}` : `${name}{${pairs.join(',')}} ${value}`;
}

function escapeLabel(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
