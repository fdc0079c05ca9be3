/**
 * Destination NAT in the kernel with connection tracking, as Docker sets it up for clients from outside. It
 * cannot join IPv6 to IPv4. Its rules are in the kernel only while it is measured: with them, every packet of
 * the host is tracked, which the others would pay for.
 */

import { versionOf } from './installed.ts';
import { bracketed, type Publication, type Stage, type Subject } from './subject.ts';

const table = 'inet dualport_bench';

export const nftDnat: Subject = {
  name: 'nft-dnat',
  title: 'nft DNAT',
  kind: 'bound',
  settings: 'prerouting dnat, connection tracking; rules present only while it is measured',
  version: () => versionOf(['nft', '--version'], /v(\S+)/, 'nftables'),
  cannot: ({ topology, families }) => {
    if (topology === 'T1') return 'a client on the host itself does not pass prerouting';
    return families === '6to4' ? 'NAT does not join IPv6 to IPv4' : undefined;
  },
  start: async (stage, publications) => ({
    processes: [],
    entrance: ({ host }) => host,
    enter: () => nft(stage, rulesFor(publications)),
    leave: () => nft(stage, `delete table ${table}`),
  }),
};

function rulesFor(publications: readonly Publication[]): string {
  const rules = publications.map(({ protocol, host, container }) => {
    const family = host.address.includes(':') ? 'ip6' : 'ip';
    const to = `${bracketed(container.address)}:${container.port}`;
    return `${family} daddr ${host.address} ${protocol} dport ${host.port} dnat ${family} to ${to};`;
  });
  return `table ${table} { chain prerouting { type nat hook prerouting priority dstnat; ${rules.join(' ')} }; }`;
}

async function nft({ processes, place }: Stage, text: string): Promise<void> {
  await processes.run(place, ['nft', text]);
}
