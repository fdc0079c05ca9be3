/**
 * Every system call that dualport makes while it serves fails once with every errno of a list, at several times. It goes
 * on serving, or ends with a message; it never hangs, never spins, and never lets a client take a part for the whole.
 *
 * Which calls these are is asked of the engine as it runs. Most of these errnos no kernel would give there, and what is
 * seen then is how dualport, Node and libuv take what cannot be: each cell is to come out well all the same.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Arena, back, front } from '../arena.ts';
import { type Cell, errors, type Fate, playCell, TrafficProgram, turns } from '../fault-cell.ts';
import type { Findings } from '../findings.ts';
import type { Gate } from '../gate.ts';
import type { Form } from '../options.ts';
import type { Relay } from '../relay.ts';
import { trafficFile } from '../traffic.ts';

const cellsOf: Record<Form, (all: readonly Cell[]) => readonly Cell[]> = {
  ci: (all) => sampled(all, 60),
  soak: (all) => all,
  tiny: (all) =>
    all.filter(
      ({ call, error }) => error === 'ENOMEM' && ['accept4', 'epoll_ctl', 'getsockname'].includes(call),
    ),
};
const nobody = front + 1;
/** So that a flow for which no event comes any more ends while it is watched. */
const timeouts = ['--idle-timeout', '1500ms', '--half-close-timeout', '1s'];

/** Calls of which strace cannot make a failure that any kernel would. */
const notInjected = [
  // The kernel makes it by itself; these end something, and come back to nobody.
  ...['restart_syscall', 'rt_sigreturn', 'exit', 'exit_group'],
  // It says that it failed by the old end of the heap, and no errno: glibc would take one for an address.
  'brk',
  // It closes whatever it answers; strace would leave the descriptor open.
  'close',
];

export const syscalls: Gate = {
  name: 'syscalls',
  promise:
    'a system call that fails ends a flow or, with a message, the process; it never hangs, spins or corrupts',
  lane: 'works',
  run,
  line: (of) =>
    `${of.sum('cells')} cells of ${of.each('calls')} calls   lived ${of.sum('lived')}   exited with a message ` +
    `${of.sum('exited')}   aborted by libuv ${of.sum('aborted')}   not reached ${of.sum('not reached')}   ` +
    `broken ${of.sum('broken')}`,
};

async function run(arena: Arena, findings: Findings): Promise<void> {
  await arena.open();
  const traffic = await startTraffic(arena);
  const calls = await steadyCalls(arena, traffic);
  const cells = cellsOf[arena.form](allCells(calls));
  findings.note('calls', calls.length);
  findings.note('cells', cells.length);
  for (const kind of ['lived', 'exited', 'aborted', 'not reached', 'broken']) findings.note(kind, 0);
  for (const cell of cells) {
    const fate = await playCell(arena, await startRelay(arena), traffic, cell);
    findings.note(fate.kind, (findings.figures[fate.kind] ?? 0) + 1);
    judge(findings, cell, fate);
  }
}

function judge(findings: Findings, { call, error, turn }: Cell, fate: Fate): void {
  const what = `${call} fails with ${error} the ${turn}. time`;
  if (fate.kind === 'broken') findings.same(what, fate.how, 'a life or an end with a message');
}

export function startRelay(arena: Arena): Promise<Relay> {
  const ports = [`${front}:${back}`, `${front}:${back}/udp`, `${nobody}:${back + 9}`];
  const published = ports.flatMap((port) => ['--publish', port]);
  return arena.relay([...published, '--to', '127.0.0.1', ...timeouts]);
}

export async function startTraffic(arena: Arena): Promise<TrafficProgram> {
  const ports = { front, back, nobody, admin: join(arena.folder, 'admin.sock') };
  const child = arena.start([process.execPath, trafficFile, JSON.stringify(ports)], { stdin: 'pipe' });
  const traffic = new TrafficProgram(child);
  await traffic.ready();
  return traffic;
}

/** By name, those that a served moment is made of. */
async function steadyCalls(arena: Arena, traffic: TrafficProgram): Promise<readonly string[]> {
  const relay = await startRelay(arena);
  const log = join(arena.folder, 'strace-count');
  await traffic.mixed();
  const strace = arena.start(['strace', '-f', '-qq', '-c', '-o', log, '-p', `${relay.pid}`]);
  await sleep(500);
  await traffic.mixed();
  strace.process.kill('SIGINT');
  await strace.ended;
  await relay.child.end();
  const names = readFileSync(log, 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([percent = '', , , calls = '']) => /^\d/.test(percent) && /^\d+$/.test(calls))
    .map((columns) => columns.at(-1) ?? '');
  return names.filter((name) => name !== 'total' && !notInjected.includes(name)).sort();
}

function allCells(calls: readonly string[]): readonly Cell[] {
  const all = calls.flatMap((call) =>
    errors.flatMap((error) => turns.map((turn) => ({ call, error, turn }))),
  );
  return all.filter((cell) => !isLostWake(cell));
}

/** glibc takes that of a wake for memory that another uses by now, and whoever was to be woken sleeps for ever. */
function isLostWake({ call, error }: Cell): boolean {
  return call === 'futex' && error === 'EINVAL';
}

/** Spread evenly over all of them, so that each call, each errno and each turn is among them; the same each time. */
function sampled(cells: readonly Cell[], count: number): readonly Cell[] {
  const step = cells.length / count;
  // A step more for each turn, or the same turns would come again and again.
  const at = (i: number) => Math.floor(i * step + (i % turns.length)) % cells.length;
  const chosen = new Set(Array.from({ length: count }, (_, i) => at(i)));
  return cells.filter((_, n) => chosen.has(n));
}
