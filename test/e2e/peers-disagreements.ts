/**
 * Where nginx 1.22 and HAProxy 2.6 read a PROXY header otherwise than dualport does, and what the specification
 * (HAProxy's proxy-protocol.txt, by section) has to say of it. docs/proxy-protocol.md shows the same list to people.
 */

/** `refused`, with dualport's reason behind a colon; `nobody named`; or source and destination, address and port. */
export type Reading = string;

export interface Disagreement {
  readonly peer: 'nginx' | 'HAProxy';
  /** What is in the header. */
  readonly header: string;
  readonly ours: RegExp;
  readonly theirs: RegExp;
  /** Further, of the header's bytes. */
  readonly when?: (bytes: Buffer) => boolean;
  /** What decides, in our words. */
  readonly specification: string;
}

const named = /^(?!refused|nobody)/;
const nobody = /^nobody named$/;
const refused = /^refused$/;
/** A reader that took the header, whatever it saw in it. */
const accepted = /^(?!refused)/;

const isVersion2 = (bytes: Buffer) => bytes[0] === 0x0d;
const isV1Unknown = (bytes: Buffer) => bytes.subarray(0, 13).toString() === 'PROXY UNKNOWN';
/** Fixed bytes, addresses and fields. */
const lengthV2 = (bytes: Buffer) => 16 + bytes.readUInt16BE(14);
const hasCommandProxy = (bytes: Buffer) => ((bytes[12] ?? 0) & 15) === 1;

/** Room for a header in nginx 1.22. */
const nginxRoom = 107;

export const disagreements: readonly Disagreement[] = [
  {
    peer: 'nginx',
    header: 'version 2, a command other than LOCAL and PROXY',
    ours: /v2-command/,
    theirs: nobody,
    specification: '2.2: other commands are not assigned, and a receiver has to drop the connection',
  },
  {
    peer: 'nginx',
    header: 'version 2, a family or transport that is not defined',
    ours: /v2-family/,
    theirs: nobody,
    specification: '2.2: values that are not defined have to be refused',
  },
  {
    peer: 'nginx',
    header: 'version 2, DGRAM on a stream',
    ours: /v2-transport/,
    theirs: nobody,
    specification:
      '2.2: a receiver that does not handle a transport may take it as UNSPEC or refuse it; both are right',
  },
  {
    peer: 'nginx',
    header: 'version 2, longer than 107 bytes',
    ours: accepted,
    theirs: refused,
    when: (bytes) => isVersion2(bytes) && lengthV2(bytes) > nginxRoom,
    specification:
      '2.2: the length is 16 bits, and unix addresses alone are 216 bytes; its buffer is too small',
  },
  {
    peer: 'nginx',
    header: 'version 2, a length that does not hold the unix addresses',
    ours: /v2-short/,
    theirs: nobody,
    specification: '2.2: a header shorter than the addresses of its family is not to be accepted',
  },
  {
    peer: 'nginx',
    header: 'version 2, a field that does not fit, or bytes left over',
    ours: /v2-tlv/,
    theirs: accepted,
    specification: '2.2: the fields fill the rest of the header exactly; nginx 1.22 does not read them',
  },
  {
    peer: 'nginx',
    header: 'version 2, a wrong checksum',
    ours: /v2-crc/,
    theirs: accepted,
    specification:
      '2.2.3: a receiver that knows the checksum has to refuse a wrong one; nginx 1.22 does not know it',
  },
  {
    peer: 'nginx',
    header: 'version 1, an address that is none, or is of the other family',
    ours: /v1-address/,
    theirs: named,
    specification: '2.1: the word in front says which form the addresses have; nginx keeps the text as it is',
  },
  {
    peer: 'nginx',
    header: 'version 1, an address of no length',
    ours: /v1-fields/,
    theirs: nobody,
    specification: '2.1: one space between two fields, and no field is empty',
  },
  {
    peer: 'nginx',
    header: 'version 1, a port with leading zeros',
    ours: /v1-port/,
    theirs: named,
    specification: '2.1: no heading zeros',
  },
  {
    peer: 'nginx',
    header: 'version 1, UNKNOWN with a carriage return inside the line',
    ours: /v1-bare-lf/,
    theirs: nobody,
    when: isV1Unknown,
    specification:
      '2.1: the line ends at its first CRLF, and a receiver need not look further than that for its end',
  },
  {
    peer: 'nginx',
    header: 'version 1, a word that only begins with UNKNOWN',
    ours: /v1-proto/,
    theirs: nobody,
    when: isV1Unknown,
    specification: '2.1: the protocol is TCP4, TCP6 or UNKNOWN',
  },
  {
    peer: 'HAProxy',
    header: 'version 1, UNKNOWN with something behind it',
    ours: nobody,
    theirs: refused,
    when: isV1Unknown,
    specification: '2.1: what stands between UNKNOWN and the end of the line has to be passed over',
  },
  {
    peer: 'HAProxy',
    header: 'version 2, PROXY with UNSPEC',
    ours: nobody,
    theirs: refused,
    when: (bytes) => isVersion2(bytes) && hasCommandProxy(bytes),
    specification: '2.2: a receiver takes the real addresses, or refuses the connection; both are right',
  },
  {
    peer: 'HAProxy',
    header: 'version 1, a port above 65535',
    ours: /v1-port/,
    theirs: named,
    specification: '2.1: ports are 0 to 65535; HAProxy takes the remainder, 65616 is 80',
  },
  {
    peer: 'HAProxy',
    header: 'version 1, an IPv4 address with a part above 255, too few parts, or leading zeros',
    ours: /v1-address/,
    theirs: named,
    specification:
      '2.1: four numbers of 0 to 255 without heading zeros; HAProxy carries into the part in front',
  },
  {
    peer: 'HAProxy',
    header: 'version 1, longer than 107 bytes',
    ours: /v1-too-long/,
    theirs: named,
    specification:
      '2.1: 107 bytes are the longest line; it takes IPv6 addresses spelled with an IPv4 tail beyond that',
  },
  {
    peer: 'HAProxy',
    header: 'version 1, a port missing, or a field too many',
    ours: /v1-fields/,
    theirs: named,
    specification: '2.1: two addresses and two ports with one space in front of each',
  },
  {
    peer: 'HAProxy',
    header: 'version 2, a field inside that of TLS which does not fit',
    ours: /v2-tlv/,
    theirs: accepted,
    specification: '2.2.6: the fields of TLS lie inside of theirs; HAProxy does not read them here',
  },
];
