/** `dualport check`: what would run, as a table or as JSON, without binding anything. */
import { type EffectiveRule, effectiveRules } from '../config/describe.ts';
import { type Config, loadConfig } from '../config/load.ts';
import type { Flags } from '../config/sources.ts';
import { refuseEngine } from '../engine/select.ts';
import { exitStatus } from '../errors.ts';
import { table } from './table.ts';

export async function check(flags: Flags, json: boolean): Promise<number> {
  const config = loadConfig({ flags, env: process.env });
  refuseEngine(config.engine);
  process.stdout.write(
    json ? `${JSON.stringify(checked(config), undefined, 2)}\n` : `${rulesTable(effectiveRules(config))}\n`,
  );
  return exitStatus.done;
}

function checked(config: Config): object {
  const { engine, maxFlows, drainTimeoutMs, accessLog, logLevel, logFormat, file, origins } = config;
  const settings = { engine, maxFlows: maxFlows ?? null, drainTimeoutMs, accessLog, logLevel, logFormat };
  return { rules: effectiveRules(config), ...settings, file: file ?? null, origins };
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
