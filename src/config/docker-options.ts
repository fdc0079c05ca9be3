/**
 * What an operator says of Docker: where the engine answers, and what the labels of a container may ask for.
 * Labels are written by whoever starts a container; these are the bounds they cannot leave.
 */
import {
  anyIpv4,
  anyIpv6,
  isLinkLocal,
  isUnicast,
  isUnspecified,
  loopbackIpv4,
  loopbackIpv6,
  tryParseZoned,
} from '../net/address.ts';
import { notAllowed, type Place, parseAt } from './place.ts';
import type { BindHost, PortRange } from './port-spec.ts';

/** A unix socket, or a host that speaks plain HTTP, as socket proxies do. */
export type EngineAddress =
  | { readonly kind: 'socket'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

export const engineForms =
  'unix:///path or a path that starts with / or ./, or tcp://host:port of a socket proxy (plain HTTP)';

export const defaultEngine: EngineAddress = { kind: 'socket', path: '/var/run/docker.sock' };

/**
 * Reads `unix:///var/run/docker.sock`, the path alone, or `tcp://socket-proxy:2375`.
 *
 * @throws DualportError USAGE
 */
export function parseEngineAddress(text: string): EngineAddress {
  const path = /^(?:unix:\/\/)?(\.?\/.*)$/s.exec(text)?.[1];
  const address = path === undefined ? parseTcp(text) : parsePath(path);
  if (address === undefined) throw notAllowed(text, engineForms);
  return address;
}

/** `unix:///var/run/docker.sock` or `tcp://socket-proxy:2375`. */
export function formatEngineAddress(address: EngineAddress): string {
  if (address.kind === 'socket') return `unix://${address.path}`;
  return `tcp://${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}

const dockerHostPlace: Place = { origin: 'environment', text: 'DOCKER_HOST' };

/**
 * The engine to follow: the one that was written, else that of Docker's own variable, else Docker's own place.
 *
 * @throws DualportError USAGE when DOCKER_HOST counts and names no engine of these forms
 */
export function engineAddress(written: EngineAddress | undefined, dockerHost = ''): EngineAddress {
  if (written !== undefined) return written;
  // As the docker command reads it: the scheme alone stands for the usual place.
  if (dockerHost === '' || dockerHost === 'unix://') return defaultEngine;
  return parseAt({ text: dockerHost, at: dockerHostPlace }, (text) => parseEngineAddress(text));
}

/** sun_path holds 108 bytes with its final NUL (unix(7)). */
function parsePath(path: string): EngineAddress | undefined {
  return path.includes('\0') || Buffer.byteLength(path) > 107 ? undefined : { kind: 'socket', path };
}

function parseTcp(text: string): EngineAddress | undefined {
  const [, bracketed, name, portText] =
    /^tcp:\/\/(?:\[([\da-fA-F:.]+)\]|([\w.-]+)):(\d{1,5})\/?$/.exec(text) ?? [];
  const host = bracketed ?? name;
  const port = Number(portText);
  return host !== undefined && port >= 1 && port <= 65535 ? { kind: 'tcp', host, port } : undefined;
}

export const rangeForms = 'ports from 1 to 65535 and ranges of them, such as 8080 or 8000-8999';

/** Reads `8080` or `8000-8999`. */
export function parsePortRange(text: string): PortRange {
  const [, firstText = '', lastText = firstText] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? [];
  const [first, last] = [Number(firstText), Number(lastText)];
  if (first < 1 || last > 65535 || last < first) throw notAllowed(text, rangeForms);
  return { first, last };
}

/** No privileged port, none the kernel gives to clients, and not Docker's own (2375 to 2377). */
export const defaultPorts: readonly PortRange[] = [
  { first: 1024, last: 2374 },
  { first: 2378, last: 32767 },
];

export const bindForms = 'addresses to listen on, such as [::], 0.0.0.0, 127.0.0.1 or 2001:db8::1';

/** Reads an address of this host, IPv6 with or without brackets. */
export function parseBindHost(text: string): BindHost {
  const host = tryParseZoned(/^\[(.*:.*)\]$/.exec(text)?.[1] ?? text);
  if (host === undefined || !(isUnicast(host.address) || isUnspecified(host.address))) {
    throw notAllowed(text, bindForms);
  }
  if (isLinkLocal(host.address) !== (host.zone !== '')) {
    throw notAllowed(
      text,
      `${bindForms}; a zone for a link-local address, as in fe80::1%eth0, and for no other`,
    );
  }
  return host;
}

/** A label may choose every address, or only this host. */
export const defaultBind: readonly BindHost[] = [anyIpv4, anyIpv6, loopbackIpv4, loopbackIpv6].map(
  (address) => ({
    address,
    zone: '',
  }),
);

/** Most ports of one container when nothing else was said; far more than a service has, far fewer than a host. */
export const defaultMaxPorts = 32;

/** What labels may ask for. */
export interface LabelPolicy {
  /** Publish on IPv6 too what Docker publishes on IPv4 only. */
  readonly mirror: boolean;
  /** Host ports a label may name. */
  readonly ports: readonly PortRange[];
  /** Addresses it may name; those a port without one gets are `unspecified` ones of these, else all. */
  readonly bind: readonly BindHost[];
  readonly maxPorts: number;
}
