/**
 * What is measured: anything that makes a port of the host reach a port of the container. One file each knows
 * how to find, start and stop it, and which settings make it fast; the harness treats all of them alike.
 */

import { type Listening, refuseBusy, untilListening } from '../proc.ts';
import type { Child, Place, Processes } from '../processes.ts';
import type { Families, SubjectKind, TopologyName } from '../results.ts';

export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/** One published port: clients come to `host`, the program listens on `container`. */
export interface Publication {
  readonly protocol: 'tcp' | 'udp';
  readonly host: Endpoint;
  readonly container: Endpoint;
  /** The program on the client's own family, where it is reached without any relay. */
  readonly direct: Endpoint;
}

/** What a subject may be asked to do; it may say that it cannot. */
export interface Task {
  readonly topology: TopologyName;
  readonly families: Families;
  readonly protocol: 'tcp' | 'udp';
}

/** Where a subject is started. */
export interface Stage {
  readonly processes: Processes;
  /** The network that has the addresses of `host`. */
  readonly place: Place;
  /** An empty folder of its own, removed afterwards. */
  readonly scratch: string;
}

export interface RunningSubject {
  /** Leaders of its process groups; none for what the kernel does. */
  readonly processes: readonly Child[];
  /** Where a client finds this publication. */
  entrance(publication: Publication): Endpoint;
  /** Around each measurement, for what would cost the others something while it is there. */
  enter?(): Promise<void>;
  leave?(): Promise<void>;
}

export interface Subject {
  readonly name: string;
  readonly title: string;
  readonly kind: SubjectKind;
  /** In a phrase: the defaults, or what was tuned. */
  readonly settings: string;
  /** Its version; an error whose message says what is missing and how to get it. */
  version(): string;
  /** Why it cannot do this by nature. */
  cannot?(task: Task): string | undefined;
  /** Most idle connections to open: a process for each is felt by the whole machine. */
  readonly mostIdle?: number;
  /** Resolves when every publication is served. */
  start(stage: Stage, publications: readonly Publication[]): Promise<RunningSubject>;
}

/** A program with one configuration that serves all publications. */
export async function startProgram(
  { processes, place }: Stage,
  command: readonly string[],
  publications: readonly Publication[],
): Promise<RunningSubject> {
  refuseBusy(place, publications.map(listening));
  const child = processes.start(place, command);
  await untilListening([child], publications.map(listening));
  return { processes: [child], entrance: ({ host }) => host };
}

/** A process for each publication, started together, as dockerd and shell scripts do. */
export async function startEach(
  { processes, place }: Stage,
  publications: readonly Publication[],
  commandFor: (publication: Publication) => readonly string[],
): Promise<RunningSubject> {
  refuseBusy(place, publications.map(listening));
  const children = publications.map((publication) =>
    processes.start(place, commandFor(publication), { third: true }),
  );
  await untilListening(children, publications.map(listening));
  return { processes: children, entrance: ({ host }) => host };
}

function listening({ protocol, host }: Publication): Listening {
  return { protocol, ...host };
}

/** An IPv6 address in brackets, as in URLs and most configurations. */
export function bracketed(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}
