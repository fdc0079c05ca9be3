/**
 * From what the rules need and the ways there are to a plan. Pure.
 *
 * An upstream answers to the client's address, which is somewhere else; the kernel would pass the answer on.
 *
 *   over an interface   nft marks packets for which this host has a transparent socket, a rule for that interface
 *                       and mark leads to a table in which every address is this host's. Nothing else is marked.
 *   on this host        there the route is chosen before a packet is there to be marked, so the rule goes by what
 *                       is known by then: the answer's source address, or no source and a UDP port.
 *   pseudo              addresses nobody else has: one route makes all of them this host's.
 *
 * Every rule names its interface. Without, the kernel's own check of a packet's source (rp_filter) would, with
 * src_valid_mark=1, look that source up by the same rule, find that it is this host's, and drop the packet.
 */
import type { PseudoConfig } from '../config/load.ts';
import { hostOf, type Needs, onIpv4, type Upstream } from './needs.ts';
import { emptyPlan, merged, type Names, type Plan } from './plan.ts';
import { interfacePlan } from './recipes/interface.ts';
import { localPlan } from './recipes/local.ts';
import { pseudoPlan } from './recipes/pseudo.ts';
import { familyRemarks, remarksOn } from './remarks.ts';
import type { HostFacts, Way } from './way.ts';

export function makePlan(
  all: Needs,
  { ways, ipv6, linkLocal }: HostFacts,
  names: Names,
  pseudo: Pick<PseudoConfig, 'v4' | 'v6'>,
): Plan {
  const needs = ipv6 ? all : onIpv4(all);
  const wayOf = (upstream: Upstream): Way =>
    ways.get(hostOf(upstream)) ?? { kind: 'none', reason: 'unknown' };
  return merged([
    interfacePlan(needs.transparent, wayOf, names, ipv6),
    localPlan(
      needs.transparent.filter((upstream) => wayOf(upstream).kind === 'local'),
      names,
    ),
    pseudoPlan(needs.pseudo, names, pseudo),
    { ...emptyPlan, remarks: [...familyRemarks(all, ipv6), ...remarksOn(needs, wayOf, linkLocal)] },
  ]);
}
