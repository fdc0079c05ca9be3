/**
 * Pseudo addresses, both ways. Before an IPv4 upstream a client has the address that the table gives it. Before an
 * IPv6 upstream it has an IPv6 one that embeds an IPv4 address: an IPv4 client's own, which loses nothing, and of
 * an IPv6 client the one it would have before an IPv4 upstream.
 */
import { randomBytes } from 'node:crypto';
import { messageOf } from '../errors.ts';
import { type Address, type Family, isIpv4 } from '../net/address.ts';
import type { Cidr } from '../net/cidr.ts';
import { addressOf, embed, embedded, isPseudo, numberOf, PseudoRange } from './range.ts';
import { Saver } from './saver.ts';
import {
  compactTable,
  makeKey,
  readKey,
  readTable,
  type SavedTable,
  setAside,
  tablePath,
} from './state-file.ts';
import { addressOfKey, clientNetwork, type PseudoEntry, PseudoTable } from './table.ts';

export interface PseudoSettings {
  readonly v4: Cidr;
  /** A /96. */
  readonly v6: Cidr;
  /** How many bits of an IPv6 address are one client. */
  readonly unitBits: number;
  readonly stateDir: string;
}

export interface GivenAddress {
  readonly address: Address;
  /** Undefined: it is this client's for ever. */
  readonly lease: PseudoEntry | undefined;
}

export class Pseudonyms {
  readonly #settings: PseudoSettings;
  readonly #table: PseudoTable;
  readonly #saver: Saver | undefined;

  /**
   * Reads what is on disk; without a directory to write to, addresses are given all the same.
   *
   * @param notice hears in sentences of what is not as it should be, now and later
   */
  static async open(settings: PseudoSettings, notice: (text: string) => void): Promise<Pseudonyms> {
    const { key, isKept } = openKey(settings.stateDir, notice);
    const table = new PseudoTable(key, new PseudoRange(settings.v4));
    // Of a directory that is closed to this user one word is enough.
    const saved = readSaved(settings.stateDir, isKept ? notice : () => {});
    if (saved !== undefined) restore(table, saved, settings.unitBits);
    const saver =
      isKept && saved !== undefined ? await openSaver(settings.stateDir, table, saved, notice) : undefined;
    return new Pseudonyms(settings, table, saver);
  }

  /** What is on disk, to be looked at; undefined when there is nothing. Throws the system's error. */
  static inspect(settings: PseudoSettings): Pseudonyms | undefined {
    const key = readKey(settings.stateDir);
    if (key === undefined) return undefined;
    const table = new PseudoTable(key, new PseudoRange(settings.v4));
    restore(table, readTable(settings.stateDir), settings.unitBits);
    return new Pseudonyms(settings, table, undefined);
  }

  private constructor(settings: PseudoSettings, table: PseudoTable, saver: Saver | undefined) {
    this.#settings = settings;
    this.#table = table;
    this.#saver = saver;
  }

  /** How many clients the table has. */
  get size(): number {
    return this.#table.size;
  }

  get capacity(): number {
    return this.#table.capacity;
  }

  /** The pseudo address of a client before upstreams of a family. */
  of(client: Address, upstream: Family): GivenAddress {
    const { v6, unitBits } = this.#settings;
    if (upstream === 6 && isIpv4(client)) return { address: embed(v6, client), lease: undefined };
    const lease = this.#table.of(clientNetwork(client, unitBits));
    return { address: upstream === 4 ? lease.address : embed(v6, lease.address), lease };
  }

  /** False when this client has none, and none is free. */
  hasOneFor(client: Address, upstream: Family): boolean {
    if (upstream === 6 && isIpv4(client)) return true;
    return this.#table.hasRoomFor(clientNetwork(client, this.#settings.unitBits));
  }

  /** Whom a pseudo address stands for; undefined when it was given to nobody. */
  clientOf(address: Address): Cidr | undefined {
    const { v4, v6 } = this.#settings;
    const inner = embedded(v6, address);
    // An IPv4 client's own address stands for itself, one that it was given for its client.
    if (inner !== undefined && !isPseudo({ v4, v6 }, inner)) return { address: inner, bits: 128 };
    return this.#table.at(numberOf(inner ?? address))?.network;
  }

  /** The addresses a client has, or would have, and when it last used them; nothing is given. */
  lookUp(client: Address): {
    readonly network: Cidr;
    readonly addresses: readonly Address[];
    readonly usedS: number | undefined;
  } {
    const { v6, unitBits } = this.#settings;
    const network = clientNetwork(client, unitBits);
    const known = this.#table.known(network);
    const ipv4 = addressOf(known?.number ?? this.#table.foresee(network));
    const addresses = [ipv4, embed(v6, isIpv4(client) ? client : ipv4)];
    return { network, addresses, usedS: known?.usedS };
  }

  /** Writes what is not written yet. */
  async close(): Promise<void> {
    await this.#saver?.close();
  }
}

function openKey(directory: string, notice: (text: string) => void): { key: Buffer; isKept: boolean } {
  try {
    const { key, wasDamaged } = makeKey(directory);
    if (wasDamaged) {
      notice(
        `the key of the pseudo addresses in ${directory} was damaged: it is kept aside, and clients that are not in the table get other addresses`,
      );
    }
    return { key, isKept: true };
  } catch (error) {
    const key = readKeyOrNot(directory);
    const what = key === undefined ? 'they change with the next start' : 'new ones are not kept';
    notice(
      `pseudo addresses cannot be kept in ${directory}, ${what}: ${messageOf(error)}; ` +
        'give --state-dir a directory that this user may write to',
    );
    return { key: key ?? randomBytes(32), isKept: false };
  }
}

function readKeyOrNot(directory: string): Buffer | undefined {
  try {
    return readKey(directory);
  } catch {
    return undefined;
  }
}

/** Undefined when there is something that cannot be read: then it is left alone. */
function readSaved(directory: string, notice: (text: string) => void): SavedTable | undefined {
  try {
    return readTable(directory);
  } catch (error) {
    const path = tablePath(directory);
    notice(`the pseudo addresses in ${path} cannot be read, new ones are not kept: ${messageOf(error)}`);
    return undefined;
  }
}

/** What other settings have left is for other settings. */
function restore(table: PseudoTable, { entries }: SavedTable, unitBits: number): void {
  for (const entry of entries) {
    const { bits, key } = entry;
    if (bits === unitBits || clientNetwork(addressOfKey(key), unitBits).bits === bits) table.restore(entry);
  }
}

async function openSaver(
  directory: string,
  table: PseudoTable,
  saved: SavedTable,
  notice: (text: string) => void,
): Promise<Saver> {
  const path = tablePath(directory);
  let lines = saved.entries.length;
  try {
    if (saved.damaged > 0) {
      const aside = setAside(path);
      notice(
        `${saved.damaged} lines of the pseudo addresses were damaged and are left out; the file is kept as ${aside}, ` +
          `the other ${lines} lines hold`,
      );
      lines = await compactTable(aside, path, table.capacity);
    } else if (!saved.isWhole) lines = await compactTable(path, path, table.capacity);
  } catch (error) {
    notice(`the pseudo addresses in ${path} cannot be written anew: ${messageOf(error)}`);
  }
  return new Saver(table, directory, lines, notice);
}
