/**
 * Connections that have carried one exchange and then nothing for a long time. Each takes two descriptors of the relay,
 * so where the open file limit has no room for all they are shared by several. They are also the most that each dualport
 * may have, so that more clients find it full: they have to wait until there is room.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { loadProgram } from '../../../bench/load/programs.ts';
import { type Arena, back, type Churned, front, givenBack, publish } from '../arena.ts';
import { type Findings, faultsText } from '../findings.ts';
import type { Gate } from '../gate.ts';
import type { Relay } from '../relay.ts';
import { spokenLine } from '../spoken.ts';

const wanted = { ci: 10_000, soak: 10_000, tiny: 1000 } as const;
const heldSeconds = { ci: 60, soak: 3600, tiny: 1 } as const;

/** Descriptors that are not of flows: those that dualport reserves for the process, and its listeners. */
const otherFiles = 200;

/**
 * Clients beyond the limit, which wait until there is room: in the kernel, but for those that an accept under way takes
 * in, up to a batch a listener (linux); in sockets of the relay (portable).
 */
const more = 200;
const mostTakenIn = { linux: 40, portable: more } as const;

/** For an idle connection of the portable engine, in JavaScript's objects and Node's; the other one holds 2. */
const mostKiB = 24;

export const idle: Gate = {
  name: 'idle',
  promise: 'connections that say nothing live on, and cost little',
  lane: 'holds',
  run,
  line: (of) =>
    `${of.least('held')} held ${of.least('seconds')} s   ${of.least('alive')} alive   KiB/session ${of.each('KiB', 1)}`,
};

async function run(arena: Arena, findings: Findings): Promise<void> {
  const count = wanted[arena.form];
  const relays = Math.ceil(count / Math.floor((arena.openFileLimit - otherFiles) / 2));
  const share = Math.ceil(count / relays);
  for (const name of ['held', 'alive', 'KiB']) findings.note(name, 0);
  findings.note('seconds', heldSeconds[arena.form]);
  await Promise.all(Array.from({ length: relays }, (_, i) => hold(arena.beside(i), findings, share)));
  findings.note('KiB', (findings.figures['KiB'] ?? Number.NaN) / relays);
}

/** In one relay; what it notes is added to what the others did. */
async function hold(arena: Arena, findings: Findings, count: number): Promise<void> {
  const add = (name: string, value: number) =>
    findings.note(name, (findings.figures[name] ?? Number.NaN) + value);
  await arena.open();
  await arena.echo(back);
  const limits = ['--max-flows', `${count}`, '--max-flows-per-source', `${count}`];
  const relay = await arena.relay([...publish, ...limits]);
  await arena.churn(front, 200);
  const before = await relay.restingHoldings();
  const residentBefore = relay.residentKiB();
  const words = [loadProgram('tcp-load'), 'idle', '::1', `${front}`, '--connections', `${count}`];
  const client = arena.start(words, { stdin: 'pipe' });
  const { established } = JSON.parse(await spokenLine(client, 1, 60_000));
  add('held', established);
  findings.equal('connections that came about', established, count);
  const kibibytes = (relay.residentKiB() - residentBefore) / count;
  add('KiB', kibibytes);
  findings.atMost('resident memory for each in KiB', kibibytes, mostKiB);
  await sleep(heldSeconds[arena.form] * 1000);
  const late = await findFull(arena, findings, relay, before.sockets + 2 * count + mostTakenIn[arena.engine]);
  client.process.stdin?.end();
  const { alive } = JSON.parse(await spokenLine(client, 2, 60_000));
  await client.ended;
  add('alive', alive);
  findings.equal('connections that carry another exchange afterwards', alive, count);
  const { ok, failed, faults } = await late();
  findings.equal(
    'clients beyond the limit that fared otherwise than they should',
    failed,
    0,
    faultsText(faults),
  );
  findings.equal('clients beyond the limit that fared as they should', ok, more);
  findings.same('what it does not give back', await givenBack(relay, before, 10_000), '');
  await arena.judgeAfterwards(findings, relay, 'tcp');
}

/** More clients than there is room for; returns what tells, once there is room, how they fared. */
async function findFull(
  arena: Arena,
  findings: Findings,
  relay: Relay,
  mostSockets: number,
): Promise<() => Promise<Churned>> {
  const late = arena.churn(front, more, ['--at-once', `${more}`]);
  await sleep(500);
  findings.atMost('sockets at the limit', relay.holdings().sockets, mostSockets);
  return () => late;
}
