/**
 * Ports that two rules, or a rule and --admin, would fight over, and the socket file that --admin and the launchers
 * would, found before anything is bound, with both named. It judges by the configuration alone: that another program
 * holds a port only shows when it is bound.
 */
import { resolve } from 'node:path';
import { DualportError } from '../errors.ts';
import type { AdminAddress } from './admin-address.ts';
import { ListenerIndex } from './listener-index.ts';
import type { Place } from './place.ts';
import { formatBindHost, type PortRange, type PublishedPort } from './port-spec.ts';

/** A port to publish, with what an error calls it. */
export interface Publication {
  /** Its canonical text, unique among the rules of a configuration. */
  readonly name: string;
  readonly port: PublishedPort;
  readonly at: Place;
}

/** Publications by the listeners they have; each comes in after a look at those before it. */
export class PublicationIndex {
  /** Of every one whose port is known. */
  readonly listeners: ListenerIndex<Publication> = new ListenerIndex();
  readonly #byName = new Map<string, Publication>();

  /** @throws DualportError PORT_CONFLICT when it could not bind beside another, or is there already */
  refuseTaken(publication: Publication): void {
    const twin = this.#byName.get(publication.name);
    if (twin !== undefined) throw publishedTwice(publication, twin);
    const { protocol, host } = publication.port;
    const port = knownPort(publication.port);
    const other = port === undefined ? undefined : this.listeners.overlapping(protocol, port, host);
    if (other !== undefined) throw portTaken(publication, other, `${protocol} port ${port}`);
  }

  add(publication: Publication): void {
    const { protocol, host } = publication.port;
    const port = knownPort(publication.port);
    this.#byName.set(publication.name, publication);
    if (port !== undefined) this.listeners.add(protocol, port, host, publication);
  }
}

/**
 * Indexes every listener whose port is known.
 *
 * @throws DualportError PORT_CONFLICT when two of them could not both bind, or a text is there twice
 */
export function indexListeners(publications: readonly Publication[]): ListenerIndex<Publication> {
  const index = new PublicationIndex();
  for (const publication of publications) {
    index.refuseTaken(publication);
    index.add(publication);
  }
  return index.listeners;
}

/**
 * Sees to it that each range of host ports still has one to choose, after the known ports and the other
 * ranges of the same host have theirs. Ranges of different hosts are not weighed against each other: which of
 * them fit together is settled when they are bound.
 *
 * @throws DualportError PORT_CONFLICT
 */
export function refuseFullRanges(
  publications: readonly Publication[],
  index: ListenerIndex<Publication>,
): void {
  const choosers = new Map<string, PortChooser>();
  for (const { publication, range } of rangesByEnd(publications)) {
    const { protocol, host } = publication.port;
    const key = `${protocol} ${host === undefined ? '' : formatBindHost(host)}`;
    const chooser = choosers.get(key) ?? new PortChooser((port) => index.overlapping(protocol, port, host));
    choosers.set(key, chooser);
    const holder = chooser.choose(range, publication);
    if (holder !== undefined) throw rangeIsFull(publication, range, holder);
  }
}

/**
 * Sees to it that a rule and the admin address do not want the same port.
 *
 * @throws DualportError PORT_CONFLICT
 */
export function refuseAdminPort(
  publications: readonly Pick<Publication, 'name' | 'port'>[],
  admin: AdminAddress | undefined,
): void {
  if (admin?.kind !== 'tcp') return;
  const index = new ListenerIndex<string>();
  for (const { name, port } of publications) {
    const known = knownPort(port);
    if (known !== undefined) index.add(port.protocol, known, port.host, name);
  }
  for (const { port, ...host } of admin.endpoints) {
    const name = index.overlapping('tcp', port, host);
    if (name !== undefined) throw adminPortTaken(name, port);
  }
}

/**
 * Sees to it that the admin address and dockerd's launchers do not want the same socket file.
 *
 * @param cwd what a relative path starts from
 * @throws DualportError PORT_CONFLICT
 */
export function refuseAdminPath(
  admin: AdminAddress | undefined,
  launchers: string | undefined,
  cwd = '.',
): void {
  if (admin?.kind !== 'path' || launchers === undefined) return;
  if (resolve(cwd, admin.path) !== resolve(launchers)) return;
  throw new DualportError(
    'PORT_CONFLICT',
    `--admin and --docker-proxy-socket would both listen on ${launchers}; give one of them another path`,
  );
}

/** The one host port of a publication; undefined when it is still to be chosen. */
export function knownPort(port: PublishedPort): number | undefined {
  return port.hostPorts?.first === port.hostPorts?.last ? port.hostPorts?.first : undefined;
}

/** `"8080:80/tcp" (--publish)`. */
export function cite(publication: Publication): string {
  return `"${publication.name}" (${publication.at.text})`;
}

/** Serving the range that ends first is what makes handing out the lowest free port find a way if there is one. */
function rangesByEnd(
  publications: readonly Publication[],
): readonly { readonly publication: Publication; readonly range: PortRange }[] {
  return publications
    .flatMap((publication) => {
      const range = publication.port.hostPorts;
      return range === undefined || range.first === range.last ? [] : [{ publication, range }];
    })
    .sort((a, b) => a.range.last - b.range.last);
}

/** Hands out the ports of one host, lowest first, without going through taken ones again and again. */
class PortChooser {
  readonly #listener: (port: number) => Publication | undefined;
  readonly #chosen = new Map<number, Publication>();
  /** From a taken port to one further on, all between being taken. */
  readonly #skip = new Map<number, number>();

  constructor(listener: (port: number) => Publication | undefined) {
    this.#listener = listener;
  }

  /** @returns undefined when a port was found, else who holds the first of the range, all being held */
  choose(range: PortRange, publication: Publication): Publication | undefined {
    const firstHolder = this.#holder(range.first);
    let port = range.first;
    while (port <= range.last && this.#holder(port) !== undefined) port = this.#skip.get(port) ?? port + 1;
    if (port > range.last) return firstHolder;
    this.#chosen.set(port, publication);
    this.#skip.set(range.first, port + 1);
    return undefined;
  }

  #holder(port: number): Publication | undefined {
    return this.#chosen.get(port) ?? this.#listener(port);
  }
}

function publishedTwice(publication: Publication, twin: Publication): DualportError {
  return new DualportError(
    'PORT_CONFLICT',
    `${cite(publication)} is published already by ${cite(twin)}; remove one of them`,
  );
}

function portTaken(publication: Publication, other: Publication, what: string): DualportError {
  return new DualportError(
    'PORT_CONFLICT',
    `${cite(publication)} and ${cite(other)} would both listen on ${what}; give one of them another host port ` +
      'or each its own address',
  );
}

function adminPortTaken(name: string, port: number): DualportError {
  return new DualportError(
    'PORT_CONFLICT',
    `"${name}" and --admin would both listen on tcp port ${port}; give one of them another port`,
  );
}

function rangeIsFull(publication: Publication, range: PortRange, holder: Publication): DualportError {
  return new DualportError(
    'PORT_CONFLICT',
    `${cite(publication)} has no host port left: ${cite(holder)} has ${range.first}, and the rest of ` +
      `${range.first}-${range.last} is taken too; widen the range or leave the host port out`,
  );
}
