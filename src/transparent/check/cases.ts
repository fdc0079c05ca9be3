/** Who calls whom: every upstream by a client of its family that is somewhere else. */
import { randomInt } from 'node:crypto';
import type { Config } from '../../config/load.ts';
import { type Address, type Family, familyOf, isIpv4, parseAddress } from '../../net/address.ts';
import { findWay } from '../host.ts';
import type { Needs, Upstream } from '../needs.ts';
import type { Run } from '../system.ts';
import type { Client } from './attempt.ts';

/** One upstream and one client of it. */
export interface Case {
  readonly upstream: Upstream;
  readonly client: Client;
}

/**
 * Blocks for documentation (RFC 5737, RFC 3849, RFC 9637), where no client of anybody is: addresses come from the
 * first that this host has nothing to do with.
 */
const blocks: Readonly<Record<Family, readonly string[]>> = {
  4: ['203.0.113.0', '198.51.100.0', '192.0.2.0'],
  6: ['2001:db8:da7a::', '3fff:da7a::'],
};

/** @param clients addresses to call as; a family without one gets addresses of its block, another for each upstream */
export async function casesOf(
  start: Run,
  { transparent, pseudo }: Needs,
  ranges: Config['pseudo'],
  clients: readonly Address[],
): Promise<readonly Case[]> {
  const bases = { 4: await freeBlock(start, 4), 6: await freeBlock(start, 6) };
  const foreign = transparent.flatMap((upstream, i): readonly Case[] => {
    const family = familyOf(upstream.address);
    const given = clients.filter((address) => familyOf(address) === family);
    const addresses = given.length > 0 ? given : [nth(bases[family], i)];
    return addresses.map((address) => ({ upstream, client: { address, port: anyPort(), kind: 'foreign' } }));
  });
  const local = pseudo.map((upstream, i): Case => {
    const range = isIpv4(upstream.address) ? ranges.v4 : ranges.v6;
    return { upstream, client: { address: nth(range.address, i), port: anyPort(), kind: 'local' } };
  });
  return [...foreign, ...local];
}

async function freeBlock(start: Run, family: Family): Promise<Address> {
  for (const text of blocks[family]) {
    const way = await findWay(start, parseAddress(text));
    if (way.kind === 'none' || (way.kind === 'interface' && way.gateway !== undefined))
      return parseAddress(text);
  }
  return parseAddress(blocks[family][0] ?? '');
}

/** Of those that clients have. */
function anyPort(): number {
  return randomInt(32_768, 61_000);
}

/** The block's first address names the block. */
function nth(block: Address, index: number): Address {
  const address = Uint8Array.from(block);
  const number = index + 1;
  address[15] = number & 0xff;
  address[14] = (block[14] ?? 0) | (number >> 8);
  return address;
}
