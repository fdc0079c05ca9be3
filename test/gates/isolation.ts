/**
 * Everything takes place in namespaces of its own, so that nothing of it is left behind however it ends:
 *
 *   this process ─► setpriv (dies with it) ─► unshare (network, pids, mounts) ─► the same program again, as pid 1
 *
 * When pid 1 ends the kernel ends all it has started, and the networks go with the last of them. What is left is one
 * folder, which this process made and removes.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** No name of dualport's own: it refuses those that it does not know. */
const mark = 'GATES_FOLDER';

/** Where files may be put, for the process that is isolated; undefined for the one that is not yet. */
export const isolatedFolder: string | undefined = process.env[mark];

const unshare = ['unshare', '--net', '--pid', '--mount', '--fork', '--kill-child', '--mount-proc'];
/** Who is not root may still be root of a namespace of users, where the machine allows that. */
const users = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];

/** Why this machine lets nobody do that; undefined when it does. */
export function whyNotIsolated(): string | undefined {
  const [program = '', ...args] = [...unshare, ...users, '--', 'true'];
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  return status === 0 ? undefined : `${error?.message ?? stderr.trim()}`;
}

/** Runs this very command line isolated; returns its exit status. */
export async function runIsolated(): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'dualport-gates-'));
  const args = [
    '--pdeathsig',
    'KILL',
    '--',
    ...unshare,
    ...users,
    '--',
    process.execPath,
    ...process.argv.slice(1),
  ];
  const child = spawn('setpriv', args, { stdio: 'inherit', env: { ...process.env, [mark]: folder } });
  let interrupted = false;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      interrupted = true;
      child.kill('SIGKILL');
    });
  const [code] = await once(child, 'exit');
  rmSync(folder, { recursive: true, force: true });
  return interrupted ? 130 : (code ?? 1);
}
