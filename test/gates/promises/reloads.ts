/**
 * The configuration is read again and again while connections come and go: rules come, go and change beside the one they
 * use, its own upstream changes, and every fourth file is broken, each time in another way. What is broken changes
 * nothing at all.
 */
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadProgram } from '../../../bench/load/programs.ts';
import type { Child } from '../../../bench/processes.ts';
import { type Arena, back, front } from '../arena.ts';
import { type Findings, faultsText } from '../findings.ts';
import type { Gate } from '../gate.ts';
import type { Relay } from '../relay.ts';
import { lastSpoken, spokenLine } from '../spoken.ts';

const counts = { ci: 100, soak: 2000, tiny: 12 } as const;
const connectionsAReload = { ci: 300, soak: 300, tiny: 50 } as const;
const held = 100;
const others = { added: front + 1, taken: front + 2 } as const;
const secondBack = back + 1;
const patienceMs = 30_000;

export const reloads: Gate = {
  name: 'reloads',
  promise: 'a reload fails no connection and ends none, and a broken configuration changes nothing',
  lane: 'works',
  run,
  line: (of) =>
    `${of.least('reloads')} (${of.least('broken')} bad)   conns during ${of.least('connections')}   failed ${of.sum('failed')}`,
};

async function run(arena: Arena, findings: Findings): Promise<void> {
  const path = join(arena.folder, 'dualport.yaml');
  await arena.open();
  await arena.echo(back);
  await arena.echo(secondBack);
  // A port that no rule may have.
  await arena.echo(others.taken, '0.0.0.0');
  write(path, soundFile(0));
  const relay = await arena.relay(['--config', path]);
  const standing = arena.start(
    [loadProgram('tcp-load'), 'idle', '::1', `${front}`, '--connections', `${held}`],
    { stdin: 'pipe' },
  );
  await spokenLine(standing, 1, patienceMs);
  const coming = ['127.0.0.1', '::1'].map((address) =>
    arena.generator(
      'churn',
      [address, `${front}`, '--connections', '0', '--at-once', '16', '--most', '2048', '--tell'],
      { stdin: 'pipe' },
    ),
  );
  const broken = await reloadAgainAndAgain(arena, findings, relay, path, coming);
  for (const child of [...coming, standing]) child.process.stdin?.end();
  const { alive } = JSON.parse(await spokenLine(standing, 2, patienceMs));
  const ends = await Promise.all(
    coming.map(async (child) => child.ended.then(() => JSON.parse(lastSpoken(child) ?? ''))),
  );
  const total = (name: 'ok' | 'failed') => ends.reduce((sum, end) => sum + end[name], 0);
  findings.note('reloads', counts[arena.form]);
  findings.note('broken', broken);
  findings.note('connections', total('ok') + total('failed'));
  findings.note('failed', total('failed') + (held - alive));
  findings.equal(
    'connections that failed',
    total('failed'),
    0,
    ends.map(({ faults }) => faultsText(faults)).join(', '),
  );
  findings.atLeast(
    'connections during reloads',
    total('ok'),
    counts[arena.form] * connectionsAReload[arena.form],
  );
  findings.equal('sessions that lived through all reloads', alive, held);
  await arena.judgeAfterwards(findings, relay, 'tcp');
}

/** Returns how many of them were broken. */
async function reloadAgainAndAgain(
  arena: Arena,
  findings: Findings,
  relay: Relay,
  path: string,
  coming: readonly Child[],
): Promise<number> {
  let broken = 0;
  for (let i = 1; i <= counts[arena.form]; i++) {
    const breaks = i % 4 === 0;
    const before = breaks ? await stateOf(relay) : '';
    if (breaks) breakFile(path, broken++);
    else write(path, soundFile(i));
    relay.child.process.kill('SIGHUP');
    await relay.says('configuration reloaded', i - broken, patienceMs);
    await relay.says('configuration not reloaded: the old one stays in force', broken, patienceMs);
    if (breaks) findings.same(`what runs after broken file ${broken}`, await stateOf(relay), before);
    await untilDone(coming, i * connectionsAReload[arena.form]);
  }
  findings.equal(
    'reloads that it counted as failed',
    await relay.metric('dualport_config_reloads_total', 'failure'),
    broken,
  );
  return broken;
}

async function untilDone(coming: readonly Child[], connections: number): Promise<void> {
  const done = (child: Child) => Number(JSON.parse(lastSpoken(child) ?? '{"done":0}').done);
  const deadline = performance.now() + patienceMs;
  while (coming.reduce((sum, child) => sum + done(child), 0) < connections) {
    const dead = coming.find(({ alive }) => !alive);
    if (dead !== undefined) throw new Error(dead.lastWords);
    if (performance.now() > deadline) throw new Error(`connections stand still before the ${connections}th`);
    await sleep(2);
  }
}

/** Rules, listeners and upstreams, without what counts on. */
async function stateOf(relay: Relay): Promise<string> {
  const { rules } = JSON.parse(await relay.page('/status')) as {
    rules: readonly { name: string; listen: unknown; upstreams: unknown; source: unknown }[];
  };
  return JSON.stringify(
    rules.map(({ name, listen, upstreams, source }) => ({ name, listen, upstreams, source })),
  );
}

/** As an editor does it: never half a file. */
function write(path: string, text: string): void {
  rmSync(path, { recursive: true, force: true });
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

/** The rule in use stays; its upstream, its options and its neighbours change. */
function soundFile(i: number): string {
  const to = i % 2 === 0 ? back : secondBack;
  const timeout = `idleTimeout: ${100 + (i % 7)}s`;
  const main = `  - ports: "${front}:${back}"\n    to: 127.0.0.1\n    ${timeout}\n`;
  const deny = i % 5 === 0 ? '    deny: 203.0.113.0/24\n' : '';
  const added =
    i % 3 === 0
      ? ''
      : `  - ports: ["${others.added}:${to}", "${others.added}:${to}/udp"]\n    to: 127.0.0.1\n`;
  return `publish:\n${main}${deny}${added}`;
}

/**
 * In turn: a port that is taken behind one that is free, not YAML, no known key, no prefix, twice the same port, nothing, a
 * folder, no file, too long, a range that does not fit.
 */
function breakFile(path: string, turn: number): void {
  const sound = soundFile(turn);
  const ways: readonly (() => void)[] = [
    () => write(path, `${sound}  - ports: ["${front + 9}:1", "${others.taken}:1"]\n    to: 127.0.0.1\n`),
    () => write(path, `${sound}  - [`),
    () => write(path, `${sound}    tu: 127.0.0.1\n`),
    () => write(path, `${sound}    allow: 300.0.0.0/8\n`),
    () => write(path, `${sound}  - ports: "${front}:1"\n    to: 127.0.0.1\n`),
    () => write(path, ''),
    () => {
      rmSync(path, { force: true });
      mkdirSync(path);
    },
    () => rmSync(path, { force: true }),
    () => write(path, `${sound}${'#'.repeat(20_000_000)}\n`),
    () => write(path, `${sound}  - ports: "${front + 10}-${front + 20}:80-81"\n`),
  ];
  ways[turn % ways.length]?.();
}
