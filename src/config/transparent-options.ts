/**
 * The names `dualport transparent` gives to what it makes in the kernel: an nft table, a mark on packets,
 * priorities of rules and numbers of route tables. Nobody else may have them.
 */
import { DualportError } from '../errors.ts';
import { notAllowed } from './place.ts';

/** Bits of a packet's mark, and which bits they are told apart by. */
export interface PacketMark {
  readonly value: number;
  readonly mask: number;
}

export const markForms =
  'a number of up to 32 bits that is not 0, or value/mask, such as 0x1000 or 0x1000/0xf000';

/**
 * Reads `0x1000` (the mask is the value itself) or `0x1000/0xf000`.
 *
 * @throws DualportError USAGE
 */
export function parseMark(text: string): PacketMark {
  const [valueText = '', maskText = valueText, ...more] = text.split('/');
  const [value, mask] = [parseBits(valueText), parseBits(maskText)];
  if (value === undefined || mask === undefined || more.length > 0) throw notAllowed(text, markForms);
  if ((value & ~mask) !== 0) {
    throw new DualportError(
      'USAGE',
      `found ${JSON.stringify(text)}, whose value has bits its mask has not; allowed: ${markForms}`,
    );
  }
  return { value, mask };
}

function parseBits(text: string): number | undefined {
  if (!/^(?:0x[\da-f]{1,8}|\d{1,10})$/i.test(text)) return undefined;
  const bits = Number(text);
  return bits > 0 && bits <= 0xffffffff ? bits : undefined;
}

export function formatMark({ value, mask }: PacketMark): string {
  return `${hex(value)}/${hex(mask)}`;
}

export function hex(bits: number): string {
  return `0x${(bits >>> 0).toString(16)}`;
}

export const tableForms = 'the name of an nft table: a letter and up to 30 letters, digits and underscores';

export function parseTable(name: string): string {
  if (!/^[a-z]\w{0,30}$/i.test(name)) throw notAllowed(name, tableForms);
  return name;
}

/** How many priorities from the first one on are used. */
export const prioritySpan = 5;
/** The kernel looks into the table `local` at 0 and into `main` at 32766; ours must be between. */
export const lastPriority = 32_766 - prioritySpan;

/** How many route tables from the first one on are used. */
export const routeTableSpan = 16;
/** Below are the tables that people give names and numbers to (rt_tables has 8 bits), and default, main and local. */
export const firstRouteTable = 256;
export const lastRouteTable = 0xffffffff - routeTableSpan;

export const interfaceForms = 'names of network interfaces, such as docker0';

/** What the kernel takes for a name and what nft can be told in quotes; an asterisk would be a pattern there. */
export function isInterfaceName(name: string): boolean {
  return /^[^\s/"\\*\p{Cc}]{1,15}$/u.test(name) && name !== '.' && name !== '..';
}

export function parseInterface(name: string): readonly string[] {
  if (!isInterfaceName(name)) throw notAllowed(name, interfaceForms);
  return [name];
}
