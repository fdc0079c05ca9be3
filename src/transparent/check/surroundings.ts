/** What of the host decides on an answer: the routes both ways, the kernel's own decision, and two of its switches. */
import { readFileSync } from 'node:fs';
import type { PacketMark } from '../../config/transparent-options.ts';
import { hex } from '../../config/transparent-options.ts';
import { formatAddress, isIpv4 } from '../../net/address.ts';
import { findWay } from '../host.ts';
import type { Run } from '../system.ts';
import type { Way } from '../way.ts';
import type { Decision, Seen } from './blame.ts';
import type { Case } from './cases.ts';
import type { Trace } from './trace.ts';

export type Surroundings = Pick<Seen, 'protocol' | 'way' | 'clientWay' | 'decision' | 'sysctl' | 'pseudo'>;

export async function readSurroundings(
  start: Run,
  one: Case,
  mark: PacketMark,
  trace: Trace | undefined,
): Promise<Surroundings> {
  const way = await findWay(start, one.upstream.address, one.upstream.zone);
  const clientWay = await findWay(start, one.client.address);
  const pseudo = one.client.kind === 'local';
  // What did not come back would have been marked.
  const isMarked = !pseudo && (trace === undefined || trace.back === 0 || trace.marked > 0);
  const decision = await decide(start, one, way, isMarked ? mark : undefined);
  const { protocol } = one.upstream;
  return {
    ...{ protocol, way, clientWay, pseudo, decision },
    sysctl: readSysctl(trace?.interfaces[0] ?? nameOf(way)),
  };
}

function nameOf(way: Way): string {
  return way.kind === 'interface' ? way.name : 'lo';
}

/** Asks the kernel to route the answer without there being one. */
async function decide(
  start: Run,
  { upstream, client }: Case,
  way: Way,
  mark: PacketMark | undefined,
): Promise<Decision | undefined> {
  const to = formatAddress(client.address);
  const from = ['from', formatAddress(upstream.address)];
  const family = isIpv4(client.address) ? '-4' : '-6';
  const ask = async (words: readonly string[]) => {
    const ran = await start({ tool: 'ip', args: ['-j', family, 'route', 'get', to, ...words] });
    return decisionOf(ran.status, ran.stdout, ran.stderr);
  };
  if (way.kind === 'none') return undefined;
  if (way.kind === 'interface') {
    return ask([...from, 'iif', way.name, ...(mark === undefined ? [] : ['mark', hex(mark.value)])]);
  }
  const port = ['ipproto', upstream.protocol, 'sport', String(upstream.port)];
  const bound = await ask([...from, ...port]);
  // A program on a wildcard address has not chosen yet what it answers from.
  return bound === 'here' && upstream.protocol === 'udp' ? ask(port) : bound;
}

/** For tests. */
export function decisionOf(status: number | null, stdout: string, stderr: string): Decision {
  if (status !== 0) return /cross-device|Invalid argument/.test(stderr) ? 'bad-source' : 'nowhere';
  const [route]: readonly { readonly type?: string }[] = JSON.parse(stdout);
  return route?.type === 'local' ? 'here' : 'elsewhere';
}

/** The stronger of the interface's own and the one for all holds of rp_filter, and either of src_valid_mark. */
function readSysctl(name: string): Seen['sysctl'] {
  const read = (which: string, key: string) => {
    try {
      return Number(readFileSync(`/proc/sys/net/ipv4/conf/${which}/${key}`, 'utf8'));
    } catch {
      return 0;
    }
  };
  const both = (key: string) => [read('all', key), read(name, key)];
  return { rpFilter: Math.max(...both('rp_filter')), srcValidMark: Math.max(...both('src_valid_mark')) > 0 };
}
