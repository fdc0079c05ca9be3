/**
 * A second opinion on PROXY headers, written in another style than the decoder so that the two do not err
 * together: version 1 by whole-line regular expressions and node:net, version 2 by offsets into a Buffer, a
 * recursive walk and a bitwise checksum. Slow, and asked about whole inputs only.
 */
import { isIP, isIPv4 } from 'node:net';
import { signatureV2, slowCrc32c, wide } from './handmade.ts';

/** What the decoder should say; errors of version 1 without their code. */
export function oracle(bytes: Buffer, transport: 'tcp' | 'udp'): string {
  const opinion = undecided(bytes, transport);
  return opinion === 'more' && transport === 'udp' ? 'error truncated' : opinion;
}

function undecided(bytes: Buffer, transport: 'tcp' | 'udp'): string {
  const common = Math.min(12, bytes.length);
  if (bytes.subarray(0, common).equals(signatureV2.subarray(0, common))) return oracleV2(bytes, transport);
  const text = bytes.toString('latin1');
  if (transport === 'udp' || !'PROXY '.startsWith(text.slice(0, 6))) return 'error not-proxy';
  return oracleV1(text);
}

const whole = /^PROXY (TCP[46]) ([^ ]+) ([^ ]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})\r\n/;
const wholeUnknown = /^PROXY UNKNOWN(?: [^\r\n]*)?\r\n/;
const part = '[\\da-fA-F:.]{0,45}';
const beginnings = [
  `${part}`,
  `([^ ]+) ${part}`,
  `([^ ]+) ([^ ]+) (\\d*)`,
  `([^ ]+) ([^ ]+) (\\d+) (\\d*)`,
  `([^ ]+) ([^ ]+) (\\d+) (\\d+)\r`,
].map((fields) => new RegExp(`^PROXY (TCP[46]) ${fields}$`));

function oracleV1(text: string): string {
  const line = text.slice(0, 107);
  const unknown = wholeUnknown.exec(line);
  if (unknown) return `done ${unknown[0].length} v1 LOCAL ->-   `;
  const [match, word = '', source = '', destination = '', from, to] = whole.exec(line) ?? [];
  if (match !== undefined) {
    const legal = [source, destination].every((ip) => isOf(word, ip)) && [from, to].every(isPort);
    const parties = legal ? `${expanded(source)}:${from}>${expanded(destination)}:${to}` : '';
    return legal ? `done ${match.length} v1 PROXY ${parties}   ` : 'error';
  }
  return mayStillBecomeV1(text) ? 'more' : 'error';
}

function mayStillBecomeV1(text: string): boolean {
  if (['PROXY TCP4 ', 'PROXY TCP6 ', 'PROXY UNKNOWN'].some((start) => start.startsWith(text))) return true;
  // 105 bytes of text, or fewer and a carriage return.
  if (text.replace(/\r$/, '').length > 105) return false;
  if (/^PROXY UNKNOWN(?: [^\r\n]*)?\r?$/.test(text)) return true;
  return beginnings.some((beginning) => {
    const [match, word = '', ...fields] = beginning.exec(text) ?? [];
    if (match === undefined) return false;
    const tail = / ([^ \r]*)\r?$/.exec(text)?.[1] ?? '';
    if (fields.length < 2 && word === 'TCP4' && !/^[\d.]{0,15}$/.test(tail)) return false;
    const addresses = fields.slice(0, 2).every((ip) => isOf(word, ip));
    return addresses && fields.slice(2).every((port) => port === '' || isPort(port));
  });
}

/** node:net takes zones; a header has none. */
function isOf(word: string, ip: string): boolean {
  return !ip.includes('%') && `TCP${isIP(ip)}` === word;
}

function isPort(text: string | undefined): boolean {
  return text !== undefined && String(Number(text)) === text && Number(text) < 2 ** 16;
}

/** The 16 bytes of a valid address, in hex. */
function expanded(ip: string): string {
  if (isIPv4(ip)) return wide(ip).toString('hex');
  const hexTail = ip.replace(/\d+\.\d+\.\d+\.\d+$/, (tail) => {
    const [a = 0, b = 0, c = 0, d = 0] = tail.split('.').map(Number);
    return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
  });
  const [left = [], right = []] = hexTail
    .split('::')
    .map((half) => half.split(':').filter((group) => group !== ''));
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => '0');
  return [...left, ...zeros, ...right].map((group) => group.toLowerCase().padStart(4, '0')).join('');
}

function oracleV2(bytes: Buffer, transport: 'tcp' | 'udp'): string {
  const nibbles = [...bytes.subarray(12, 14).toString('hex')];
  const [version, command, family, protocol] = nibbles;
  if (version !== undefined && version !== '2') return 'error v2-version';
  if (command !== undefined && !'01'.includes(command)) return 'error v2-command';
  if (command === '1' && family !== undefined && protocol !== undefined) {
    if (!'0123'.includes(family) || !'012'.includes(protocol)) return 'error v2-family';
    if (protocol === (transport === 'tcp' ? '2' : '1')) return 'error v2-transport';
  }
  if (bytes.length < 16) return 'more';
  const length = bytes.readUInt16BE(14);
  if (length > 4080) return 'error v2-too-long';
  const nobody = command === '0' || family === '0' || protocol === '0';
  const block = nobody ? 0 : family === '1' ? 12 : family === '2' ? 36 : 216;
  if (length < block) return 'error v2-short';
  if (bytes.length < 16 + length) return 'more';
  if (nobody) return `done ${16 + length} v2 ${command === '0' ? 'LOCAL' : 'PROXY'} ->-   `;
  return oracleContent(bytes.subarray(0, 16 + length), 16 + block);
}

function oracleContent(header: Buffer, from: number): string {
  const fields = walk(header, from);
  if (fields === undefined || !fields.every(fits)) return 'error v2-tlv';
  const sums = fields.filter(({ type }) => type === 3);
  if (sums.length > 1) return 'error v2-tlv';
  for (const { value, at } of sums) {
    const zeroed = Buffer.concat([header.subarray(0, at), Buffer.alloc(4), header.subarray(at + 4)]);
    if (value.readUInt32BE() !== slowCrc32c(zeroed)) return 'error v2-crc';
  }
  const text = fields.map(({ type, value }) => `${type}=${value.toString('hex')}`).join(',');
  return `done ${header.length} v2 PROXY ${oracleParties(header)} ${text} ${sums.length > 0 ? 'crc' : ''}`;
}

function oracleParties(header: Buffer): string {
  const at = (from: number, length: number) => header.subarray(from, from + length);
  const name = (bytes: Buffer) => /^(\0?[^\0]*)/.exec(bytes.toString())?.[1]?.replace('\0', '@');
  switch (header.readUInt8(13) >> 4) {
    case 1:
      return `${wide(at(16, 4).join('.')).toString('hex')}:${header.readUInt16BE(24)}>${wide(at(20, 4).join('.')).toString('hex')}:${header.readUInt16BE(26)} `;
    case 2:
      return `${at(16, 16).toString('hex')}:${header.readUInt16BE(48)}>${at(32, 16).toString('hex')}:${header.readUInt16BE(50)} `;
    default:
      return `->- unix ${name(at(16, 108))}>${name(at(124, 108))}`;
  }
}

interface Field {
  readonly type: number;
  readonly value: Buffer;
  readonly at: number;
}

function walk(bytes: Buffer, from: number): Field[] | undefined {
  if (from === bytes.length) return [];
  if (bytes.length - from < 3) return undefined;
  const end = from + 3 + bytes.readUInt16BE(from + 1);
  const rest = end > bytes.length ? undefined : walk(bytes, end);
  if (rest === undefined) return undefined;
  return [{ type: bytes.readUInt8(from), value: bytes.subarray(from + 3, end), at: from + 3 }, ...rest];
}

function fits({ type, value }: Field): boolean {
  if (type === 2) return value.length < 256;
  if (type === 3) return value.length === 4;
  if (type === 5) return value.length < 129;
  return type !== 32 || (value.length > 4 && walk(value, 5) !== undefined);
}
