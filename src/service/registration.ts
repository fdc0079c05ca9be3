/**
 * What a launcher says of the socket it hands over (native/docker-proxy.c), and the rule that makes of it.
 *
 *     dualport 1 tcp 0.0.0.0 8080 172.17.0.2 80      version, protocol, where it is bound, the container's end
 */
import type { RuleOptionValues } from '../config/options.ts';
import type { Place } from '../config/place.ts';
import { formatPortSpec, type Protocol, type PublishedPort } from '../config/port-spec.ts';
import { buildRules, type Rule, type SourceMode } from '../config/rules.ts';
import { DualportError } from '../errors.ts';
import { type Address, type Endpoint, isIpv4, isUnicast, tryParseAddress } from '../net/address.ts';

export interface Registration {
  readonly port: PublishedPort;
  /** As dockerd gave it, and tried first whatever else is found out. */
  readonly container: Endpoint;
}

const form = /^dualport 1 (tcp|udp) (\S+) (\d{1,5}) (\S+) (\d{1,5})$/;

/** @throws DualportError USAGE */
export function readRegistration(text: string): Registration {
  const [, protocol, hostText = '', hostPort, containerText = '', containerPort] = form.exec(text) ?? [];
  const [host, container] = [tryParseAddress(hostText), tryParseAddress(containerText)];
  const [port, to] = [Number(hostPort), Number(containerPort)];
  if (
    host === undefined ||
    container === undefined ||
    !isUnicast(container) ||
    !isPort(port) ||
    !isPort(to)
  ) {
    throw new DualportError(
      'USAGE',
      `found ${JSON.stringify(text.slice(0, 200))}; allowed: dualport 1 tcp|udp host-address port container-address port`,
    );
  }
  return {
    port: {
      host: { address: host, zone: '' },
      hostPorts: { first: port, last: port },
      containerPort: to,
      protocol: protocol as Protocol,
    },
    container: { address: container, zone: '', port: to },
  };
}

function isPort(port: number): boolean {
  return port >= 1 && port <= 65535;
}

/** The rule's name: one port of one address has one launcher. */
export function nameOf({ port }: Registration): string {
  return formatPortSpec(port);
}

const saidByDockerd: Place = { origin: 'environment', text: 'dockerd' };

/**
 * @param values what holds for rules that are not written in the configuration
 * @param others further addresses of the container, which stand behind the one dockerd gave
 * @param source what the container's labels say; else it is the configuration's
 * @throws DualportError when these do not go together
 */
export function ruleOf(
  { port, container }: Registration,
  values: RuleOptionValues,
  others: readonly Address[] = [],
  source: SourceMode = values.source,
): Rule {
  const to = [container.address, ...others].map(
    (address) => ({ kind: 'address', address, zone: '' }) as const,
  );
  const family = isIpv4(container.address) ? 'prefer-v4' : 'prefer-v6';
  const [rule] = buildRules([{ port, at: saidByDockerd, values: { ...values, to, family, source } }]);
  if (rule === undefined) throw new Error('a port without a rule');
  return rule;
}
