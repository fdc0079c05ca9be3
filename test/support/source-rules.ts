/**
 * The rules of the kernel that bring an upstream's answers back to a socket with a client's address, set by hand: the
 * shortest set that does it, as an operator would who knows it all.
 */
import { addresses, ip, ip6, type Namespace, nft, setSysctl, type World } from './namespace.ts';

const mark = '0x40000000';
const table = 4200;

/** The container answers its clients by way of the host. */
export function routeThroughHost({ container }: World): void {
  ip(
    container,
    Object.values(addresses.gateway).map((gateway) => `route add default via ${gateway}`),
  );
}

/** What comes from the container for a transparent socket goes there, whoever's address that has. */
export function divertAnswers({ host }: World, protocols = 'tcp, udp, icmp, ipv6-icmp'): void {
  nft(
    host,
    `table inet divert {
      chain answers {
        type filter hook prerouting priority mangle; policy accept;
        iifname "container0" meta l4proto { ${protocols} } socket transparent 1 meta mark set meta mark | ${mark} accept
      }
    }`,
  );
  const rule = `rule add pref 9000 iif container0 fwmark ${mark}/${mark} lookup ${table}`;
  ip(host, [rule]);
  ip6(host, [rule]);
  deliverAll(host);
}

/** What programs on the host's own loopback addresses answer goes to this host, whoever it is for. */
export function divertLoopbackAnswers({ host }: World): void {
  ip(host, [`rule add pref 9100 from 127.0.0.0/8 iif lo lookup ${table}`]);
  ip6(host, [`rule add pref 9100 from ::1/128 iif lo lookup ${table}`]);
  deliverAll(host);
}

function deliverAll(host: Namespace): void {
  ip(host, [`route add local 0.0.0.0/0 dev lo table ${table}`, `route add local ::/0 dev lo table ${table}`]);
}

export const pseudoIpv4Route = 'route add local 240.0.0.0/4 dev lo';
export const pseudoIpv6Route = 'route add local fd5f:bf90:309::/96 dev lo';

/** What is for pseudo addresses is for the host; and node:net, which has no free bind, may use them. */
export function keepPseudo({ host }: World): void {
  ip(host, [pseudoIpv4Route, pseudoIpv6Route]);
  setSysctl(host, 'ipv6/ip_nonlocal_bind', 1);
}
