/**
 * Proves the set-up: every upstream is called as this host and as a client that is somewhere else; where only the
 * first is answered, what the kernel counted meanwhile says why. Nothing stays behind.
 */
import type { Config } from '../../config/load.ts';
import { messageOf } from '../../errors.ts';
import { type Address, familyOf, formatAddress } from '../../net/address.ts';
import { stepsTo } from '../change.ts';
import { lockCheck } from '../lock.ts';
import { formatUpstream, type Needs } from '../needs.ts';
import type { Plan } from '../plan.ts';
import { readPresent } from '../present.ts';
import { type Command, commandText, type Run } from '../system.ts';
import { attempt, type Outcome } from './attempt.ts';
import { blame, type Verdict } from './blame.ts';
import { type Case, casesOf } from './cases.ts';
import { readSurroundings } from './surroundings.ts';
import { counting } from './trace-table.ts';

export interface Finding {
  readonly upstream: string;
  readonly source: 'transparent' | 'pseudo';
  /** The address it was called as. */
  readonly client: string;
  readonly verdict: Verdict;
}

export interface Check {
  readonly findings: readonly Finding[];
  /** What could not be looked into, and how many upstreams were not tried. */
  readonly remarks: readonly string[];
}

/** Most attempts: each takes a descriptor, a dozen counters, and seconds when it fails. */
const mostAttempts = 64;

type Wanted = Pick<Config, 'transparent' | 'pseudo'>;

/**
 * @param clients addresses to call as; for a family without one, addresses that are kept for documentation
 * @param stop when it is aborted, no answer is waited for any more
 */
export async function checkUpstreams(
  start: Run,
  needs: Needs,
  plan: Plan,
  wanted: Wanted,
  clients: readonly Address[],
  stop: AbortSignal,
): Promise<Check> {
  const all = await casesOf(start, needs, wanted.pseudo, clients);
  const cases = all.slice(0, mostAttempts);
  const lock = await lockCheck(wanted.transparent);
  try {
    const plain = await attemptAll(cases, (upstream) => attempt(upstream, stop));
    const asClients = () => attemptAll(cases, (upstream, client) => attempt(upstream, stop, client));
    const counted = await counting(start, wanted.transparent, cases, asClients);
    const missing = await readMissing(start, plan, wanted.transparent);
    const findings: Finding[] = [];
    for (const [i, one] of cases.entries()) {
      const trace = counted.traces[i];
      const outcomes = { plain: plain[i] ?? silence, spoofed: counted.result[i] ?? silence, trace };
      const around = await readSurroundings(start, one, wanted.transparent.mark, trace);
      findings.push(findingOf(one, blame({ ...outcomes, ...around, missing: missingFor(one, missing) })));
    }
    return { findings, remarks: remarksOn(all.length - cases.length, counted.obstacle, missing) };
  } finally {
    lock.release();
  }
}

function attemptAll(
  cases: readonly Case[],
  once: (upstream: Case['upstream'], client: Case['client']) => Promise<Outcome>,
): Promise<readonly Outcome[]> {
  return Promise.all(cases.map(({ upstream, client }) => once(upstream, client)));
}

function remarksOn(left: number, obstacle: string | undefined, missing: Missing): readonly string[] {
  return [
    ...(left > 0 ? [`${left} more were not tried`] : []),
    ...(obstacle === undefined ? [] : [`nothing could be counted: ${obstacle}`]),
    ...('obstacle' in missing ? [`the rules in force could not be read: ${missing.obstacle}`] : []),
  ];
}

const silence: Outcome = { kind: 'silent' };

function findingOf({ upstream, client }: Case, verdict: Verdict): Finding {
  return {
    upstream: formatUpstream(upstream),
    source: client.kind === 'foreign' ? 'transparent' : 'pseudo',
    client: formatAddress(client.address),
    verdict,
  };
}

/** What of the plan is not in force, as the commands that would make it; or why that is not known. */
type Missing = { readonly commands: readonly Command[] } | { readonly obstacle: string };

async function readMissing(start: Run, plan: Plan, names: Config['transparent']): Promise<Missing> {
  try {
    const present = await readPresent(start, names, plan);
    const steps = stepsTo(plan, present, names).filter(({ removes }) => !removes);
    return { commands: steps.map(({ command }) => command) };
  } catch (error) {
    return { obstacle: messageOf(error) };
  }
}

/** Those of its family; pseudo addresses need their route, and nothing else does. */
function missingFor({ upstream, client }: Case, missing: Missing): readonly string[] | undefined {
  if ('obstacle' in missing) return undefined;
  const family = `-${familyOf(upstream.address)}`;
  const pseudo = client.kind === 'local';
  return missing.commands.flatMap((command) => {
    if (command.tool === 'nft') return pseudo ? [] : ['the nft table'];
    return command.args.includes(family) && isPseudoRoute(command) === pseudo ? [commandText(command)] : [];
  });
}

function isPseudoRoute({ args }: Command): boolean {
  return args[args.indexOf('table') + 1] === 'local';
}
