/**
 * Killed in the middle of its work and started again at once, with connections of both directions open, ports in every
 * state of closing, and its admin socket left behind.
 */
import { loadProgram } from '../../../bench/load/programs.ts';
import { type Arena, back, type Churned, front } from '../arena.ts';
import { type Findings, faultsText, median } from '../findings.ts';
import type { Gate } from '../gate.ts';
import { spokenLine } from '../spoken.ts';

const counts = { ci: 20, soak: 500, tiny: 3 } as const;
const held = 100;
/** Until the first accept, as a rule; on a busy machine so many times what an empty Node needs to come and go. */
const usualMs = 1000;
const usualNodes = 10;
/** However busy it is at that moment. */
const mostMs = 5000;

export const restarts: Gate = {
  name: 'restarts',
  promise: 'after a kill it serves again at once, on the same ports and the same admin socket',
  lane: 'works',
  run,
  line: (of) =>
    `${of.least('restarts')} kill -9   first accept p50 ${of.each('medianMs')} ms   max ${of.each('longestMs')} ms`,
};

async function run(arena: Arena, findings: Findings): Promise<void> {
  await arena.open();
  await arena.echo(back);
  const both = ['--publish', `${front}:${back}`, '--publish', `${front}:${back}/udp`, '--to', '127.0.0.1'];
  const times: number[] = [];
  const nodes: number[] = [];
  let relay = await arena.relay(both);
  for (let i = 0; i < counts[arena.form]; i++) {
    const clients = await underLoad(arena);
    relay.child.process.kill('SIGKILL');
    await relay.child.ended;
    nodes.push(await emptyNodeMs(arena));
    const again = arena.startRelay(both);
    const first = await firstConnections(arena).catch((error: unknown) => {
      throw again.child.alive ? error : new Error(again.child.lastWords);
    });
    await again.ready();
    times.push(Math.max(...first.map(({ awaitedMs, longestMs }) => awaitedMs + longestMs)));
    for (const { failed, faults } of first)
      findings.equal(`first connections after restart ${i + 1} that failed`, failed, 0, faultsText(faults));
    const asked = await arena.loneDatagrams(front, 4);
    findings.equal(
      `first datagrams after restart ${i + 1} that went wrong`,
      asked.failed,
      0,
      faultsText(asked.faults),
    );
    findings.equal(
      `answers of the admin socket after restart ${i + 1}`,
      Number((await again.page('/livez')) === 'ok\n'),
      1,
    );
    await Promise.all(clients.map((client) => client.end()));
    relay = again;
  }
  const longest = Math.max(...times);
  findings.note('restarts', times.length);
  findings.note('medianMs', median(times));
  findings.note('longestMs', longest);
  findings.note('emptyNodeMs', median(nodes));
  const usual = Math.max(usualMs, usualNodes * median(nodes));
  findings.atMost('half of the first accepts after a start, in ms', median(times), usual);
  findings.atMost('the slowest first accept after a start in ms', longest, mostMs);
  await arena.judgeAfterwards(findings, relay, 'tcp');
}

async function emptyNodeMs(arena: Arena): Promise<number> {
  const start = performance.now();
  await arena.run([process.execPath, '--eval', '']);
  return performance.now() - start;
}

/** Connections that stand, and others that come and go; what becomes of them is not asked. */
async function underLoad(arena: Arena) {
  const words = [loadProgram('tcp-load'), 'idle', '::1', `${front}`, '--connections', `${held}`];
  const standing = arena.start(words, { stdin: 'pipe' });
  const coming = arena.generator('churn', ['127.0.0.1', `${front}`, '--connections', '0', '--at-once', '4'], {
    stdin: 'pipe',
  });
  await spokenLine(standing, 1, 30_000);
  return [standing, coming];
}

/** By both families at once. */
async function firstConnections(arena: Arena): Promise<readonly Churned[]> {
  return Promise.all(
    ['127.0.0.1', '::1'].map(async (address) => {
      const child = arena.generator('churn', [address, `${front}`, '--connections', '1', '--await', '20']);
      return JSON.parse(await spokenLine(child, 1, 30_000));
    }),
  );
}
