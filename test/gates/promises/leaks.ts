/**
 * The same work over and over, with every way in which a flow can end: both sides have said all, the client resets, the
 * upstream refuses, a bulk transfer is cut, a datagram is refused, a flow is idle. After each cycle descriptors, sockets,
 * pipes and threads are exactly what they were after the first ones, which open what is kept for good, and so is memory
 * in use but for what compiled code still grows by.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { loadProgram } from '../../../bench/load/programs.ts';
import { type Arena, back, front, givenBack } from '../arena.ts';
import { type Findings, faultsText, median } from '../findings.ts';
import type { Gate } from '../gate.ts';
import type { MemoryInUse } from '../memory-probe.ts';
import { holdingNames, type ProbedRelay, type Relay } from '../relay.ts';
import { spokenLine } from '../spoken.ts';

const counts = { ci: 10, soak: 200, tiny: 8 } as const;
/** With fewer cycles growth means nothing. */
const leastCycles = 8;
/** Cycles of each kind of flow: of 2 000 TCP and of 2 000 UDP. */
const share = { ci: 1, soak: 1, tiny: 0.1 } as const;
/** Nothing listens there: its TCP is refused by a reset, its UDP by ICMP. */
const nobody = front + 1;
/** Both ends of bulk transfers are the generator's. */
const bulk = { front: front + 2, back: back + 2 } as const;
const atOnce = 1000;
/** Until all is given back: longer than any timeout of the relay. */
const patienceMs = { ci: 60_000, soak: 60_000, tiny: 6000 } as const;

/** Of memory in use, in ten cycles; and what is no growth of resident memory, nor of JavaScript's objects. */
const mostGrowth = 0.03;
const leastGrowthKiB = { resident: 2048, objects: 384 } as const;

const closeWait = 8;
const finWait2 = 5;

export const leaks: Gate = {
  name: 'leaks',
  promise: 'after the same work it holds what it held before',
  lane: 'waits',
  run,
  line: (of) => {
    const names = holdingNames.map((name) => `${name === 'descriptors' ? 'fd' : name} +${of.most(name)}`);
    return `${names.join('  ')}  RSS ${of.each('growthMiB', 2)} MiB / ${of.least('cycles')} cycles`;
  },
};

async function run(arena: Arena, findings: Findings): Promise<void> {
  await arena.open();
  await arena.echo(back);
  const relay = await startRelay(arena);
  await cycle(arena, findings);
  await resting(relay, patienceMs[arena.form]);
  const before = await relay.restingHoldings();
  const memory: MemoryInUse[] = [];
  for (const name of holdingNames) findings.note(name, 0);
  for (let i = 1; i <= counts[arena.form]; i++) {
    await cycle(arena, findings);
    await resting(relay, patienceMs[arena.form]);
    const left = await givenBack(relay, before, patienceMs[arena.form]);
    findings.same(`what it does not give back after cycle ${i}`, left, '');
    const now = relay.holdings();
    for (const name of holdingNames)
      findings.note(name, Math.max(findings.figures[name] ?? 0, now[name] - before[name]));
    memory.push(await relay.memoryInUse());
    if (left !== '') break;
  }
  findings.equal('flows that it still counts', await relay.metric('dualport_flows_active'), 0);
  findings.equal('connections that wait for dualport to close them', relay.socketsInState(closeWait), 0);
  findings.equal('connections that wait for a peer of dualport', relay.socketsInState(finWait2), 0);
  findings.note('cycles', memory.length);
  const resident = judgeGrowth(
    findings,
    'resident',
    memory.map(({ rss }) => rss / 1024),
  );
  const objects = judgeGrowth(
    findings,
    'objects',
    memory.map(({ heapUsed, external }) => (heapUsed + external) / 1024),
  );
  findings.note('growthMiB', resident / 1024);
  findings.note('objectsGrowthMiB', objects / 1024);
  findings.note('residentMiB', (memory.at(-1)?.rss ?? Number.NaN) / 2 ** 20);
  await arena.judgeAfterwards(findings, relay, 'tcp');
}

/** Between the cycles three to five and the last three: the first ones still fill caches. Returns it in KiB. */
function judgeGrowth(findings: Findings, of: keyof typeof leastGrowthKiB, memory: readonly number[]): number {
  const early = median(memory.slice(2, 5));
  const growth = median(memory.slice(-3)) - early;
  const most = Math.max(leastGrowthKiB[of], early * mostGrowth);
  const detail = `by cycle: ${memory.map(Math.round).join(' ')}`;
  if (memory.length >= leastCycles) findings.atMost(`growth of memory (${of}) in KiB`, growth, most, detail);
  return growth;
}

function startRelay(arena: Arena): Promise<ProbedRelay> {
  const ports = [
    ...[`${front}:${back}`, `${front}:${back}/udp`],
    ...[`${nobody}:${back + 9}`, `${nobody}:${back + 9}/udp`],
    `${bulk.front}:${bulk.back}`,
  ];
  const published = ports.flatMap((port) => ['--publish', port]);
  const limits = ['--max-flows', '6000', '--max-flows-per-rule', '6000', '--max-flows-per-source', '6000'];
  const times = ['--udp-timeout', '500ms', '--udp-stream-timeout', '1s', '--half-close-timeout', '1s'];
  return arena.probedRelay([...published, '--to', '127.0.0.1', ...limits, ...times]);
}

async function cycle(arena: Arena, findings: Findings): Promise<void> {
  const part = (count: number) => Math.ceil(count * share[arena.form]);
  const many = ['--at-once', `${Math.min(atOnce, part(atOnce))}`];
  const ended = await arena.churn(front, part(900), [...many, '--most', '16384']);
  const reset = await arena.churn(front, part(500), [...many, '--end', 'reset', '--most', '65536']);
  const refused = await arena.churn(nobody, part(300), [...many, '--expect', 'reset']);
  for (const { failed, faults } of [ended, reset, refused])
    findings.equal('connections of a cycle that failed', failed, 0, faultsText(faults));
  await standing(arena, part(260));
  await stalledAndCut(arena, part(40));
  const answered = await arena.loneDatagrams(front, part(1700));
  findings.equal('datagrams of a cycle that went wrong', answered.failed, 0, faultsText(answered.faults));
  // Nobody answers these.
  await arena.datagrams(nobody, [
    '--flows',
    `${part(300)}`,
    '--lone',
    '--room',
    '10000000',
    '--patience',
    '0.2',
  ]);
}

/** Held for a moment, then reset. */
async function standing(arena: Arena, count: number): Promise<void> {
  const words = [loadProgram('tcp-load'), 'idle', '::1', `${front}`, '--connections', `${count}`];
  const client = arena.start(words, { stdin: 'pipe' });
  const { established } = JSON.parse(await spokenLine(client, 1, 30_000));
  if (established !== count) throw new Error(`only ${established} of ${count} connections came about`);
  client.process.stdin?.end();
  await client.ended;
}

/** Bulk transfers that fill every pipe there may be, and are cut. */
async function stalledAndCut(arena: Arena, count: number): Promise<void> {
  const ends = ['--target', '127.0.0.1', `${bulk.front}`, '--sink', '127.0.0.1', `${bulk.back}`];
  const readers = arena.generator(
    'slow-readers',
    [...ends, '--connections', `${count}`, '--bulk', `${count}`, '--first', '2'],
    {
      stdin: 'pipe',
    },
  );
  await spokenLine(readers, 1, 60_000);
  readers.process.kill('SIGKILL');
  await readers.ended;
}

/** Until no flow is left: those of UDP end by themselves. */
async function resting(relay: Relay, patience: number): Promise<void> {
  const deadline = performance.now() + patience;
  while ((await relay.metric('dualport_flows_active')) > 0 && performance.now() < deadline) await sleep(100);
}
