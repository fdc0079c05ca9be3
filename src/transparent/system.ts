/**
 * Runs `ip` and `nft`: by their words, never by a shell. They get a session of their own, because Ctrl-C at a
 * terminal goes to every process there, and a change that has begun must be ended or undone.
 */
import { spawn } from 'node:child_process';
import { DualportError, errnoOf, messageOf } from '../errors.ts';

export type Tool = 'ip' | 'nft';

/** One command line, and what it reads. */
export interface Command {
  readonly tool: Tool;
  readonly args: readonly string[];
  readonly input?: string;
}

export interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts a program and waits for its end. */
export type Run = (command: Command) => Promise<Ran>;

/** A command takes milliseconds; nft waits for others that change the ruleset. */
const mostMs = 20_000;
/** More than a host's whole policy and far less than a routing table of the internet. */
const mostBytes = 16 * 1024 * 1024;

export const run: Run = (command) =>
  new Promise((resolve, reject) => {
    const { tool, args, input = '' } = command;
    const env = { PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`, LC_ALL: 'C' };
    const child = spawn(tool, args, { env, detached: true, timeout: mostMs, killSignal: 'SIGKILL' });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      if (stdout.length > mostBytes) child.kill('SIGKILL');
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (stderr.length < mostBytes) stderr += text;
    });
    child.on('error', (error) => reject(toolError(tool, error)));
    child.on('close', (status) => {
      // It has neither JSON nor protocols of rules.
      if (stderr.includes('BusyBox'))
        reject(toolError(tool, new Error("it is BusyBox's, and not that of iproute2")));
      else resolve({ status, stdout, stderr });
    });
    // It may end without reading.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });

/**
 * Runs a command that must succeed.
 *
 * @throws DualportError PRIVILEGE or SETUP
 */
export async function must(start: Run, command: Command): Promise<string> {
  const { status, stdout, stderr } = await start(command);
  if (status === 0) return stdout;
  throw refused(command, status, stderr);
}

/** As one writes it at a prompt, and what it reads is left out. */
export function commandText({ tool, args }: Command): string {
  return [tool, ...args].map(quoted).join(' ');
}

/** For a shell. */
export function quoted(word: string): string {
  return /^[\w./:,=@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

export function isDenied(stderr: string): boolean {
  return /Operation not permitted|Permission denied/.test(stderr);
}

function refused(command: Command, status: number | null, stderr: string): DualportError {
  const said = stderr.trim().split('\n')[0] || `it ended with ${status ?? 'a signal'}`;
  const what = `${commandText(command)}: ${said}`;
  if (!isDenied(stderr))
    return new DualportError('SETUP', `the kernel's rules cannot be read or changed: ${what}`);
  return new DualportError(
    'PRIVILEGE',
    `the kernel's rules cannot be read or changed: ${what}; it takes the capability CAP_NET_ADMIN in this network ` +
      'namespace: run it as root (a container: cap_add: [NET_ADMIN]), or have somebody run what dualport transparent print says',
  );
}

const packages: Readonly<Record<Tool, string>> = { ip: 'iproute2', nft: 'nftables' };

/** Why a program cannot be run. */
export function toolError(tool: Tool, error: Error): DualportError {
  if (errnoOf(error) !== 'ENOENT') {
    return new DualportError('SETUP_TOOL', `${tool} cannot be run: ${messageOf(error)}`, { cause: error });
  }
  return new DualportError(
    'SETUP_TOOL',
    `${tool} is not installed, and source transparent and pseudo are set up with it; install the package ${packages[tool]}`,
    { cause: error },
  );
}
