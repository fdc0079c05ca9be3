/**
 * The grammar of `docker run -p`, as go-connections' nat.ParsePortSpec reads it:
 *
 *     [ [ address ":" ] [ host-port ] ":" ] container-port [ "/" protocol ]
 *
 * Ours beyond Docker's: a zone inside the brackets, `[fe80::1%eth0]:80:80`. Less than Docker's: no SCTP, no
 * container port 0 and no host range that starts at 0 (neither can be connected to). Text in, values out;
 * nothing here knows of rules or of other ports.
 */
import { DualportError } from '../errors.ts';
import {
  type Address,
  formatAddress,
  isLinkLocal,
  isUnicast,
  isUnspecified,
  tryParseZoned,
} from '../net/address.ts';

export type Protocol = 'tcp' | 'udp';

/** Where a listener is bound: an address of either family and its IPv6 zone ('' for none). */
export interface BindHost {
  readonly address: Address;
  readonly zone: string;
}

/** Ports `first` to `last`, both included, 1…65535. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** One container port that is published. */
export interface PublishedPort {
  /** Undefined: both families, as two listeners on the same port. */
  readonly host: BindHost | undefined;
  /** One port, or a range any port of which will do; undefined: the kernel chooses. */
  readonly hostPorts: PortRange | undefined;
  /** 1…65535. */
  readonly containerPort: number;
  readonly protocol: Protocol;
}

/**
 * Reads one text in the grammar above; a range of container ports gives one value for each.
 *
 * @throws DualportError PORT_SPEC
 */
export function parsePortSpec(text: string): readonly PublishedPort[] {
  const parts = text.split(':');
  const [containerText = '', ...protocolParts] = (parts.at(-1) ?? '').split('/');
  const protocol = parseProtocol(text, protocolParts.join('/'));
  const host = parseHost(text, parts.slice(0, -2).join(':'));
  const container = parseContainerPorts(text, containerText);
  const hostPorts = parseHostPorts(text, parts.at(-2) ?? '');
  return pair(text, container, hostPorts).map((ports) => ({ host, ...ports, protocol }));
}

/** The shortest text that {@link parsePortSpec} reads as this value, always with its protocol. */
export function formatPortSpec(port: PublishedPort): string {
  const container = `${port.containerPort}/${port.protocol}`;
  const hostPorts = port.hostPorts === undefined ? '' : formatPortRange(port.hostPorts);
  if (port.host !== undefined) return `${formatBindHost(port.host)}:${hostPorts}:${container}`;
  return hostPorts === '' ? container : `${hostPorts}:${container}`;
}

/** `192.0.2.1`, `[::1]` or `[fe80::1%eth0]`. */
export function formatBindHost(host: BindHost): string {
  const text = formatAddress(host.address);
  if (!text.includes(':')) return text;
  return host.zone === '' ? `[${text}]` : `[${text}%${host.zone}]`;
}

/** `80` or `8000-9000`. */
export function formatPortRange(range: PortRange): string {
  return range.first === range.last ? `${range.first}` : `${range.first}-${range.last}`;
}

interface PortPair {
  readonly containerPort: number;
  readonly hostPorts: PortRange | undefined;
}

/** Docker's rule: equal ranges go in pairs; one container port may choose from a range of host ports. */
function pair(text: string, container: PortRange, host: PortRange | undefined): readonly PortPair[] {
  const count = container.last - container.first + 1;
  if (host === undefined) return consecutive(container, () => undefined);
  if (count === 1) return [{ containerPort: container.first, hostPorts: host }];
  if (host.last - host.first + 1 !== count) {
    const lengths = `${host.last - host.first + 1} host ports for ${count} container ports`;
    throw refused(text, `there are ${lengths}; write ranges of equal length, or a single container port`);
  }
  return consecutive(container, (i) => ({ first: host.first + i, last: host.first + i }));
}

function consecutive(
  container: PortRange,
  hostPorts: (i: number) => PortRange | undefined,
): readonly PortPair[] {
  return Array.from({ length: container.last - container.first + 1 }, (_, i) => ({
    containerPort: container.first + i,
    hostPorts: hostPorts(i),
  }));
}

function parseProtocol(text: string, protocolText: string): Protocol {
  const protocol = protocolText.toLowerCase();
  if (protocol === 'tcp' || protocol === '') return 'tcp';
  if (protocol === 'udp') return 'udp';
  if (protocol === 'sctp') throw refused(text, 'SCTP is not supported: dualport relays tcp and udp');
  throw refused(text, `the protocol ${quote(protocolText)} is not known; write /tcp or /udp`);
}

/** An empty address, `[]` included, is every address of both families, as in Docker. */
function parseHost(text: string, hostText: string): BindHost | undefined {
  const bracketed = /^\[([^[\]]*)\]$/.exec(hostText)?.[1];
  const inner = bracketed ?? hostText;
  if (inner === '') return undefined;
  const host = tryParseZoned(inner);
  if (host === undefined) throw notAnAddress(text, hostText);
  if (!isUnicast(host.address) && !isUnspecified(host.address)) {
    throw refused(text, 'nobody can connect to a multicast or broadcast address');
  }
  if (host.zone === '' && isLinkLocal(host.address)) {
    throw refused(text, `a link-local address needs its interface, as in [${inner}%eth0]`);
  }
  if (host.zone === '') return host;
  if (bracketed === undefined) throw refused(text, `write an address with a zone in brackets, [${inner}]`);
  if (!isLinkLocal(host.address)) throw refused(text, 'only a link-local address (fe80::/10) has a zone');
  return host;
}

function parseContainerPorts(text: string, rangeText: string): PortRange {
  if (rangeText === '') throw refused(text, 'the container port is missing; write it last, as in 8080:80');
  const range = parseRange(text, 'container port', rangeText);
  if (range.first > 0) return range;
  throw refused(text, 'container port 0 cannot be connected to; write the port the program listens on');
}

/** Host port 0 is Docker's other spelling of "chosen by the kernel". */
function parseHostPorts(text: string, rangeText: string): PortRange | undefined {
  if (rangeText === '') return undefined;
  const range = parseRange(text, 'host port', rangeText);
  if (range.first > 0) return range;
  if (range.last === 0) return undefined;
  throw refused(text, 'a range of host ports starts at 1; leave it out for a port chosen by the kernel');
}

function parseRange(text: string, what: string, rangeText: string): PortRange {
  const [firstText = '', lastText = firstText, ...more] = rangeText.split('-');
  const first = parsePort(firstText);
  const last = parsePort(lastText);
  if (first === undefined || last === undefined || more.length > 0) {
    throw refused(
      text,
      `the ${what} ${quote(rangeText)} is not a number from 0 to 65535, or two of them as in 8000-8010`,
    );
  }
  if (last >= first) return { first, last };
  throw refused(text, `the range ${rangeText} ends before it starts; write ${last}-${first}`);
}

function parsePort(text: string): number | undefined {
  const port = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  return port <= 65535 ? port : undefined;
}

function notAnAddress(text: string, hostText: string): DualportError {
  return refused(
    text,
    `${quote(hostText)} is not an IP address to listen on; write one such as 127.0.0.1 or [::1], or none for ` +
      'all of both families',
  );
}

function refused(text: string, why: string): DualportError {
  return new DualportError('PORT_SPEC', `${quote(text)} is not a port to publish: ${why}`);
}

function quote(text: string): string {
  return JSON.stringify(text);
}
