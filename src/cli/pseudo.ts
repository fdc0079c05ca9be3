/** `dualport pseudo`: whom a pseudo address stands for, or which ones a client has; read from where they are kept. */
import { loadPseudoConfig, type PseudoConfig } from '../config/load.ts';
import { flagOf } from '../config/options.ts';
import type { Flags } from '../config/sources.ts';
import { DualportError, exitStatus, messageOf } from '../errors.ts';
import { type Address, formatAddress, parseAddress } from '../net/address.ts';
import { formatCidr } from '../net/cidr.ts';
import { Pseudonyms } from '../pseudo/pseudonyms.ts';
import { isPseudo } from '../pseudo/range.ts';
import { print } from './print.ts';

/** What is known of an address, as it is printed with --json. */
interface Answer {
  readonly client: string;
  /** Before upstreams of each family. */
  readonly pseudo: { readonly v4: string; readonly v6: string };
  /** When a connection of this client last began or ended, to the day; null for none that is known. */
  readonly lastUsed: string | null;
}

export async function pseudo(text: string, flags: Flags, json: boolean): Promise<number> {
  const config = loadPseudoConfig({ flags, env: process.env });
  const address = parseAddress(text);
  const known = inspect(config);
  const reverse = isPseudo(config, address);
  const client = reverse ? known.clientOf(address)?.address : address;
  if (client === undefined) {
    process.stderr.write(
      `dualport: ${formatAddress(address)} was given to nobody that ${config.stateDir} knows of\n`,
    );
    return exitStatus.failure;
  }
  const answer = answerOf(known, client);
  await print(json ? `${JSON.stringify(answer, undefined, 2)}\n` : `${sentence(answer)}\n`);
  return exitStatus.done;
}

function inspect(config: PseudoConfig): Pseudonyms {
  const { stateDir } = config;
  let found: Pseudonyms | undefined;
  try {
    found = Pseudonyms.inspect(config);
  } catch (cause) {
    throw new DualportError(
      'STATE',
      `the pseudo addresses in ${stateDir} cannot be read: ${messageOf(cause)}; run this as the user dualport runs as`,
      { cause },
    );
  }
  if (found !== undefined) return found;
  throw new DualportError(
    'STATE',
    `no pseudo addresses are kept in ${stateDir}; name the directory of the running dualport with ${flagOf('stateDir')}`,
  );
}

function answerOf(known: Pseudonyms, client: Address): Answer {
  const { network, addresses, usedS } = known.lookUp(client);
  const [v4 = '', v6 = ''] = addresses.map(formatAddress);
  return {
    client: formatCidr(network),
    pseudo: { v4, v6 },
    lastUsed: usedS === undefined ? null : new Date(usedS * 1000).toISOString(),
  };
}

function sentence({ client, pseudo: { v4, v6 }, lastUsed }: Answer): string {
  const when = lastUsed === null ? 'no use of it is known' : `last used ${lastUsed}`;
  return `client ${client} is ${v4} to IPv4 upstreams and ${v6} to IPv6 upstreams (${when})`;
}
