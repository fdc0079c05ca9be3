/** The ways a client's address can take through dualport: by engine, by source, and from which family to which. */
import { addresses } from './namespace.ts';
import { containerAddress, embeddedClient, type Family, pseudoIpv4, pseudoIpv6 } from './source-world.ts';

const { client } = addresses;

export interface Path {
  readonly engine: 'linux' | 'portable';
  readonly source: 'transparent' | 'pseudo';
  /** The client's family, and the upstream's. */
  readonly from: Family;
  readonly to: Family;
  readonly peer: string | RegExp;
}

const transparent: readonly Path[] = [
  { engine: 'linux', source: 'transparent', from: 4, to: 4, peer: client.v4 },
  { engine: 'linux', source: 'transparent', from: 6, to: 6, peer: client.v6 },
  { engine: 'linux', source: 'transparent', from: 6, to: 4, peer: pseudoIpv4 },
  { engine: 'linux', source: 'transparent', from: 4, to: 6, peer: embeddedClient },
];
const pseudo = (engine: Path['engine']): readonly Path[] => [
  { engine, source: 'pseudo', from: 6, to: 4, peer: pseudoIpv4 },
  { engine, source: 'pseudo', from: 4, to: 6, peer: embeddedClient },
  { engine, source: 'pseudo', from: 4, to: 4, peer: pseudoIpv4 },
  { engine, source: 'pseudo', from: 6, to: 6, peer: pseudoIpv6 },
];
export const paths: readonly Path[] = [...transparent, ...pseudo('linux'), ...pseudo('portable')];

export function titled({ engine, source, from, to }: Path): string {
  return `source ${source} of the ${engine} engine, ${from}→${to}`;
}

export function argumentsOf({ engine, source, to }: Path): readonly string[] {
  return ['-t', containerAddress[to], '--source', source, '--engine', engine];
}
