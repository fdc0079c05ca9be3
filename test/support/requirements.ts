/**
 * What a test needs of the machine. Outside CI a missing tool or right skips the test and says why; in CI
 * nothing is missing, so the test runs and fails loudly if it is.
 */
import { spawnSync } from 'node:child_process';

export type Requirement = 'root' | 'ipv6' | 'ip' | 'nginx' | 'haproxy' | 'nft' | 'curl' | 'gcc';

/** The `skip` option of a test: false, or the reason. */
export function skipUnless(...requirements: readonly Requirement[]): false | string {
  if (process.env['CI'] === 'true') return false;
  const missing = requirements.filter((requirement) => !has(requirement));
  return missing.length === 0 ? false : `needs ${missing.join(', ')}`;
}

const has = (requirement: Requirement): boolean => {
  if (requirement === 'root') return process.getuid?.() === 0;
  if (requirement === 'ipv6') return spawnSync('sh', ['-c', 'test -s /proc/net/if_inet6']).status === 0;
  return spawnSync('sh', ['-c', `command -v ${requirement}`]).status === 0;
};
