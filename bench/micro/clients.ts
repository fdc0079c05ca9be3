/** The parties of measured flows: many clients of both families, and one address that all of them dialled. */
import type { NewFlow } from '../../src/flow/flow.ts';
import { type Endpoint, endpointOf, type Family } from '../../src/net/address.ts';
import { prepared } from './question.ts';

/** Client texts as the kernel spells them; none lies in the prefixes of decide.ts. */
export const clientTexts: Readonly<Record<Family, readonly string[]>> = {
  4: prepared((turn) => `10.${turn % 8}.${scattered(turn)}.${9 + turn}`),
  6: prepared((turn) => `2001:db8:${(turn % 8).toString(16)}:${scattered(turn).toString(16)}::${9 + turn}`),
};

export const clients: Readonly<Record<Family, readonly Endpoint[]>> = {
  4: clientTexts[4].map((text, turn) => endpointOf(text, 40_000 + turn)),
  6: clientTexts[6].map((text, turn) => endpointOf(text, 40_000 + turn)),
};

export const dialled: Readonly<Record<Family, Endpoint>> = {
  4: endpointOf('192.0.2.80', 8080),
  6: endpointOf('2001:db8:ffff::80', 8080),
};

/** As an engine asks policy of a connection that came without a header. */
export function flowOf(client: Endpoint, family: Family): NewFlow {
  const local = dialled[family];
  return { protocol: 'tcp', peer: client, local, client, dialled: local };
}

/** Odd numbers below 250 in no order. */
function scattered(turn: number): number {
  return ((turn * 37) % 125) * 2 + 1;
}
