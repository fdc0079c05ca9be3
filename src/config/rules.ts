/**
 * From the values of options to the rules that run: names, upstreams and milliseconds, checked against each
 * other and frozen. Everything after this trusts a rule and asks no option again.
 */
import { DualportError } from '../errors.ts';
import { isIpv4 } from '../net/address.ts';
import type { Cidr } from '../net/cidr.ts';
import { deepFreeze } from './freeze.ts';
import type { ListenerIndex } from './listener-index.ts';
import type { RuleOptionValues } from './options.ts';
import { type Place, refusedAt } from './place.ts';
import { indexListeners, type Publication, PublicationIndex, refuseFullRanges } from './port-conflicts.ts';
import { formatPortSpec, type PublishedPort } from './port-spec.ts';
import { upstreamsOf } from './self-connect.ts';
import { formatTarget, type Target } from './target.ts';

/** How the upstream learns the client's address. */
export type SourceMode = RuleOptionValues['source'];

/** What source transparent does with an upstream that is not of the client's family. */
export type MismatchMode = RuleOptionValues['mismatch'];

/** The family of the upstream tried first, or the only one. */
export type FamilyMode = RuleOptionValues['family'];

/** How long the flows of a rule may last, in milliseconds. */
export interface RuleTimeouts {
  readonly connectMs: number;
  readonly headerMs: number;
  /** 0 is no limit. */
  readonly idleMs: number;
  readonly halfCloseMs: number;
  readonly udpMs: number;
  readonly udpStreamMs: number;
}

/** One published container port and all that holds for its flows; deeply frozen. */
export interface Rule {
  /** The canonical port text, such as `[::]:8080:80/tcp`; unique in a configuration. */
  readonly name: string;
  readonly port: PublishedPort;
  /** At least one. */
  readonly to: readonly Target[];
  readonly source: SourceMode;
  readonly mismatch: MismatchMode;
  readonly sourcePort: RuleOptionValues['sourcePort'];
  readonly udpHeader: RuleOptionValues['udpHeader'];
  readonly proxyCrc32c: boolean;
  readonly proxyUniqueId: boolean;
  /** Empty: no PROXY header is expected from anybody. */
  readonly acceptProxy: readonly Cidr[];
  /** Empty: everybody. */
  readonly allow: readonly Cidr[];
  readonly deny: readonly Cidr[];
  readonly family: FamilyMode;
  readonly timeouts: RuleTimeouts;
  /** What a UDP client gets before it has shown that it hears. */
  readonly udpReplies: RuleOptionValues['udpReplies'];
  /** Undefined: a share of all flows, which the service finds. */
  readonly maxFlowsPerRule: number | undefined;
  readonly maxFlowsPerSource: number | undefined;
}

/** A port to publish, where it was written, and the values in force for it. */
export interface RuleInput {
  readonly port: PublishedPort;
  readonly at: Place;
  readonly values: RuleOptionValues;
}

/**
 * Makes the rules of one configuration, in the order given.
 *
 * @throws DualportError PORT_CONFLICT, SELF_CONNECT, or for values that do not go together USAGE or
 *   CONFIG_VALUE, by the place of the port
 */
export function buildRules(inputs: readonly RuleInput[]): readonly Rule[] {
  const publications = inputs.map((input) => ({ ...input, name: formatPortSpec(input.port) }));
  const index = indexListeners(publications);
  refuseFullRanges(publications, index);
  return deepFreeze(publications.map((publication) => buildRule(publication, index)));
}

const inConfiguration: Place = { origin: 'file', text: 'the configuration' };

/**
 * Makes rules that are not the configuration's, in the order given. Each is judged for itself: one that does not
 * go with those that stand, or with one before it, is refused alone.
 *
 * @param standing the configuration's own
 * @returns for each input its rule, or why there is none
 */
export function admitRules(
  standing: readonly Rule[],
  inputs: readonly RuleInput[],
): readonly (Rule | DualportError)[] {
  const index = new PublicationIndex();
  for (const { name, port } of standing) index.add({ name, port, at: inConfiguration });
  return inputs.map((input) => {
    const publication = { ...input, name: formatPortSpec(input.port) };
    try {
      index.refuseTaken(publication);
      const rule = deepFreeze(buildRule(publication, index.listeners));
      index.add(publication);
      return rule;
    } catch (error) {
      if (error instanceof DualportError) return error;
      throw error;
    }
  });
}

function buildRule(input: Publication & RuleInput, index: ListenerIndex<Publication>): Rule {
  const { name, port, at, values } = input;
  if (port.protocol === 'udp' && values.source === 'proxy-v1') throw refusedAt(at, noUdpInVersion1(name));
  const to = upstreamsOf(input, values.to, index);
  if (!to.some((target) => isOfFamily(target, values.family))) {
    const advice = at.origin === 'label' ? addAddress : addUpstream;
    throw refusedAt(at, noneOfFamily(name, to, values.family, advice));
  }
  const { source, mismatch, sourcePort, udpHeader, proxyCrc32c, proxyUniqueId, acceptProxy } = values;
  const { allow, deny, family, udpReplies, maxFlowsPerRule, maxFlowsPerSource } = values;
  const identity = { source, mismatch, sourcePort, udpHeader, proxyCrc32c, proxyUniqueId, acceptProxy };
  const limits = { timeouts: timeoutsOf(values), udpReplies, maxFlowsPerRule, maxFlowsPerSource };
  return { name, port, to, ...identity, allow, deny, family, ...limits };
}

function timeoutsOf(values: RuleOptionValues): RuleTimeouts {
  return {
    connectMs: values.connectTimeout,
    headerMs: values.headerTimeout,
    idleMs: values.idleTimeout,
    halfCloseMs: values.halfCloseTimeout,
    udpMs: values.udpTimeout,
    udpStreamMs: values.udpStreamTimeout,
  };
}

/** What a name stands for is not known yet. */
function isOfFamily(target: Target, family: FamilyMode): boolean {
  if (target.kind === 'name') return true;
  if (family === 'v4') return isIpv4(target.address);
  return family !== 'v6' || !isIpv4(target.address);
}

function noUdpInVersion1(name: string): DualportError {
  return new DualportError(
    'USAGE',
    `${name}: found source proxy-v1, and version 1 of the PROXY protocol has no UDP; use source proxy-v2 ` +
      'for this port, or none',
  );
}

const addUpstream = 'add one with --to (the file key to)';
const addAddress = 'give the container an address of it';

function noneOfFamily(
  name: string,
  to: readonly Target[],
  family: FamilyMode,
  advice: string,
): DualportError {
  return new DualportError(
    'USAGE',
    `${name}: found family ${family}, but no upstream is of that family: ${to.map(formatTarget).join(', ')}; ` +
      `${advice}, or use family prefer-${family}`,
  );
}
