/** Datagrams of every length on many flows at once, alone and in trains, and an answer to each. */
import { type Arena, front, judgeAlive, publish } from '../arena.ts';
import { backlogDrops, mayBeTheKernels, mostRuns } from '../backlog.ts';
import { type Findings, faultsText } from '../findings.ts';
import type { Gate } from '../gate.ts';

const counts = { ci: 200_000, soak: 10_000_000, tiny: 4000 } as const;
/**
 * Room for the longest, in one frame. Fragments of IPv4 find together by addresses and 16 bits (RFC 4963), which two of
 * 64 flows between the same addresses happen to share, and the kernel then loses both or puts one together of two.
 */
const mtu = 65_536;
/** Until what has not come is lost; where much is, that takes its time. */
const patienceSeconds = { ci: 3, soak: 3, tiny: 0.3 } as const;

export const datagrams: Gate = {
  name: 'udp',
  promise: 'every datagram arrives once, whole, alone, in order, and at its own flow',
  lane: 'works',
  run,
  line: (of) =>
    `${of.least('answered')} dgrams   misrouted ${of.sum('misrouted')}   merged ${of.sum('merged')}   lost ${of.sum('lost')}`,
};

async function run(arena: Arena, findings: Findings): Promise<void> {
  await arena.open({}, mtu);
  for (let runs = 1; !(await exchange(arena, findings, runs === mostRuns)); runs++);
}

/** Returns whether it counts. */
async function exchange(arena: Arena, findings: Findings, isLast: boolean): Promise<boolean> {
  const count = counts[arena.form];
  const [, spec = '', ...to] = publish;
  const relay = await arena.relay(['--publish', `${spec}/udp`, ...to]);
  const before = backlogDrops();
  const seen = await arena.datagrams(front, [
    '--flows',
    '64',
    '--datagrams',
    `${count}`,
    '--patience',
    `${patienceSeconds[arena.form]}`,
  ]);
  if (!isLast && mayBeTheKernels(seen, before)) {
    judgeAlive(findings, relay);
    await relay.child.end();
    return false;
  }
  const detail = `${faultsText(seen.faults)}; the kernel dropped for want of room: ${await dropped(arena)}`;
  findings.note('sent', seen.sent);
  findings.note('answered', seen.answered);
  findings.note('misrouted', seen.misrouted);
  findings.note('merged', seen.merged);
  findings.note('lost', seen.lost);
  findings.note('perSecond', seen.sent / seen.seconds);
  findings.equal('misrouted datagrams', seen.misrouted, 0, detail);
  findings.equal('merged datagrams', seen.merged, 0, detail);
  findings.equal('datagrams with which anything was wrong', seen.failed, 0, detail);
  findings.atLeast('datagrams that were answered', seen.answered, count);
  findings.equal(
    'datagrams that dualport counted',
    await relay.metric('dualport_datagrams_total', 'client'),
    seen.sent,
  );
  findings.equal('flows that it made', await relay.metric('dualport_flows_total', 'udp'), 64);
  await arena.judgeAfterwards(findings, relay, 'udp');
  return true;
}

/** Where a socket's buffer was full. */
async function dropped(arena: Arena): Promise<string> {
  const counters = ['UdpRcvbufErrors', 'Udp6RcvbufErrors'];
  const table = await arena.run(['nstat', '-asz', ...counters]);
  return table.split('\n').slice(1).join(' ').replaceAll(/ +/g, ' ');
}
