/**
 * A thread beside the main one: an engine of its own that does what it is ordered to. Nothing else runs here, and
 * nothing is decided here but about flows. What goes wrong without anybody's order ends the thread, and the main
 * thread the process.
 */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { RuleGroup } from '../engine/admission.ts';
import type { Listener, Plan } from '../engine/engine.ts';
import { makeLinuxEngine } from '../engine/linux/linux.ts';
import { loadNative } from '../engine/linux/load.ts';
import { SharedFlows } from '../engine/shared-flows.ts';
import { errnoOf, messageOf } from '../errors.ts';
import type { FlowRecord } from '../flow/flow.ts';
import { makeThreadLog } from '../log.ts';
import { acceptLog, flowLog, lineCounts } from './flow-log.ts';
import { compilePlan, type PlanData, reachedNobody } from './plan.ts';
import type { GroupData, NumberedOrder, Order, Report, ThreadData } from './thread-words.ts';

interface Opened {
  readonly listener: Listener;
  readonly group: RuleGroup;
}

/** Of one kind of ended flow the main thread hears as often as this. */
const tellMs = 100;

const port = parentPort as MessagePort;
const data: ThreadData = workerData;
const log = makeThreadLog(data.logLevel, data.handOver, (lines) => report({ lines }));
const budget = lineCounts(data.lineCounts);
const loaded = loadNative();
if ('reason' in loaded) throw new Error(loaded.reason);
const engine = makeLinuxEngine(loaded.native, data.maxFlows, (notice) => report({ notice }));
const opened = new Map<number, Opened>();
/** Also those that have flows left and no listener: it may come back, and they count. */
const groups = new Map<number, RuleGroup>();

port.on('message', ({ number, order }: NumberedOrder) => {
  obey(order).then(
    (answer) => {
      report({ done: number, answer });
      if (order.do === 'end') port.close();
    },
    (error: unknown) =>
      report({ done: number, failure: { message: messageOf(error), code: errnoOf(error) } }),
  );
});

async function obey(order: Order): Promise<number> {
  switch (order.do) {
    case 'open':
      await open(order);
      break;
    case 'replace':
      replace(order.listener, order.plan);
      break;
    case 'stop':
      await opened.get(order.listener)?.listener.stop();
      break;
    case 'close':
      await close(order.listener);
      break;
    case 'count':
      return engine.busyFlows();
    case 'end':
      await engine.close();
      break;
  }
  return 0;
}

async function open({ listener, protocol, socket, group, plan }: Order & { do: 'open' }): Promise<void> {
  const own = groupOf(group);
  const adopted = await engine.adopt(protocol, socket, planOf(plan, own));
  opened.set(listener, { listener: adopted, group: own });
}

function replace(number: number, plan: PlanData): void {
  const found = opened.get(number);
  if (found !== undefined) void found.listener.replace(planOf(plan, found.group));
}

async function close(number: number): Promise<void> {
  const found = opened.get(number);
  opened.delete(number);
  await found?.listener.close();
  forgetGroups();
}

function planOf(plan: PlanData, group: RuleGroup): Plan {
  const logged = flowLog(log, budget, plan.accessLog);
  const toTell = sample();
  const ended = (record: FlowRecord) => {
    logged(record);
    if (toTell(record)) report({ ended: record });
  };
  return compilePlan(plan, group, { ended, acceptFailed: acceptLog(log, budget, plan.rule.name) });
}

/**
 * What the main thread makes more of than a line in the log: of flows that reached nobody it looks for the reason,
 * of clients that were not shown it says each kind once. So one of each kind every now and then will do.
 */
function sample(): (record: FlowRecord) => boolean {
  const toldAt = new Map<string, number>();
  return (record) => {
    const kind = reachedNobody(record) ? 'nobody' : record.plain;
    if (kind === undefined) return false;
    const now = performance.now();
    if (now - (toldAt.get(kind) ?? Number.NEGATIVE_INFINITY) < tellMs) return false;
    toldAt.set(kind, now);
    return true;
  };
}

function groupOf({ number, counters, flows }: GroupData): RuleGroup {
  const group = groups.get(number) ?? new RuleGroup(counters, new SharedFlows(number, flows, data.sources));
  groups.set(number, group);
  return group;
}

function forgetGroups(): void {
  const used = new Set([...opened.values()].map(({ group }) => group));
  for (const [number, group] of groups) {
    if (!used.has(group) && group.flows === 0) groups.delete(number);
  }
}

function report(what: Report): void {
  port.postMessage(what);
}
