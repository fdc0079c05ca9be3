/**
 * How many flows fit. Accept must never fail for want of descriptors (Node would then close clients without
 * a word), so the limit of open files is divided up before anything listens:
 *
 *     max flows = (open files - 192 for the process itself - listeners) / 3, at most 65 536
 *
 * The 192 are 64 for Node and its admin address, and 128 for the pipes through which the Linux engine splices; every
 * further thread has such pipes too, and 8 for itself. A flow holds two descriptors, and a third while two upstream
 * addresses race. All UDP flows together may have half of the flows. One source gets a quarter of what its protocol may
 * have, and one rule half of it when there are others (for UDP: other UDP rules), so whoever floods one UDP port with
 * forged sources that its program answers takes no other port's places. Where containers or launchers bring rules, the
 * descriptors of as many as they may bring are counted from the start.
 *
 * The portable engine has no pipes and cannot leave clients in the backlog: what is left over, up to a backlog, is
 * for those that wait.
 */
import type { Config } from '../config/load.ts';
import type { Rule } from '../config/rules.ts';
import { type FlowLimits, mostUdpFlows } from '../engine/admission.ts';
import { attemptsAtOnce } from '../engine/race.ts';
import type { ReplyBudget } from '../engine/reply-budget.ts';

const ownFiles = 64;
const pipeFiles = 128;
const reservedFiles = ownFiles + pipeFiles;
const reservedFilesOfThread = 8 + pipeFiles;
const filesAFlow = 1 + attemptsAtOnce;
const mostWaitingClients = 4096;
const mostFlows = 65_536;
const mostRules = 1024;
const mostLaunchersAtOnce = 10_000;
const filesOfLauncher = 2;
/** Below this the limit of open files leaves no room for a service. */
const leastFlows = 8;

/** Most flows at once over all rules. */
export function maxFlows(config: Config, openFiles: number): number {
  if (config.maxFlows !== undefined) return config.maxFlows;
  return Math.max(leastFlows, config.threads, Math.min(mostFlows, flowsThatFit(config, openFiles)));
}

/** A limit that was set but does not fit: true when descriptors could run out. */
export function exceedsOpenFiles(config: Config, openFiles: number): boolean {
  return maxFlows(config, openFiles) > flowsThatFit(config, openFiles);
}

/** Most rules that may come beside those of the configuration: their listeners may have a quarter of the files. */
export function mostAddedRules(openFiles: number, threads: number): number {
  return mostThatFit(mostRules, filesOfRule(threads), openFiles);
}

/** The same for launchers, each of which has a connection and a listener here. */
export function mostLaunchers(openFiles: number): number {
  return mostThatFit(mostLaunchersAtOnce, filesOfLauncher, openFiles);
}

function mostThatFit(most: number, files: number, openFiles: number): number {
  return Math.max(leastFlows, Math.min(most, Math.floor((openFiles - reservedFiles) / (4 * files))));
}

/** A listener on each thread, for each family. */
function filesOfRule(threads: number): number {
  return 2 * threads;
}

/** Clients beyond the flows that may hold a descriptor each until it is their turn. */
export function mostWaiting(config: Config, openFiles: number): number {
  const taken = ownFiles + listenerFiles(config, openFiles) + filesAFlow * maxFlows(config, openFiles);
  return Math.max(0, Math.min(mostWaitingClients, openFiles - taken));
}

function flowsThatFit(config: Config, openFiles: number): number {
  const reserved = reservedFiles + (config.threads - 1) * reservedFilesOfThread;
  return Math.floor((openFiles - reserved - listenerFiles(config, openFiles)) / filesAFlow);
}

function listenerFiles({ rules, threads, docker, launchers }: Config, openFiles: number): number {
  const added = docker === undefined ? 0 : mostAddedRules(openFiles, threads);
  const handedOver = launchers === undefined ? 0 : mostLaunchers(openFiles);
  return filesOfRule(threads) * (rules.length + added) + filesOfLauncher * handedOver;
}

/** What each word allows (RFC 9000 has the factor 3). */
const replyBudgets: Record<Rule['udpReplies'], ReplyBudget | undefined> = {
  limited: { datagrams: 64, bytes: 64 * 1024, factor: 0, bytesPerSecond: 1024 * 1024 },
  strict: { datagrams: 64, bytes: 0, factor: 3, bytesPerSecond: 1024 * 1024 },
  unlimited: undefined,
};

export function replyBudgetOf({ udpReplies }: Rule): ReplyBudget | undefined {
  return replyBudgets[udpReplies];
}

/** @param sharers how many rules there are for the flows of its protocol, with this one */
export function flowLimits(rule: Rule, sharers: number, flows: number): FlowLimits {
  const ofProtocol = rule.port.protocol === 'udp' ? mostUdpFlows(flows) : flows;
  const perRule = sharers > 1 ? Math.ceil(ofProtocol / 2) : ofProtocol;
  return {
    perRule: rule.maxFlowsPerRule ?? perRule,
    perSource: rule.maxFlowsPerSource ?? Math.ceil(ofProtocol / 4),
  };
}
