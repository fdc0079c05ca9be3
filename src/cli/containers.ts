/** The containers of the Docker Engine in `serve` and `check`: who follows them, and how they are shown. */
import { listenTexts } from '../config/describe.ts';
import type { EngineAddress } from '../config/docker-options.ts';
import type { Config } from '../config/load.ts';
import type { Rule } from '../config/rules.ts';
import { formatUpstream } from '../config/target.ts';
import { DockerApi } from '../docker/api.ts';
import { complaintOf } from '../docker/complaints.ts';
import { type DockerStatus, Follower, ownAddresses } from '../docker/follower.ts';
import { planRoutes, type Refusal, type Route, type Routes } from '../docker/routes.ts';
import type { Log } from '../log.ts';
import { familyOf } from '../net/address.ts';
import { openFileLimit } from '../service/host.ts';
import { mostAddedRules } from '../service/limits.ts';
import { valueText } from '../service/metrics.ts';
import type { Service } from '../service/service.ts';
import { table } from './table.ts';

/** @param current the configuration in force */
export async function makeFollower(
  engine: EngineAddress,
  service: Service,
  current: () => Config,
  log: Log,
): Promise<Follower> {
  const mostRules = mostAddedRules(openFileLimit(), service.engine.count);
  return new Follower(await DockerApi.open(engine), service, () => ({ config: current(), mostRules }), log);
}

/** One port of a container, or why there is none. */
export interface ContainerRow {
  readonly container: string;
  readonly published: boolean;
  /** The port as it was asked for; null when it is about the container as a whole. */
  readonly rule: string | null;
  readonly listen: readonly string[];
  /** Where its clients are led; null when they are not led to this family. */
  readonly ipv4: string | null;
  readonly ipv6: string | null;
  readonly source: string | null;
  readonly why: string;
}

/** What would be published of the containers there are now. */
export async function containerRows(engine: EngineAddress, config: Config): Promise<readonly ContainerRow[]> {
  const { routes, refusals, warnings, left } = await readRoutes(engine, config);
  const rows = [
    ...routes.map(routeRow),
    ...refusals.map((refusal) => refusalRow(refusal, 'not published: ')),
    ...warnings.map((warning) => refusalRow(warning, 'warning: ')),
    ...left.map((remark) => refusalRow(remark, 'not mirrored: ')),
  ];
  return rows.sort((a, b) => (a.container < b.container ? -1 : Number(a.container > b.container)));
}

/** The rules that would be made of them. */
export async function containerRules(engine: EngineAddress, config: Config): Promise<readonly Rule[]> {
  const { routes } = await readRoutes(engine, config);
  return routes.map(({ rule }) => rule);
}

async function readRoutes(engine: EngineAddress, config: Config): Promise<Routes> {
  const api = await DockerApi.open(engine);
  const { signal } = new AbortController();
  await api.version(signal);
  const snapshot = await api.list(signal);
  const mostRules = mostAddedRules(openFileLimit(), config.threads);
  return planRoutes(snapshot, { config, own: ownAddresses(), mostRules, holder: () => undefined });
}

export function containersTable(rows: readonly ContainerRow[]): string {
  const cells = rows.map((row) => [
    row.container,
    row.listen.length > 0 ? row.listen.join(' ') : (row.rule ?? '-'),
    row.ipv4 ?? '-',
    row.ipv6 ?? '-',
    row.source ?? '-',
    row.why,
  ]);
  if (cells.length === 0) return 'no container asks for a port';
  return table(['CONTAINER', 'LISTEN', 'IPV4', 'IPV6', 'SOURCE', 'WHY'], cells);
}

function routeRow({ rule, container, why, rival }: Route): ContainerRow {
  const taken = rival === undefined ? '' : `; Docker itself publishes ${rival}`;
  return {
    container: container.name,
    published: true,
    rule: rule.name,
    listen: listenTexts(rule.port),
    ipv4: upstreamOf(rule, 4),
    ipv6: upstreamOf(rule, 6),
    source: rule.source,
    why: why + taken,
  };
}

function upstreamOf({ to, port, family }: Rule, wanted: 4 | 6): string | null {
  if ((family === 'v4' && wanted === 6) || (family === 'v6' && wanted === 4)) return null;
  const target = to.find(
    (candidate) => candidate.kind === 'address' && familyOf(candidate.address) === wanted,
  );
  return target === undefined ? null : formatUpstream(target, port.containerPort);
}

function refusalRow(refusal: Refusal, what: string): ContainerRow {
  const { container, port, reason } = complaintOf(refusal);
  const nothing = { published: false, listen: [], ipv4: null, ipv6: null, source: null };
  return { container, rule: port ?? null, ...nothing, why: what + reason };
}

export function containerMetrics({ connected, rules, refused, lists, events }: DockerStatus): string {
  return [
    valueText(
      'dualport_docker_connected',
      'gauge',
      'Whether the Docker Engine is followed.',
      Number(connected),
    ),
    valueText('dualport_docker_rules', 'gauge', 'Rules that come from containers.', rules),
    valueText('dualport_docker_refused', 'gauge', 'What containers ask for and do not get.', refused),
    valueText('dualport_docker_lists_total', 'counter', 'Lists of containers that were read.', lists),
    valueText('dualport_docker_events_total', 'counter', 'Events of the Docker Engine.', events),
  ].join('');
}
