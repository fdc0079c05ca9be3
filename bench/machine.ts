/** On what a run took place: figures without it mean nothing. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import type { Machine } from './results.ts';

const tools: Readonly<Record<string, readonly [command: readonly string[], version: RegExp]>> = {
  iperf3: [['iperf3', '--version'], /iperf (\S+)/],
  wrk: [['wrk', '--version'], /wrk (\S+)/],
  gcc: [['gcc', '--version'], /gcc .*?(\d+\.\S+)$/m],
};

export function describeMachine(): Machine {
  return {
    kernel: release(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cpus: cpus().length,
    memory: totalmem(),
    hypervisor: hypervisor(),
    node: process.version,
    tools: Object.fromEntries(
      Object.entries(tools).flatMap(([name, [command, version]]) => {
        const found = find(command, version);
        return found === undefined ? [] : [[name, found]];
      }),
    ),
  };
}

function find([program = '', ...args]: readonly string[], version: RegExp): string | undefined {
  const { stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  return error === undefined ? (version.exec(`${stdout}${stderr}`)?.[1] ?? 'unknown') : undefined;
}

/** Steal time and odd figures are a guest's. */
function hypervisor(): string {
  const isGuest = / hypervisor /.test(readFileSync('/proc/cpuinfo', 'utf8'));
  if (!isGuest) return 'none';
  const { stdout } = spawnSync('systemd-detect-virt', ['--vm'], { encoding: 'utf8' });
  return stdout?.trim() || 'yes';
}
