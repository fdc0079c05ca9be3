/**
 * The IPv4 addresses that clients are given, as numbers, and the IPv6 ones an IPv4 address is embedded in.
 *
 * Of each 256 the first and the last are left out, which old programs take for a network and its broadcast
 * address; and so is 255.255.255.0/24, of whose last address Linux makes another (measured, Linux 6.18).
 */
import { type Address, fromIpv4, ipv4Octets, isIpv4 } from '../net/address.ts';
import { type Cidr, masked } from '../net/cidr.ts';

const lastBlock = 0xff_ff_ff_00;

export class PseudoRange {
  readonly #first: number;
  readonly #size: number;

  /** @param range an IPv4 prefix of length 24 or less */
  constructor(range: Cidr) {
    this.#first = numberOf(range.address);
    this.#size = 2 ** (128 - range.bits);
  }

  /** How many addresses can be given. */
  get usable(): number {
    const blocks = this.#size / 256 - (this.#first + this.#size === 2 ** 32 ? 1 : 0);
    return blocks * 254;
  }

  /** The address that this many bits of a hash stand for; undefined when it is one of those left out. */
  pick(hash: number): number | undefined {
    const number = this.#first + (hash % this.#size);
    return this.has(number) ? number : undefined;
  }

  has(number: number): boolean {
    const last = number % 256;
    return number >= this.#first && number < this.#first + this.#size && isHost(last) && number < lastBlock;
  }
}

function isHost(last: number): boolean {
  return last !== 0 && last !== 255;
}

/** An IPv4 address as a number. */
export function numberOf(address: Address): number {
  const [a = 0, b = 0, c = 0, d = 0] = ipv4Octets(address);
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
}

export function addressOf(number: number): Address {
  return fromIpv4(number >>> 24, (number >>> 16) & 0xff, (number >>> 8) & 0xff, number & 0xff);
}

/** @param prefix a /96 */
export function embed(prefix: Cidr, ipv4: Address): Address {
  // A copy and a loop, and no iterator: this is asked for each flow.
  const address = new Uint8Array(prefix.address);
  for (let i = 12; i < 16; i++) address[i] = ipv4[i] ?? 0;
  return address;
}

/** Is this an address that stands for another? */
export function isPseudo({ v4, v6 }: { readonly v4: Cidr; readonly v6: Cidr }, address: Address): boolean {
  return isIpv4(address)
    ? Buffer.compare(masked(address, v4.bits), v4.address) === 0
    : embedded(v6, address) !== undefined;
}

/** The IPv4 address in an IPv6 one; undefined where that is not of this prefix. */
export function embedded(prefix: Cidr, address: Address): Address | undefined {
  if (isIpv4(address)) return undefined;
  for (let i = 0; i < 12; i++) if (address[i] !== prefix.address[i]) return undefined;
  const [a = 0, b = 0, c = 0, d = 0] = address.subarray(12);
  return fromIpv4(a, b, c, d);
}
