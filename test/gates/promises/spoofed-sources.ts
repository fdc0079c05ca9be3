/**
 * A flood of datagrams from sources that do not exist, beside flows of real clients: first to a program that answers no
 * stranger, then to one that answers everybody, which makes of each forged source a flow that looks as good as any. Two
 * ports are published, and the other one is served whatever becomes of the flooded one.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Arena, back, front, judgeAlive, publish } from '../arena.ts';
import { type Findings, faultsText } from '../findings.ts';
import type { Gate } from '../gate.ts';
import type { Relay } from '../relay.ts';

const counts = { ci: 65_536, soak: 131_072, tiny: 6000 } as const;
/** Waves of each kind. */
const rounds = { ci: 1, soak: 20, tiny: 1 } as const;
/** A limit that is reached in the tiny form, too. */
const tinyFlows = 1000;
const good = 100;
const other = front + 1;

export const spoofedSources: Gate = {
  name: 'spoofed src',
  promise: 'a flood of forged sources takes no more than its share, and no flow of a real client ends for it',
  lane: 'works',
  run,
  line: (of) =>
    `${of.least('forged')} -> flows ${of.most('flows')} (cap ${of.most('cap')})   good flows kept ${of.least('kept')}/${good}`,
};

interface Flooded {
  readonly forged: number;
  readonly arrived: number;
  readonly good: number;
  readonly answered: number;
  readonly moved: number;
  readonly strange: number;
  readonly waitedMs: number;
}

async function run(arena: Arena, findings: Findings): Promise<void> {
  // What is sent to the forged sources comes to nobody, and what they send is no martian.
  await arena.open();
  await arena.run(['ip', 'route', 'add', 'local', '198.18.0.0/15', 'dev', 'lo']);
  await arena.run(['ip', '-6', 'route', 'add', 'local', '2001:db8::/32', 'dev', 'lo']);
  findings.note('kept', good);
  findings.note('flows', 0);
  for (let round = 0; round < rounds[arena.form]; round++)
    for (const answered of [false, true]) await flood(arena, findings, answered);
}

async function flood(arena: Arena, findings: Findings, answered: boolean): Promise<void> {
  const kind = answered ? 'forged sources that are answered' : 'forged sources that nobody answers';
  const [, spec = '', ...to] = publish;
  const ports = [`${spec}/udp`, `${other}:${back}/udp`].flatMap((port) => ['--publish', port]);
  const limit = arena.form === 'tiny' ? ['--max-flows', `${tinyFlows}`] : [];
  const relay = await arena.relay([...ports, ...to, ...limit]);
  // Of all flows UDP may have half, and of these one rule of several.
  const cap = Math.ceil(Math.floor((await relay.metric('dualport_flows_limit')) / 2) / 2);
  const { sockets: socketsBefore } = await relay.restingHoldings();
  const ends = `--target 127.0.0.1 ${front} --target ::1 ${front} --sink 127.0.0.1 ${back}`;
  const much = `--sources ${counts[arena.form]} --good ${good}${answered ? ' --answered' : ''}`;
  const generator = arena.generator('spoofed-sources', `${ends} ${much}`.split(' '));
  let mostSockets = 0;
  while (generator.alive) {
    mostSockets = Math.max(mostSockets, relay.holdings().sockets - socketsBefore);
    await sleep(100);
  }
  if (generator.process.exitCode !== 0) throw new Error(generator.lastWords);
  const seen: Flooded = JSON.parse(generator.stdout.trim().split('\n').at(-1) ?? '');
  const kept = seen.answered - seen.moved;
  findings.note('forged', seen.forged);
  findings.note('cap', cap);
  const flows = await relay.metric('dualport_flows_active', 'udp');
  findings.note('flows', Math.max(findings.figures['flows'] ?? 0, flows));
  findings.note('kept', Math.min(findings.figures['kept'] ?? good, kept));
  findings.note(answered ? 'waitedAnsweredMs' : 'waitedMs', seen.waitedMs);
  findings.equal(`good flows beside ${kind}`, seen.good, good);
  findings.equal(`of them alive behind ${kind}`, kept, good, `${seen.moved} were ended and made anew`);
  findings.equal(`strange datagrams among ${kind}`, seen.strange, 0);
  findings.atMost(`sockets for ${kind}`, mostSockets, cap);
  await judgeCounters(findings, relay, kind, seen, cap, answered);
  judgeAlive(findings, relay);
  if (relay.child.alive) {
    const beside = await arena.loneDatagrams(other, 4);
    findings.equal(
      `datagrams to another port behind ${kind} that went wrong`,
      beside.failed,
      0,
      faultsText(beside.faults),
    );
  }
  // Where all flows look good there is no room for a new one, until some are idle.
  if (!answered && relay.child.alive) await arena.judgeAfterwards(findings, relay, 'udp');
  await relay.child.end();
}

async function judgeCounters(
  findings: Findings,
  relay: Relay,
  kind: string,
  seen: Flooded,
  cap: number,
  answered: boolean,
): Promise<void> {
  findings.atMost(`flows with ${kind}`, await relay.metric('dualport_flows_active', 'udp'), cap);
  // Otherwise the flood was none: what is judged here was never reached.
  findings.atLeast(`flows with ${kind}`, await relay.metric('dualport_flows_active', 'udp'), cap - 1);
  if (!answered) findings.atLeast(`${kind} that came through`, seen.arrived, 0.8 * seen.forged);
  if (!answered)
    findings.atLeast('flows that made room', await relay.metric('dualport_udp_evictions_total'), 1);
}
