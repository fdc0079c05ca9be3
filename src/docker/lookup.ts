/**
 * Which container has an address: for launchers, whom dockerd tells an address and a port and nothing else.
 *
 * One list of containers answers everybody who has asked before it was begun; nobody is given one that is older than
 * the question, for addresses are used again. Docker is asked no more often than four times a second, however many
 * clients knock at a port where nobody answers. When it does not answer, nothing is known: that is said once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Protocol } from '../config/port-spec.ts';
import type { SourceMode } from '../config/rules.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import { type Address, equalAddress, familyOf } from '../net/address.ts';
import type { Attachment, Container } from './container.ts';
import { type Grants, refusedSource } from './label-source.ts';
import { readLabels, sourceOf } from './labels.ts';

/** As much of a container as is looked at. */
export type ListedContainer = Pick<Container, 'name' | 'labels'> & {
  readonly networks: readonly Pick<Attachment, 'name' | 'addresses'>[];
};

export type ListContainers = (life: AbortSignal) => Promise<readonly ListedContainer[]>;

export interface FoundContainer {
  readonly name: string;
  readonly otherAddresses: readonly Address[];
  readonly source?: SourceMode | undefined;
}

const leastIntervalMs = 250;
/** What is to be published is dockerd's business here; the labels are only read for how. */
const mostPorts = 65_535;
const mostComplaints = 1000;
const longestComplaint = 300;

export class ContainerLookup {
  readonly #list: ListContainers;
  readonly #grants: () => Grants;
  readonly #log: Log;
  readonly #life = new AbortController();
  /** The list that is to be begun next; whoever asks now is answered by it. */
  #next: Promise<readonly ListedContainer[]> | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #trouble = '';
  readonly #complaints = new Set<string>();

  /** @param grants of the configuration in force */
  constructor(list: ListContainers, grants: () => Grants, log: Log) {
    this.#list = list;
    this.#grants = grants;
    this.#log = log;
  }

  /** Never rejects; undefined when no container has that address, or Docker does not say. */
  async find(address: Address, port: number, protocol: Protocol): Promise<FoundContainer | undefined> {
    this.#next ??= this.#listNext();
    const container = (await this.#next).find((one) =>
      addressesOf(one).some((own) => equalAddress(own, address)),
    );
    if (container === undefined) return undefined;
    return {
      name: container.name,
      otherAddresses: othersOf(container, address),
      source: this.#sourceOf(container, address, port, protocol),
    };
  }

  close(): void {
    this.#life.abort();
  }

  async #listNext(): Promise<readonly ListedContainer[]> {
    await this.#last;
    // Whoever asks from here on may ask about a container that this list does not have yet.
    this.#next = undefined;
    const listed = this.#listNow();
    this.#last = listed.then(() => sleep(leastIntervalMs, undefined, { ref: false }));
    return listed;
  }

  async #listNow(): Promise<readonly ListedContainer[]> {
    const { signal } = this.#life;
    try {
      const containers = signal.aborted ? [] : await this.#list(signal);
      this.#trouble = '';
      return containers;
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== this.#trouble && !signal.aborted) {
        this.#log.warn({ reason }, 'containers are not known: ports have no fallback to the other family');
      }
      this.#trouble = reason;
      return [];
    }
  }

  /** Of a port that has a label of its own that one counts. */
  #sourceOf(
    { name, labels, networks }: ListedContainer,
    address: Address,
    port: number,
    protocol: Protocol,
  ): SourceMode | undefined {
    const { ports, values, complaints } = readLabels(labels, mostPorts);
    for (const complaint of complaints) this.#complain(name, complaint.slice(0, longestComplaint));
    const own = ports.find(
      ({ port: wanted }) => wanted.containerPort === port && wanted.protocol === protocol,
    );
    const { source, label } = sourceOf(own, values);
    const network = networks.find((one) => hasAddress(one, address))?.name ?? '';
    const refusal = refusedSource(source, label, network, this.#grants());
    if (refusal === undefined) return source;
    this.#complain(name, refusal.slice(0, longestComplaint));
    return undefined;
  }

  #complain(container: string, reason: string): void {
    const key = `${container} ${reason}`;
    if (this.#complaints.has(key) || this.#complaints.size >= mostComplaints) return;
    this.#complaints.add(key);
    this.#log.warn({ container, reason }, 'a label is not followed');
  }
}

function hasAddress({ addresses }: Pick<Attachment, 'addresses'>, address: Address): boolean {
  return addresses.some((own) => equalAddress(own, address));
}

function addressesOf({ networks }: ListedContainer): readonly Address[] {
  return networks.flatMap(({ addresses }) => addresses);
}

/** Those of the other family; first of the network the address is of, which this host reaches for certain. */
function othersOf({ networks }: ListedContainer, address: Address): readonly Address[] {
  const isOther = (one: Address) => familyOf(one) !== familyOf(address);
  const has = (network: Pick<Attachment, 'addresses'>) => hasAddress(network, address);
  const ordered = [...networks.filter(has), ...networks.filter((network) => !has(network))];
  return ordered.flatMap(({ addresses }) => addresses.filter(isOther));
}
