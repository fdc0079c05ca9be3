/**
 * Upstream hosts as a user writes them: an address, or a name that is looked up later and elsewhere. Names
 * may hold underscores, since Compose names services so. No port: it is always the published container port.
 */
import { DualportError } from '../errors.ts';
import {
  type Address,
  formatHost,
  isLinkLocal,
  isUnicast,
  isUnspecified,
  tryParseZoned,
} from '../net/address.ts';

/** A host that may serve the flows of a rule. */
export type Target =
  | { readonly kind: 'address'; readonly address: Address; readonly zone: string }
  | { readonly kind: 'name'; readonly name: string };

export const targetForms = 'an IP address, such as 172.17.0.2, fd00::2 or fe80::2%eth0, or a host name';

/**
 * Reads one host; IPv6 with or without brackets.
 *
 * @throws DualportError ADDRESS
 */
export function parseTarget(text: string): Target {
  const host = tryParseZoned(/^\[(.*:.*)\]$/.exec(text)?.[1] ?? text);
  if (host === undefined) return { kind: 'name', name: parseName(text) };
  if (!isUnicast(host.address) && !isUnspecified(host.address)) {
    throw refused(text, 'nothing can be connected to a multicast or broadcast address');
  }
  if (isLinkLocal(host.address) && host.zone === '') {
    throw refused(text, `a link-local address needs its interface, as in ${text}%eth0`);
  }
  if (!isLinkLocal(host.address) && host.zone !== '') {
    throw refused(text, 'only a link-local address (fe80::/10) has a zone');
  }
  return { kind: 'address', ...host };
}

/** The text of a target without brackets, as {@link parseTarget} reads it. */
export function formatTarget(target: Target): string {
  return target.kind === 'name' ? target.name : formatHost({ ...target, port: 0 });
}

/** `172.17.0.2:80`, `[fd00::2]:80` or `app:80`. */
export function formatUpstream(target: Target, port: number): string {
  const host = formatTarget(target);
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** RFC 1123 labels, plus the underscore; case is folded because DNS folds it. */
function parseName(text: string): string {
  const name = text.toLowerCase();
  const labels = name.replace(/\.$/, '').split('.');
  const valid = labels.every((label) => /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label));
  if (!valid || labels.join('.').length > 253) throw refused(text, nameAdvice(text));
  // getaddrinfo reads 10.1 or 0x7f.1 as IPv4 addresses of another spelling; nobody means that.
  if (/^(?:\d+|0x[0-9a-f]*)$/.test(labels.at(-1) ?? '')) {
    throw refused(
      text,
      'it ends in a number like an IPv4 address but is none; write all four parts in decimal',
    );
  }
  return name;
}

function nameAdvice(text: string): string {
  if (/^[^:]+:\d*$|^\[.*\]:\d*$/.test(text)) {
    return 'write the host without a port; the port is the container port of the rule';
  }
  return `write ${targetForms} (labels of 1 to 63 letters, digits, - and _, 253 characters in all)`;
}

function refused(text: string, why: string): DualportError {
  return new DualportError('ADDRESS', `${JSON.stringify(text)} is not a host to connect to: ${why}`);
}
