/**
 * Policy is asked once per flow. Access lists are compiled to sorted ranges that are searched by halves, so a
 * hundredfold list should cost a few comparisons more. The clients are let in: they lie between
 * the prefixes, each elsewhere, so every search goes on to its end.
 */
import { loadConfig } from '../../src/config/load.ts';
import type { Rule } from '../../src/config/rules.ts';
import type { Flags } from '../../src/config/sources.ts';
import type { NewFlow, Verdict } from '../../src/flow/flow.ts';
import { type Endpoint, endpointOf, equalEndpoint, type Family } from '../../src/net/address.ts';
import { compileDecide } from '../../src/policy/decide.ts';
import { clients, flowOf } from './clients.ts';
import { nth, type Operation, operation, type Question } from './question.ts';

const upstreams: Readonly<Record<Family, Endpoint>> = {
  4: endpointOf('172.17.0.2', 80),
  6: endpointOf('fd00::2', 80),
};

export const decide: Question = {
  name: 'decide',
  sentence: 'What does one decision cost, by access rules, family and source of the client?',
  operations: () => [
    ...([0, 10, 1000] as const).flatMap((length) => [asked(length, 4), asked(length, 6)]),
    announced(),
    behindProxy(),
  ],
};

/** As many prefixes of each family as that, no two of them neighbours. */
export function prefixes(length: number): readonly string[] {
  return Array.from({ length }, (_, i) => [i >> 7, (i & 127) * 2] as const).flatMap(([high, low]) => [
    `10.${high}.${low}.0/24`,
    `2001:db8:${high.toString(16)}:${low.toString(16)}::/64`,
  ]);
}

function ruleOf(flags: Flags): Rule {
  const [rule] = loadConfig({ flags: { publish: ['8080:80'], to: ['127.0.0.1'], ...flags }, env: {} }).rules;
  if (rule === undefined) throw new Error('a port makes a rule');
  return rule;
}

function asked(length: number, family: Family): Operation {
  const name = length === 0 ? 'no access rules' : `${length} denied prefixes of each family`;
  return decided(`${name}, IPv${family} client`, { deny: prefixes(length) }, family, flowsOf(family));
}

function announced(): Operation {
  return decided('no access rules, the upstream gets a header', { source: 'proxy-v2' }, 4, flowsOf(4));
}

/** The client of a header is also looked at for being unicast. */
function behindProxy(): Operation {
  const peer = endpointOf('192.0.2.1', 50_000);
  const flows = flowsOf(4).map((flow) => ({ ...flow, peer }));
  return decided('no access rules, the client is from a header', { acceptProxy: ['192.0.2.1'] }, 4, flows);
}

function flowsOf(family: Family): readonly NewFlow[] {
  return clients[family].map((client) => flowOf(client, family));
}

function decided(name: string, flags: Flags, family: Family, flows: readonly NewFlow[]): Operation {
  const verdictOn = compileDecide(ruleOf(flags), [upstreams[4], upstreams[6]]);
  const isSent = (verdict: Verdict) =>
    'upstreams' in verdict &&
    verdict.upstreams.some((first, i) => i === 0 && equalEndpoint(first, upstreams[family]));
  return operation(name, (call) => verdictOn(nth(flows, call)), isSent);
}
