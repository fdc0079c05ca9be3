/** What a dockerd of the tests has on this machine beside its processes and its network namespace. */
import { existsSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isRunning } from './process-tree.ts';

export function prefixOf(pid: number): string {
  return `dualport-test-dockerd-${pid}-`;
}

/** Directories and cgroups of dockerds whose process was killed. */
export function removeAbandoned(): void {
  for (const name of [...readdirSync(tmpdir()), ...cgroupParents().flatMap((path) => readdirSync(path))]) {
    const [, pid] = /^dualport-test-dockerd-(\d+)-\d+$/.exec(name) ?? [];
    if (pid === undefined || isRunning(Number(pid))) continue;
    try {
      removeTraces(name);
    } catch {
      // Another process may be doing the same.
    }
  }
}

/** What a dockerd has left when its processes are gone. */
export function removeTraces(name: string): void {
  for (const parent of cgroupParents()) removeCgroup(join(parent, name));
  rmSync(join(tmpdir(), name), { recursive: true, force: true });
}

/** Those of this process. */
export function tracesOf(pid: number): readonly string[] {
  const all = [tmpdir(), ...cgroupParents()];
  return all.flatMap((path) => readdirSync(path).filter((name) => name.startsWith(prefixOf(pid))));
}

/** One for each hierarchy of version 1, one for all in version 2. */
function cgroupParents(): readonly string[] {
  const root = '/sys/fs/cgroup';
  const inside = readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [root, ...inside.map(({ name }) => join(root, name))];
}

/** Its files are the kernel's and go with it. */
function removeCgroup(path: string): void {
  if (!existsSync(path)) return;
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) removeCgroup(join(path, entry.name));
  }
  rmdirSync(path);
}
