/**
 * Docker's networks, and on which of them a container is connected to. A container of several networks has an
 * address on each, and a host reaches only some: those it has an address on itself.
 */
import { suggestion } from '../config/nearest.ts';
import { type Address, equalAddress } from '../net/address.ts';
import { type Cidr, compileCidrs, parseCidr } from '../net/cidr.ts';
import type { Attachment, Container } from './container.ts';
import { listOf, recordOf, textOf } from './json.ts';

export interface Network {
  readonly id: string;
  readonly name: string;
  readonly driver: string;
  readonly subnets: readonly Cidr[];
  /** What the network is called in its Compose file, and of which project. */
  readonly compose: { readonly name: string; readonly project: string } | undefined;
}

/** @returns undefined for what is no network */
export function readNetwork(value: unknown): Network | undefined {
  const fields = recordOf(value);
  const [id, name] = [textOf(fields['Id']), textOf(fields['Name'])];
  if (id === '' || name === '') return undefined;
  const labels = recordOf(fields['Labels']);
  const composeName = textOf(labels['com.docker.compose.network']);
  const project = textOf(labels['com.docker.compose.project']);
  return {
    id,
    name,
    driver: textOf(fields['Driver']),
    subnets: listOf(recordOf(fields['IPAM'])['Config']).flatMap((config) =>
      subnetOf(recordOf(config)['Subnet']),
    ),
    compose: composeName === '' ? undefined : { name: composeName, project },
  };
}

function subnetOf(text: unknown): readonly Cidr[] {
  try {
    return [parseCidr(textOf(text))];
  } catch {
    return [];
  }
}

/** Can this host, or the container dualport is in, connect to addresses of this network? */
export type Reaches = (network: Network | undefined) => boolean;

/**
 * @param own the addresses dualport's own network namespace has
 * @param containers all there are, for dualport may be one of them
 */
export function compileReach(own: readonly Address[], containers: readonly Container[]): Reaches {
  const isMember = ({ id }: Network, address: Address) =>
    containers.some(({ networks }) =>
      networks.some((place) => place.id === id && place.addresses.some((one) => equalAddress(one, address))),
    );
  const reached = (network: Network): boolean => {
    const inside = own.filter(compileCidrs(network.subnets));
    // A host shares the subnet of its macvlan and ipvlan networks, and is the one machine that cannot reach them.
    const apart = network.driver === 'macvlan' || network.driver === 'ipvlan';
    return apart ? inside.some((address) => isMember(network, address)) : inside.length > 0;
  };
  // Asked for every container, and the same for all of one network.
  const known = new Map<Network, boolean>();
  return (network) => {
    if (network === undefined) return false;
    const answer = known.get(network) ?? reached(network);
    known.set(network, answer);
    return answer;
  };
}

/** A network and why it is the one, or why there is none. */
export type NetworkChoice =
  | { readonly attachment: Attachment; readonly why: string; readonly warning: string | undefined }
  | { readonly refusal: string };

/**
 * The network that was asked for; else the only one there is, or that can be reached; else a choice that is the
 * same every time, with a warning.
 *
 * @param container whose networks they are: its own, or the one it shares them with
 * @param asked the label's word, if there is one
 */
export function chooseNetwork(
  container: Container,
  asked: string | undefined,
  networks: ReadonlyMap<string, Network>,
  reaches: Reaches,
): NetworkChoice {
  const usable = container.networks.filter(({ addresses }) => addresses.length > 0);
  if (usable.length === 0) return { refusal: 'found no address of it on any network' };
  if (asked !== undefined) return askedNetwork(container, asked, usable, networks);
  const near = usable.filter(({ id }) => reaches(networks.get(id)));
  const [only] = near.length > 0 ? near : usable;
  if (only !== undefined && near.length === 1) {
    const others = usable.length > 1 ? ', the only one of its networks dualport is on' : '';
    return { attachment: only, why: `network ${only.name}${others}`, warning: undefined };
  }
  return guessedNetwork(near.length > 0 ? near : usable, near.length > 0);
}

/** By Docker's name, or by the one it has in the Compose file of the container. */
function askedNetwork(
  { composeProject }: Container,
  asked: string,
  usable: readonly Attachment[],
  networks: ReadonlyMap<string, Network>,
): NetworkChoice {
  const composeName = ({ id }: Attachment) => {
    const compose = networks.get(id)?.compose;
    return compose !== undefined && compose.project === composeProject ? compose.name : undefined;
  };
  const attachment =
    usable.find(({ name }) => name === asked) ?? usable.find((candidate) => composeName(candidate) === asked);
  if (attachment !== undefined) {
    return { attachment, why: `network ${attachment.name} (io.dualport.network)`, warning: undefined };
  }
  const names = usable.map(({ name }) => name);
  const hint = suggestion(asked, names);
  return {
    refusal: `io.dualport.network: found ${JSON.stringify(asked)}${hint}; allowed: ${names.join(', ')}, which it is on`,
  };
}

/** Most families first, then the name: not the order the engine happens to tell. */
function guessedNetwork(candidates: readonly Attachment[], reached: boolean): NetworkChoice {
  const [chosen, ...others] = [...candidates].sort(
    (a, b) => b.addresses.length - a.addresses.length || (a.name < b.name ? -1 : 1),
  );
  if (chosen === undefined) return { refusal: 'found no address of it on any network' };
  const far = reached ? '' : '; dualport has no address on it, so connections may not arrive';
  const which =
    others.length === 0
      ? ''
      : `; it is also on ${others.map(({ name }) => name).join(', ')}: say which with io.dualport.network`;
  return {
    attachment: chosen,
    why: `network ${chosen.name}${reached ? '' : ', out of reach'}`,
    warning: `network ${chosen.name} was chosen${which}${far}`,
  };
}
