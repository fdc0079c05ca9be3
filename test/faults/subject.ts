/**
 * What the rows are played against: anything that relays a port. A row says what it wants relayed in these words, and
 * each subject says it in its own; a wish that a subject has no setting for stays unfulfilled, and the row sees
 * what becomes of it. What a subject is not made for at all, it says in `cannot`, and the row says nothing of it.
 */
import { renameSync, writeFileSync } from 'node:fs';
import type { Place } from '../support/dualport.ts';

export type SubjectName = 'linux' | 'portable' | 'haproxy' | 'nginx' | 'docker-proxy';

export interface Publication {
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  /** Where it listens; 0.0.0.0 and [::] when that is not said. */
  readonly hosts?: readonly string[];
  readonly to: { readonly host: string; readonly port: number };
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
}

export interface Wanted {
  readonly publish: readonly Publication[];
  /** In milliseconds. */
  readonly connect?: number;
  readonly idle?: number;
  readonly halfClose?: number;
  readonly header?: number;
  readonly udp?: number;
  readonly udpStream?: number;
  readonly drain?: number;
  /** Peers that must send a PROXY header. */
  readonly accept?: readonly string[];
  /** Which PROXY header the upstream gets. */
  readonly announce?: 'proxy-v1' | 'proxy-v2';
  readonly checksum?: boolean;
  readonly uniqueId?: boolean;
  /** Most connections at once. */
  readonly flows?: number;
  /** Files that each process of it may have open. */
  readonly files?: number;
  readonly accessLog?: boolean;
  readonly strictUdp?: boolean;
  /** The host has none, and only the IPv4 side of what is published is to be there. */
  readonly withoutIpv6?: boolean;
  /** The socket of a Docker Engine whose containers it follows. */
  readonly docker?: string;
  /** Where it shows its state: a unix socket, or a port of loopback. */
  readonly admin?: string | number;
}

export type SignalMeaning = 'reload' | 'drain';

export interface Subject {
  readonly name: SubjectName;
  readonly title: string;
  /** How many children each of its commands has when it is ready. */
  readonly workers: number;
  /** What its configuration is, in a phrase. */
  readonly settings: string;
  /** @throws an error that says what is missing, and how to get it */
  version(): string;
  /** Why it has no part in this, by nature. */
  cannot(wanted: Wanted): string | undefined;
  /** Writes its configuration into the folder; the commands that run it, a process each. */
  commands(folder: string, wanted: Wanted): readonly (readonly string[])[];
  /** Its configuration in that folder; undefined when it has none. */
  readonly file: string | undefined;
  /** The signal that means this to it. */
  readonly signals: Partial<Record<SignalMeaning, NodeJS.Signals>>;
}

export const bothFamilies: readonly string[] = ['0.0.0.0', '::'];

export function hostsOf({ hosts = bothFamilies }: Publication): readonly string[] {
  return hosts;
}

/** Where all of it is to be found listening. */
export function listenersOf({ publish, withoutIpv6 }: Wanted): readonly Listening[] {
  return publish.flatMap((publication) =>
    hostsOf(publication)
      .filter((host) => withoutIpv6 !== true || !host.includes(':'))
      .map((host) => ({ publication, host })),
  );
}

export interface Listening {
  readonly publication: Publication;
  readonly host: string;
}

/** At once, as an operator should: a reload may be under way. */
export function writeConfiguration(file: string, text: string): void {
  writeFileSync(`${file}.new`, text);
  renameSync(`${file}.new`, file);
}

/** An IPv6 address in brackets, as in URLs and most configurations. */
export function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

/** The words in front of a command that may not have more files open than that. */
export function withFiles({ files }: Wanted): Place {
  return { prefix: files === undefined ? [] : ['prlimit', `--nofile=${files}:${files}`] };
}
