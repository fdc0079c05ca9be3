/** What happens inside the namespaces: servers, clients and curl. */
import assert from 'node:assert/strict';
import type { Place, SocketTable, Stage } from './dualport.ts';
import { listening } from './dualport.ts';
import { type ProgramArguments, type ProgramName, programFile } from './namespace-programs.ts';
import type { Running } from './process.ts';

/** Starts a server of namespace-programs and waits until it listens. */
export async function serve(
  stage: Stage,
  place: Place,
  name: ProgramName,
  args: ProgramArguments,
): Promise<Running> {
  const server = stage.start(place, process.execPath, [programFile, name, JSON.stringify(args)]);
  const protocol = name.startsWith('udp') ? 'udp' : 'tcp';
  const table: SocketTable = args.host.includes(':') ? `${protocol}6` : protocol;
  await listening(server, table, args.port);
  return server;
}

/** Runs a client of namespace-programs to its end; T is what that client prints. */
export async function client<T>(
  stage: Stage,
  place: Place,
  name: ProgramName,
  args: ProgramArguments,
): Promise<T> {
  const { code, stdout, stderr } = await stage.run(place, process.execPath, [
    programFile,
    name,
    JSON.stringify(args),
  ]);
  assert.equal(code, 0, `${name} ended well: ${stderr}`);
  return JSON.parse(stdout);
}

export interface Fetched {
  /** curl's exit status. */
  readonly status: number | null;
  readonly body: string;
  readonly error: string;
  readonly localPort: number;
  /** Until the first byte of the answer. */
  readonly seconds: number;
}

export async function curl(stage: Stage, place: Place, url: string): Promise<Fetched> {
  const args = ['-q', '-sS', '-g', '--noproxy', '*', '--max-time', '10', '-w', '\n%{json}', url];
  const { code, stdout, stderr } = await stage.run(place, 'curl', args);
  const end = stdout.lastIndexOf('\n');
  const facts = JSON.parse(stdout.slice(end));
  return {
    status: code,
    body: stdout.slice(0, end),
    error: stderr,
    localPort: facts.local_port,
    seconds: facts.time_starttransfer,
  };
}

/**
 * The client was turned away by a reset, and not by an end that looks like an empty answer (52). A reset that
 * comes before curl has looked at its new connection is "couldn't connect" to it.
 */
export function wasReset({ status, error }: Fetched): void {
  assert.match(error, /reset by peer|Couldn't connect/);
  assert.ok([7, 55, 56].includes(status ?? 0), `curl ended with ${status}: ${error}`);
}
