/**
 * The zone of a link-local address: an interface's name in dualport, its number in the kernel. Interfaces come
 * and go, so what is not known is looked up again; only addresses that have a zone ever cost that.
 */
import { networkInterfaces } from 'node:os';

export class Zones {
  readonly #names = new Map<number, string>();

  /** 0, which the kernel refuses for a link-local address, when there is no such interface. */
  indexOf(zone: string): number {
    if (zone === '') return 0;
    if (/^\d+$/.test(zone)) return Number(zone);
    for (const [index, name] of linkLocalInterfaces()) if (name === zone) return index;
    return 0;
  }

  nameOf(index: number): string {
    if (index === 0) return '';
    const known = this.#names.get(index);
    if (known !== undefined) return known;
    for (const [found, name] of linkLocalInterfaces()) this.#names.set(found, name);
    return this.#names.get(index) ?? String(index);
  }
}

function linkLocalInterfaces(): readonly (readonly [index: number, name: string])[] {
  return Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
    addresses.flatMap(({ scopeid }) => (scopeid ? [[scopeid, name] as const] : [])),
  );
}
