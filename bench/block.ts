/**
 * One block of a run: a world is opened, every subject started and gated, and then round by round each
 * workload is put on one subject after the other. Subjects that are compared are thus measured within seconds
 * of each other, and the order rotates, so that nobody always comes first. All of them run all the time: idle
 * ones cost nothing, and a start is no part of a round.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { gate } from './gate.ts';
import { loadProgram } from './load/programs.ts';
import type { Block, Plan } from './plan.ts';
import { systemTicks, untilListening } from './proc.ts';
import type { Processes } from './processes.ts';
import type { GateRecord, Sample } from './results.ts';
import type { Publication, RunningSubject, Subject, Task } from './subjects/subject.ts';
import type { Measurement, Ports, Workload } from './workloads/workload.ts';
import { clientFamily, openWorld, upstreamFamily, type World } from './world.ts';

/** Where the findings of a run go while it goes on, and whether it is to stop. */
export interface RunContext {
  readonly plan: Plan;
  readonly processes: Processes;
  /** Subjects that are installed. */
  readonly subjects: readonly Subject[];
  readonly signal: AbortSignal;
  scratch(): string;
  world(world: World): void;
  gate(record: GateRecord): void;
  sample(sample: Omit<Sample, 'at'>): void;
  remark(text: string): void;
  /** For the progress line; `expected` seconds of the plan are done. */
  doing(what: string): void;
  done(expected: number): void;
}

interface Contestant {
  readonly subject: Subject;
  readonly running: RunningSubject;
  readonly ports: Ports;
  /** Protocols whose gate it has passed. */
  readonly passed: ReadonlySet<string>;
}

export async function runBlock(block: Block, context: RunContext): Promise<void> {
  const world = openWorld(block.topology);
  try {
    context.world(world);
    await startPrograms(block, world, context);
    const contestants = await admit(block, world, context);
    for (let round = 1; round <= context.plan.rounds; round++) {
      for (const workload of block.workloads) {
        await compare({ block, world, context, workload, round }, contestants);
      }
    }
    await endAll(contestants);
  } finally {
    world.remove();
  }
}

const firstPort = { host: 20_000, container: 21_000 };

/** Every subject has its own ports on both sides, so that none meets what another left behind. */
function portsOf(subject: number, { families }: Block, { hostAddress, containerAddress }: World): Ports {
  const port = (protocol: 'tcp' | 'udp', kind: number): Publication => {
    const behind = firstPort.container + 100 * kind + subject;
    return {
      protocol,
      host: { address: hostAddress[clientFamily(families)], port: firstPort.host + 100 * kind + subject },
      container: { address: containerAddress[upstreamFamily(families)], port: behind },
      direct: { address: containerAddress[clientFamily(families)], port: behind },
    };
  };
  return { echo: port('tcp', 0), bulk: port('tcp', 1), datagrams: port('udp', 2) };
}

/** The echo server, also on the client's family for the one that comes without a relay. */
async function startPrograms(block: Block, world: World, { plan, processes }: RunContext): Promise<void> {
  const families = new Set([upstreamFamily(block.families), clientFamily(block.families)]);
  const count = plan.subjects.length;
  for (const family of families) {
    const address = world.containerAddress[family];
    const words = [address, `${firstPort.container}`, `${count}`];
    const server = processes.start(world.container, [loadProgram('echo-server'), ...words]);
    const last = firstPort.container + count - 1;
    await untilListening([server], [{ protocol: 'tcp', address, port: last }]);
  }
}

async function admit(block: Block, world: World, context: RunContext): Promise<readonly Contestant[]> {
  const contestants: Contestant[] = [];
  for (const [i, subject] of context.subjects.entries()) {
    if (context.signal.aborted) break;
    context.doing(`${block.topology} ${block.families}: does ${subject.title} work?`);
    const contestant = await start(subject, portsOf(i, block, world), block, world, context);
    if (contestant !== undefined) contestants.push(contestant);
  }
  return contestants;
}

async function start(
  subject: Subject,
  ports: Ports,
  block: Block,
  world: World,
  context: RunContext,
): Promise<Contestant | undefined> {
  const tasks = tasksOf(block);
  const able = tasks.filter((task) => {
    const reason = subject.cannot?.(task);
    if (reason !== undefined)
      context.gate({ ...task, subject: subject.name, outcome: 'not applicable', reason });
    return reason === undefined;
  });
  if (able.length === 0) return undefined;
  const publications = Object.values(ports).filter((port: Publication) =>
    able.some(({ protocol }) => protocol === port.protocol),
  );
  try {
    const stage = { processes: context.processes, place: world.host, scratch: context.scratch() };
    const running = await subject.start(stage, publications);
    const passed = await pass(able, { subject, running, ports }, world, context);
    return { subject, running, ports, passed };
  } catch (error) {
    const reason = `it did not start: ${(error as Error).message}`;
    for (const task of able) context.gate({ ...task, subject: subject.name, outcome: 'failed', reason });
    return undefined;
  }
}

function tasksOf({ topology, families }: Block): readonly Task[] {
  return (['tcp', 'udp'] as const).map((protocol) => ({ topology, families, protocol }));
}

async function pass(
  tasks: readonly Task[],
  contestant: Omit<Contestant, 'passed'>,
  world: World,
  context: RunContext,
): Promise<ReadonlySet<string>> {
  const { processes } = context;
  const passed = new Set<string>();
  await contestant.running.enter?.();
  for (const task of tasks) {
    const record = await gate({ ...contestant, processes, world }, task);
    context.gate(record);
    if (record.outcome === 'passed') passed.add(task.protocol);
  }
  await contestant.running.leave?.();
  return passed;
}

interface Turn {
  readonly block: Block;
  readonly world: World;
  readonly context: RunContext;
  readonly workload: Workload;
  readonly round: number;
}

/** One workload on every subject that takes part. */
async function compare(turn: Turn, contestants: readonly Contestant[]): Promise<void> {
  const { context, workload, round } = turn;
  const { measured, seconds } = context.plan;
  for (const contestant of rotated(contestants, round)) {
    if (context.signal.aborted) return;
    const { subject, running, passed } = contestant;
    const takesPart = measured.includes(subject) && passed.has(workload.protocol);
    if (takesPart && isAlive(running) && workload.cannot?.(subject) === undefined) {
      await measure(turn, contestant);
    }
  }
  // Also for those that take no part: the plan reckons with everybody.
  context.done(workload.expected(seconds) * measured.length);
}

/** Another comes first in each round. */
export function rotated<T>(items: readonly T[], by: number): readonly T[] {
  const first = by % Math.max(1, items.length);
  return [...items.slice(first), ...items.slice(0, first)];
}

async function measure(turn: Turn, { subject, running, ports }: Contestant): Promise<void> {
  const { block, world, context, workload, round } = turn;
  const { topology, families } = block;
  const { plan, processes } = context;
  context.doing(
    `${topology} ${families}, round ${round} of ${plan.rounds}: ${workload.name}, ${subject.name}`,
  );
  const measurement: Measurement = {
    ...{ world, processes, subject, running, ports, seconds: plan.seconds, idle: plan.idle },
    scratch: () => context.scratch(),
  };
  const before = systemTicks();
  const outcome = await attempt(measurement, workload);
  const after = systemTicks();
  // What Ctrl-C broke off is no failure.
  if (context.signal.aborted) return;
  const steal = (100 * (after.steal - before.steal)) / Math.max(1, after.all - before.all);
  context.sample({
    topology,
    families,
    workload: workload.name,
    subject: subject.name,
    round,
    steal,
    ...outcome,
  });
  if (!isAlive(running)) {
    const dead = running.processes.find(({ alive }) => !alive);
    context.remark(
      `${subject.title} died in round ${round} during ${workload.name} (${topology} ${families}): ${dead?.lastWords}. It is not measured any further there.`,
    );
  }
}

type Outcome = Pick<Sample, 'values' | 'latency' | 'error'>;

async function attempt(measurement: Measurement, workload: Workload): Promise<Outcome> {
  const { running } = measurement;
  try {
    await running.enter?.();
    return await workload.measure(measurement);
  } catch (error) {
    // A process that was killed may not be known to have ended for a moment.
    await sleep(20);
    return { values: {}, error: (error as Error).message };
  } finally {
    await running.leave?.().catch(() => {});
  }
}

function isAlive({ processes }: RunningSubject): boolean {
  return processes.every(({ alive }) => alive);
}

async function endAll(contestants: readonly Contestant[]): Promise<void> {
  await Promise.all(contestants.flatMap(({ running }) => running.processes.map((child) => child.end())));
}
