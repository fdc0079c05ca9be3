/**
 * A network of its own for the process that plays the rows, so that they may filter packets, forge sources and take
 * any address without anybody noticing:
 *
 *   file → setpriv (dies with it) → unshare (network, pids, mounts) → the same file again, pid 1
 *
 * When pid 1 ends, the kernel ends all it has started and the network goes with the last of them.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { withDescendants } from '../support/process-tree.ts';

const mark = 'DUALPORT_FAULTS_NETWORK';

/** Addresses of this network beside loopback; every one of the first prefix can be sent from. */
export const addresses = {
  v4: '198.18.0.1',
  v6: '2001:db8::1',
  moreV4: ['198.18.0.2', '198.18.0.3'],
  moreV6: ['2001:db8::2', '2001:db8::3'],
  /** No route leads there, see below. */
  unreachable: '203.0.113.9',
} as const;

export function inOwnNetwork(): boolean {
  return process.env[mark] === 'yes';
}

/** Runs the program of this process in a network of its own instead, and ends as it ends. */
export async function moveToOwnNetwork(): Promise<never> {
  const [program = '', ...args] = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const unshare = ['unshare', '--net', '--pid', '--mount', '--fork', '--kill-child', '--mount-proc'];
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...unshare, '--', program, ...args], {
    stdio: 'inherit',
    env: { ...process.env, [mark]: 'yes' },
  });
  // It tidies up when it is told to end, and nobody outside of its network tells it.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => tellFirst(child.pid));
  const [code] = await once(child, 'exit');
  process.exit(code ?? 1);
}

function tellFirst(unshare = 0): void {
  const [, first] = withDescendants(unshare);
  if (first !== undefined) process.kill(first, 'SIGTERM');
}

/** Loopback up, and addresses on it. */
export function prepareNetwork(): void {
  const { v4, v6, moreV4, moreV6 } = addresses;
  ip([
    'link set lo up',
    ...[v4, ...moreV4].map((address) => `address add ${address}/32 dev lo`),
    'route add local 198.18.0.0/15 dev lo',
    'route add unreachable 203.0.113.0/24',
  ]);
  ipv6Addresses([v6, ...moreV6]);
}

/** Runs `ip` commands, one each. */
export function ip(commands: readonly string[]): void {
  run('ip', ['-batch', '-'], commands.join('\n'));
}

function ipv6Addresses(texts: readonly string[]): void {
  ip(texts.map((address) => `address add ${address}/128 dev lo nodad`));
}

/** As an operator would, by sysctl; what the interfaces had of IPv6 goes with it. */
export function switchIpv6(on: boolean): void {
  for (const which of ['all', 'default', 'lo']) sysctl(`net.ipv6.conf.${which}.disable_ipv6`, on ? '0' : '1');
  if (on) ipv6Addresses([addresses.v6, ...addresses.moreV6]);
}

/** Sets one of this network's; returns what it was. */
export function sysctl(name: string, value: string): string {
  const before = run('sysctl', ['-n', name]).trim().replace(/\s+/g, ' ');
  run('sysctl', ['-q', '-w', `${name}=${value}`]);
  return before;
}

/** A packet filter for what comes in, rules in nft's words; returns how it is taken away. */
export function filterInput(rules: readonly string[]): () => void {
  const chain = ['type filter hook input priority 0;', ...rules].join('\n');
  run('nft', ['-f', '-'], `table inet faults {\nchain input {\n${chain}\n}\n}\n`);
  return () => void spawnSync('nft', ['delete', 'table', 'inet', 'faults']);
}

function run(command: string, args: readonly string[], input = ''): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { input, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} (${input}): ${error ?? stderr}`);
  return stdout;
}
