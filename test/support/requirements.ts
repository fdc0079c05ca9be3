/**
 * What a test needs of the machine. Outside CI a missing tool or right skips the test and says why; in CI
 * nothing is missing, so the test runs and fails loudly if it is.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { loadNative } from '../../src/engine/linux/load.ts';

export type Requirement =
  | 'root'
  | 'ipv6'
  | 'ip'
  | 'nginx'
  | 'haproxy'
  | 'nft'
  | 'curl'
  | 'gcc'
  | 'perl'
  | 'setpriv'
  | 'strace'
  | 'linux'
  | 'netns'
  | 'nginx-stream'
  | 'openssl'
  | 'prebuild-tools'
  | 'socat'
  | 'wrk'
  | 'iperf3'
  | 'chromium'
  | 'dockerd'
  | 'docker-proxy';

/** The `skip` option of a test: false, or the reason. */
export function skipUnless(...requirements: readonly Requirement[]): false | string {
  if (process.env['CI'] === 'true') return false;
  const missing = requirements.filter((requirement) => !has(requirement));
  return missing.length === 0 ? false : `needs ${missing.join(', ')}`;
}

/** The same for what needs the core in C, which is built with the rest in CI. */
export function skipWithoutCore(...requirements: readonly Requirement[]): false | string {
  const loaded = loadNative();
  const missing = 'reason' in loaded && process.env['CI'] !== 'true';
  return missing ? loaded.reason : skipUnless(...requirements);
}

const has = (requirement: Requirement): boolean => {
  if (requirement === 'root') return process.getuid?.() === 0;
  if (requirement === 'linux') return process.platform === 'linux';
  return succeeds(commands[requirement] ?? `command -v ${requirement}`);
};

const native = fileURLToPath(new URL('../../../native', import.meta.url));

/** What is more than a program of that name. */
const commands: Partial<Record<Requirement, string>> = {
  // The size of a file in /proc is always 0.
  ipv6: 'grep -q . /proc/net/if_inet6',
  // The right to make network namespaces, which root in a container may lack.
  netns: 'command -v ip && unshare --net --mount true',
  // The daemon, its client, what it calls, and what its tests put into containers.
  dockerd:
    'command -v dockerd containerd runc docker iptables setpriv nsenter gcc curl tar && test -x /bin/busybox',
  // The right to trace, which a container may lack.
  strace: 'strace -o /dev/null true',
  // The compilers for all the cores that the package carries.
  'prebuild-tools': `make -s -C '${native}' prebuild-tools`,
  'nginx-stream':
    "test -e /usr/lib/nginx/modules/ngx_stream_module.so || nginx -V 2>&1 | grep -q -- '--with-stream '",
};

function succeeds(command: string): boolean {
  return spawnSync('sh', ['-c', command]).status === 0;
}
