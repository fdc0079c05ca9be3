/** `dualport check`: what would run, as a table or as JSON, without binding anything. */
import { type EffectiveRule, effectiveRules } from '../config/describe.ts';
import { hiddenClientsAdvice, namesToTell } from '../config/hidden-clients.ts';
import { type Config, loadConfig } from '../config/load.ts';
import type { Flags } from '../config/sources.ts';
import { formatMark } from '../config/transparent-options.ts';
import { refuseEngine, refuseHandover } from '../engine/select.ts';
import { exitStatus } from '../errors.ts';
import { formatCidr } from '../net/cidr.ts';
import { type ContainerRow, containerRows, containersTable } from './containers.ts';
import { print } from './print.ts';
import { table } from './table.ts';

export async function check(flags: Flags, json: boolean): Promise<number> {
  const config = loadConfig({ flags, env: process.env });
  refuseEngine(config.engine, config.threads);
  if (config.launchers !== undefined) refuseHandover(config.engine);
  const containers = config.docker === undefined ? undefined : await containerRows(config.docker, config);
  await print(
    json
      ? `${JSON.stringify(checked(config, containers), undefined, 2)}\n`
      : `${tables(config, containers).join('\n\n')}\n`,
  );
  if (config.hidesClients.length > 0) process.stderr.write(`${hidingText(config.hidesClients)}\n`);
  return exitStatus.done;
}

function hidingText(names: readonly string[]): string {
  const { named, more } = namesToTell(names);
  const behind = `${named.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
  return `dualport: behind ${behind} programs see every client under one address: ${hiddenClientsAdvice}`;
}

function tables(config: Config, containers: readonly ContainerRow[] | undefined): readonly string[] {
  const { rules, launchers } = config;
  return [
    ...(rules.length > 0 ? [rulesTable(effectiveRules(config))] : []),
    ...(containers === undefined ? [] : [containersTable(containers)]),
    ...(launchers === undefined
      ? []
      : [`the ports that dockerd's launchers hand over on ${launchers.socket}`]),
  ];
}

function checked(config: Config, containers: readonly ContainerRow[] | undefined): object {
  const { engine, threads, drainTimeoutMs, accessLog, logLevel, logFormat, file, origins } = config;
  const maxFlows = config.maxFlows ?? null;
  const settings = { engine, threads, maxFlows, drainTimeoutMs, accessLog, logLevel, logFormat };
  const docker = containers === undefined ? {} : { containers };
  const launchers = config.launchers === undefined ? {} : { dockerProxySocket: config.launchers.socket };
  const { transparentNetworks, pseudo, transparent } = config;
  const { v4, v6, ...rest } = pseudo;
  const addresses = {
    pseudo: { v4: formatCidr(v4), v6: formatCidr(v6), ...rest },
    transparentNetworks,
    transparent: { ...transparent, mark: formatMark(transparent.mark) },
  };
  const { hidesClients } = config;
  const all = { ...docker, ...launchers, ...settings, ...addresses, hidesClients };
  return { rules: effectiveRules(config), ...all, file: file ?? null, origins };
}

function rulesTable(rules: readonly EffectiveRule[]): string {
  const rows = rules.map((rule) => [
    rule.protocol,
    rule.listen.join(' '),
    rule.upstreams.join(' '),
    rule.family,
    rule.source,
    accessText(rule),
  ]);
  return table(['PROTO', 'LISTEN', 'UPSTREAMS', 'FAMILY', 'SOURCE', 'ACCESS'], rows);
}

function accessText({ allow, deny, acceptProxy }: EffectiveRule): string {
  const parts = [
    allow.length > 0 ? `allow ${allow.join(',')}` : 'everybody',
    ...(deny.length > 0 ? [`deny ${deny.join(',')}`] : []),
    ...(acceptProxy.length > 0 ? [`header from ${acceptProxy.join(',')}`] : []),
  ];
  return parts.join('; ');
}
