/**
 * Packets that the kernel lost by itself. It queues what goes through a loopback for each processor, 1000 packets long
 * (net.core.netdev_max_backlog), and drops what comes when that is full without a word to any socket. The queue is for all
 * networks at once, so the flood of one gate takes packets from another: TCP sends them again, datagrams are gone.
 */
import { readFileSync } from 'node:fs';

/** How often a run is made whose losses may be the kernel's. */
export const mostRuns = 4;

/** Datagrams were lost and nothing else was wrong, and the kernel has dropped packets since it had dropped so many. */
export function mayBeTheKernels({ failed, lost }: { failed: number; lost: number }, before: number): boolean {
  return failed > 0 && failed === lost && backlogDrops() !== before;
}

/** Since the machine started; the second column of /proc/net/softnet_stat, one line a processor. */
export function backlogDrops(): number {
  const lines = readFileSync('/proc/net/softnet_stat', 'utf8').trim().split('\n');
  return lines.reduce((total, line) => total + Number.parseInt(line.trim().split(/\s+/)[1] ?? '0', 16), 0);
}
