/**
 * What Docker publishes on IPv4 only, to be published on IPv6 too: `0.0.0.0:8080` asks for `[::]:8080`, and
 * `127.0.0.1:8080` for `[::1]:8080`. A port on one address of the host has no counterpart: nobody said which.
 */
import { boundHosts } from '../config/listener-index.ts';
import type { BindHost, PublishedPort } from '../config/port-spec.ts';
import {
  type Address,
  anyIpv4,
  anyIpv6,
  equalAddress,
  formatAddress,
  isIpv4,
  loopbackIpv4,
  loopbackIpv6,
} from '../net/address.ts';
import type { Container, DockerPort } from './container.ts';
import type { Exposure, WantedPort } from './labels.ts';

export interface Mirrored {
  readonly ports: readonly WantedPort[];
  /** What has no counterpart, and why; nothing that is wrong. */
  readonly left: readonly string[];
}

/** @param labelled what the container's labels ask for: a port of these is not asked for twice */
export function mirroredPorts({ published }: Container, labelled: Exposure['ports']): Mirrored {
  const ports: WantedPort[] = [];
  const left: string[] = [];
  for (const port of published) {
    if (!isIpv4(port.address) || hasIpv6(port, published) || labelled.some((wanted) => takes(wanted, port)))
      continue;
    const host = counterpart(port.address);
    const text = `${formatAddress(port.address)}:${port.hostPort}:${port.containerPort}/${port.protocol}`;
    if (host === undefined)
      left.push(`${text} is published by Docker on one address, which has no counterpart`);
    else
      ports.push({
        port: published6(port, host),
        askedBy: { origin: 'label', text: `mirror of ${text}` },
        source: undefined,
      });
  }
  return { ports, left };
}

function published6({ hostPort, containerPort, protocol }: DockerPort, host: BindHost): PublishedPort {
  return { host, hostPorts: { first: hostPort, last: hostPort }, containerPort, protocol };
}

function counterpart(address: Address): BindHost | undefined {
  if (equalAddress(address, anyIpv4)) return { address: anyIpv6, zone: '' };
  return equalAddress(address, loopbackIpv4) ? { address: loopbackIpv6, zone: '' } : undefined;
}

function hasIpv6(port: DockerPort, published: readonly DockerPort[]): boolean {
  return published.some(
    ({ address, hostPort, protocol }) =>
      !isIpv4(address) && hostPort === port.hostPort && protocol === port.protocol,
  );
}

function takes({ port }: WantedPort, { hostPort, protocol }: DockerPort): boolean {
  const onIpv6 = boundHosts(port.host).some(({ address }) => !isIpv4(address));
  const { first = 0, last = 0 } = port.hostPorts ?? {};
  return onIpv6 && port.protocol === protocol && first <= hostPort && hostPort <= last;
}
