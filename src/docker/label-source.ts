/**
 * Who may ask by a label to see clients as they are. A PROXY header is a container's own affair; source transparent has
 * this host lead answers to addresses of others back to itself, which an operator grants network by network.
 */
import { allowsTransparent, type Config } from '../config/load.ts';
import type { LabelSource } from './labels.ts';

export type Grants = Pick<Config, 'transparentNetworks'>;

/**
 * @param label that has said it
 * @param network by Docker's own name, for the name in a Compose file is the container's to choose
 * @returns why the container cannot have it; undefined when it can
 */
export function refusedSource(
  source: LabelSource | undefined,
  label: string,
  network: string,
  grants: Grants,
): string | undefined {
  if (source !== 'transparent' || allowsTransparent(grants, network)) return undefined;
  const granted = grants.transparentNetworks.join(', ') || 'none';
  return (
    `${label}: found "transparent", and the container is on the network ${JSON.stringify(network)}; allowed there: none, ` +
    `proxy-v1, proxy-v2; networks for transparent are named by --transparent-networks (now ${granted})`
  );
}
