/**
 * `dualport transparent print|up|down|check`: what source transparent and pseudo need of the kernel, for the rules
 * in force: shown, made, removed, and proved.
 */
import { type Config, loadConfig, loadTransparentConfig } from '../config/load.ts';
import type { Rule } from '../config/rules.ts';
import type { Flags } from '../config/sources.ts';
import { DualportError, exitStatus } from '../errors.ts';
import { makeLog } from '../log.ts';
import { type Address, familyOf, formatAddress, parseAddress } from '../net/address.ts';
import { showsClients } from '../service/client-addresses.ts';
import { Resolver } from '../service/resolver.ts';
import { applyPlan, removeAll } from '../transparent/apply.ts';
import { checkUpstreams, type Finding } from '../transparent/check/check.ts';
import { removeLeftTrace } from '../transparent/check/trace-table.ts';
import { hasIpv6 } from '../transparent/host.ts';
import { lockPlace } from '../transparent/lock.ts';
import { type Needs, needsOf, onIpv4, type RunningRule } from '../transparent/needs.ts';
import type { Plan } from '../transparent/plan.ts';
import { scriptText, setupScript, undoScript } from '../transparent/script.ts';
import { planFor } from '../transparent/setup.ts';
import { type Command, run } from '../transparent/system.ts';
import { containerRules } from './containers.ts';

export async function transparentPrint(flags: Flags, undo: boolean): Promise<number> {
  const { config, plan } = await loadPlan(flags);
  const text = undo ? undoScript(plan, config.transparent) : setupScript(plan, config.transparent);
  process.stdout.write(text);
  return exitStatus.done;
}

export async function transparentUp(flags: Flags): Promise<number> {
  const { config, plan } = await loadPlan(flags);
  for (const remark of plan.remarks) process.stderr.write(`dualport: note: ${remark}\n`);
  const stop = endSignals();
  const lock = await lockPlace(config.transparent);
  try {
    const changed = await applyPlan(run, plan, config.transparent, show, stop);
    if (!changed) say('everything is in place already');
  } finally {
    lock.release();
  }
  return exitStatus.done;
}

export async function transparentDown(flags: Flags): Promise<number> {
  refuseElsewhere();
  const names = loadTransparentConfig({ flags, env: process.env });
  endSignals();
  const lock = await lockPlace(names);
  try {
    const { changed, foreign } = await removeAll(run, names, show);
    await removeLeftTrace(run, names);
    for (const what of foreign) process.stderr.write(`dualport: note: left alone: ${what}\n`);
    if (!changed) say('there is nothing to remove');
  } finally {
    lock.release();
  }
  return exitStatus.done;
}

/** @param from addresses of clients to call upstreams as */
export async function transparentCheck(
  flags: Flags,
  from: readonly string[],
  json: boolean,
): Promise<number> {
  const { config, rules, plan } = await loadPlan(flags);
  const needs = hasIpv6() ? needsOf(rules) : onIpv4(needsOf(rules));
  const clients = from.map(parseAddress);
  refuseForeignFamily(needs, clients);
  const { findings, remarks } = await checkUpstreams(run, needs, plan, config, clients, endSignals());
  const all = [...plan.remarks, ...remarks];
  const works = findings.every(({ verdict }) => verdict.result !== 'fails');
  if (json) say(JSON.stringify({ works, findings, remarks: all }, undefined, 2));
  else
    for (const line of [...findings.map(findingText), ...remedies(findings), ...all.map(noteText)]) say(line);
  return works ? exitStatus.done : exitStatus.failure;
}

const resultWords = { works: 'ok  ', untold: '?   ', fails: 'FAIL' } as const;

function findingText({ upstream, source, client, verdict }: Finding): string {
  const head = `${resultWords[verdict.result]}  ${upstream} as ${client} (${source}): ${verdict.text}`;
  return verdict.result === 'fails' ? `${head} [${verdict.cause}]` : head;
}

/** Each once, however many upstreams it would help. */
function remedies(findings: readonly Finding[]): readonly string[] {
  const lines = findings.flatMap(({ verdict }) =>
    verdict.result === 'fails' ? [`remedy for ${verdict.cause}: ${verdict.remedy}`] : [],
  );
  return [...new Set(lines)];
}

function noteText(remark: string): string {
  return `note: ${remark}`;
}

function refuseForeignFamily({ transparent }: Needs, clients: readonly Address[]): void {
  const families = new Set(transparent.map(({ address }) => familyOf(address)));
  const stranger = clients.find((address) => !families.has(familyOf(address)));
  if (stranger === undefined) return;
  throw new DualportError(
    'USAGE',
    `--from: found ${formatAddress(stranger)}, and no upstream with source transparent is of IPv${familyOf(stranger)}; ` +
      'allowed: addresses of the family of an upstream',
  );
}

interface Loaded {
  readonly config: Config;
  readonly rules: readonly RunningRule[];
  readonly plan: Plan;
}

/** For the rules of the configuration, and with --docker for those of the containers that run now. */
async function loadPlan(flags: Flags): Promise<Loaded> {
  refuseElsewhere();
  const config = loadConfig({ flags, env: process.env });
  const fromContainers = config.docker === undefined ? [] : await containerRules(config.docker, config);
  const rules = await resolved([...config.rules, ...fromContainers]);
  const plan = await planFor(run, rules, config);
  const remarks = [...plan.remarks, ...rules.flatMap(waitingRemark)];
  const isNothing = plan.routes.length === 0 && remarks.length === 0;
  return { config, rules, plan: { ...plan, remarks: isNothing ? [nothingToDo(rules)] : remarks } };
}

/** With the addresses that names have now. */
async function resolved(rules: readonly Rule[]): Promise<readonly RunningRule[]> {
  const resolver = new Resolver(makeLog({ level: 'error', format: 'json' }), () => {});
  await resolver.follow(rules);
  resolver.close();
  return rules.map((rule) => ({ rule, upstreams: resolver.upstreams(rule) }));
}

function waitingRemark({ rule, upstreams }: RunningRule): readonly string[] {
  if (upstreams.length > 0 || !showsClients(rule)) return [];
  return [`${rule.name} has no upstream yet: run this again when its name resolves, or give --to an address`];
}

function nothingToDo(rules: readonly RunningRule[]): string {
  const sources = [...new Set(rules.map(({ rule }) => rule.source))].join(', ') || 'none';
  return `nothing has to be set up: the rules have source ${sources}, and only transparent and pseudo need it`;
}

function refuseElsewhere(): void {
  if (process.platform === 'linux') return;
  throw new DualportError(
    'SETUP',
    `transparent and pseudo connections are set up in the kernel of Linux, and this is ${process.platform}`,
  );
}

/** A change is short; one that is interrupted is undone and not left half done. */
function endSignals(): AbortSignal {
  const stopped = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stopped.abort());
  return stopped.signal;
}

function show(command: Command): void {
  say(scriptText(command));
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
