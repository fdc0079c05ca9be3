/**
 * A container, as far as dualport is concerned, out of one element of the engine's list. The list alone has
 * to do: to inspect a container is to see its environment, which a good socket proxy does not show.
 *
 * What others may have written (names, labels) is taken as text and nothing more; an address counts only when
 * a container can have it.
 */
import type { Protocol } from '../config/port-spec.ts';
import { type Address, isIpv4, isLinkLocal, isLoopback, isUnicast, tryParseAddress } from '../net/address.ts';
import { listOf, numberOf, recordOf, textOf } from './json.ts';
import { isOwnLabel, longestValue } from './labels.ts';

export interface Container {
  readonly id: string;
  readonly name: string;
  /** False while Docker waits to restart it: it has no addresses then. */
  readonly running: boolean;
  /** Seconds since the epoch. */
  readonly createdAt: number;
  /** Labels of dualport only. */
  readonly labels: ReadonlyMap<string, string>;
  readonly composeProject: string | undefined;
  /** As Docker calls it: `bridge`, `host`, `none`, `container:ID`, or the name of a network. */
  readonly networkMode: string;
  readonly networks: readonly Attachment[];
  /** What Docker itself publishes of it. */
  readonly published: readonly DockerPort[];
}

/** A container's place on a network; without an address it is none to connect to. */
export interface Attachment {
  readonly name: string;
  readonly id: string;
  /** Another one with each start; '' where the engine tells none. */
  readonly endpoint: string;
  /** Its own there, at most one of each family, IPv4 first. */
  readonly addresses: readonly Address[];
}

/** One port as `docker ps` lists it. */
export interface DockerPort {
  readonly address: Address;
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: Protocol;
}

/** @returns undefined for what is no container */
export function readContainer(value: unknown): Container | undefined {
  const fields = recordOf(value);
  const id = textOf(fields['Id']);
  if (!/^[0-9a-f]{12,64}$/.test(id)) return undefined;
  const labels = Object.entries(recordOf(fields['Labels']));
  return {
    id,
    name: nameOf(fields['Names'], id),
    running: ['', 'running', 'paused'].includes(textOf(fields['State'])),
    createdAt: numberOf(fields['Created']),
    labels: new Map(labels.filter(([key]) => isOwnLabel(key)).map(([key, text]) => [key, labelText(text)])),
    composeProject: projectOf(labels),
    networkMode: textOf(recordOf(fields['HostConfig'])['NetworkMode']),
    networks: networksOf(recordOf(fields['NetworkSettings'])['Networks']),
    published: listOf(fields['Ports']).flatMap(publishedPort),
  };
}

/** Of one whose element of the list is too long only the beginning is known: who it is. */
export function readBeginning(text: string): Container {
  const [, id = text] = /"Id":"([0-9a-f]{12,64})"/.exec(text) ?? [];
  const [, name = ''] = /"Names":\["([^"]*)"/.exec(text) ?? [];
  const nothing = {
    labels: new Map(),
    composeProject: undefined,
    networkMode: '',
    networks: [],
    published: [],
  };
  return { id, name: nameOf([name], id), running: true, createdAt: 0, ...nothing };
}

/** Docker's own pattern; whoever has another name is known by the id. */
function nameOf(names: unknown, id: string): string {
  const name = listOf(names)
    .map((text) => textOf(text).replace(/^\//, ''))
    .find((text) => /^[a-zA-Z0-9][\w.-]{0,127}$/.test(text));
  return name ?? id.slice(0, 12);
}

/** Of a value that is too long anyhow enough is kept to see that it is. */
function labelText(text: unknown): string {
  return textOf(text).slice(0, longestValue + 1);
}

function projectOf(labels: readonly (readonly [string, unknown])[]): string | undefined {
  const [, project] = labels.find(([key]) => key === 'com.docker.compose.project') ?? [];
  return typeof project === 'string' ? project : undefined;
}

function networksOf(value: unknown): readonly Attachment[] {
  return Object.entries(recordOf(value))
    .map(([name, settings]) => {
      const {
        NetworkID: id,
        EndpointID: endpoint,
        IPAddress: v4,
        GlobalIPv6Address: v6,
      } = recordOf(settings);
      const addresses = [...addressOf(v4, true), ...addressOf(v6, false)];
      return { name, id: textOf(id), endpoint: textOf(endpoint), addresses };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** None that would lead back to the host, or to whatever answers on every link (169.254.169.254). */
function addressOf(text: unknown, ipv4: boolean): readonly Address[] {
  const address = tryParseAddress(textOf(text));
  if (address === undefined || isIpv4(address) !== ipv4) return [];
  const own =
    isUnicast(address) && !isLoopback(address) && !isLinkLocal(address) && !isLinkLocalIpv4(address);
  return own ? [address] : [];
}

function isLinkLocalIpv4(address: Address): boolean {
  return isIpv4(address) && address[12] === 169 && address[13] === 254;
}

function publishedPort(value: unknown): readonly DockerPort[] {
  const { IP: ip, PublicPort: hostPort, PrivatePort: containerPort, Type: protocol } = recordOf(value);
  const address = tryParseAddress(textOf(ip));
  if (address === undefined || !isPort(hostPort) || !isPort(containerPort)) return [];
  if (protocol !== 'tcp' && protocol !== 'udp') return [];
  return [{ address, hostPort, containerPort, protocol }];
}

function isPort(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 1 && Number(value) <= 65535;
}
