/**
 * Both ends of each connection write without end and read nothing. What dualport itself keeps of each direction is
 * measured exactly (load/slow-readers.c) and has to stay within what the README states; what it keeps of memory in all
 * has to stay in proportion. Afterwards both ends read, and all that was written has to come.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Arena, back, front, givenBack, publish } from '../arena.ts';
import { type Findings, faultsText } from '../findings.ts';
import type { Gate } from '../gate.ts';
import { spokenLine } from '../spoken.ts';

const counts = { ci: 500, soak: 1000, tiny: 40 } as const;
const stillSeconds = { ci: 20, soak: 600, tiny: 1 } as const;
/** In bulk before they stand still; both of their directions may want a pipe, and there are 64. */
const bulk = 36;

/** Until all stands, or has come. */
const patienceMs = 150_000;

/** As docs/engines.md has them. */
const usualKiB = { linux: 64, portable: 160 } as const;
const pipeKiB = 1024;
const pipes = { linux: 64, portable: 0 } as const;
/** Of resident memory for each: twice what both directions may hold (portable), for what an allocator keeps. */
const mostResidentKiB = 640;

/** So that the kernel's own buffers of all of them fit into the memory that it gives to TCP. */
const settings = {
  'net.ipv4.tcp_wmem': '4096 16384 32768',
  'net.ipv4.tcp_rmem': '4096 65536 262144',
};

interface Held {
  readonly open: number;
  readonly sum: number;
  readonly largest: number;
  readonly above: number;
}

export const slowReaders: Gate = {
  name: 'slow readers',
  promise:
    'a reader that stands still holds up its writer; what is kept of its bytes is bounded, and none is lost',
  lane: 'waits',
  run,
  line: (of) =>
    `${of.least('readers')} x ${of.least('seconds')} s   KiB/direction ${of.each('largestKiB')} (bound ${usualKiB.portable}, ${usualKiB.linux} or one of ` +
    `${pipes.linux} pipes ${pipeKiB})   KiB/session ${of.each('residentKiB')}`,
};

async function run(arena: Arena, findings: Findings): Promise<void> {
  const { form, engine } = arena;
  const count = counts[form];
  await arena.open(settings);
  const limits = ['--max-flows', '5000', '--max-flows-per-source', '5000'];
  const relay = await arena.relay([...publish, ...limits]);
  const before = await relay.restingHoldings();
  const residentBefore = relay.residentKiB();
  const ends = ['--target', '::1', `${front}`, '--sink', '127.0.0.1', `${back}`];
  const much = `--connections ${count} --bulk ${Math.min(bulk, count)} --first 4 --usual ${usualKiB[engine] * 1024}`;
  const readers = arena.generator('slow-readers', [...ends, ...much.split(' ')], { stdin: 'pipe' });
  const first: Held = JSON.parse(await spokenLine(readers, 1, patienceMs));
  judgeHeld(findings, first, count, engine);
  await sleep(stillSeconds[form] * 1000);
  readers.process.stdin?.write('held\n');
  const later: Held = JSON.parse(await spokenLine(readers, 2, patienceMs));
  judgeHeld(findings, later, count, engine);
  const residentKiB = (relay.residentKiB() - residentBefore) / count;
  findings.note('readers', later.open);
  findings.note('seconds', stillSeconds[form]);
  findings.note('largestKiB', later.largest / 1024);
  findings.note('averageKiB', later.sum / (2 * count) / 1024);
  findings.note('residentKiB', residentKiB);
  const pipesHeld = findings.note('pipes', (relay.holdings().pipes - before.pipes) / 2);
  findings.atMost('pipes that it holds', pipesHeld, pipes[engine]);
  // Of few it is what JavaScript has made room for at the first ones.
  if (form !== 'tiny')
    findings.atMost('resident memory for each connection in KiB', residentKiB, mostResidentKiB);
  readers.process.stdin?.end('end\n');
  const { whole, failed, faults } = JSON.parse(await spokenLine(readers, 3, patienceMs));
  await readers.ended;
  findings.equal('connections that carried all they had', whole, count, faultsText(faults));
  findings.equal('ends that came to grief', failed, 0, faultsText(faults));
  findings.same('what it does not give back', await givenBack(relay, before, 10_000, ['sockets']), '');
  await arena.echo(back);
  await arena.judgeAfterwards(findings, relay, 'tcp');
}

function judgeHeld(findings: Findings, held: Held, count: number, engine: Arena['engine']): void {
  findings.equal('connections that stand', held.open, count);
  findings.atMost(
    `directions of which more than ${usualKiB[engine]} KiB are held`,
    held.above,
    pipes[engine],
  );
  findings.atMost(
    'KiB that are held of one direction',
    held.largest / 1024,
    held.above > 0 ? pipeKiB : usualKiB[engine],
  );
}
