/** The one nft table: its text, and whether a table that is there is this one. Pure. */
import { hex, type PacketMark } from '../config/transparent-options.ts';
import type { Marking } from './plan.ts';

export interface TableNames {
  readonly table: string;
  readonly mark: PacketMark;
}

const setName = 'answering_interfaces';
const chainName = 'mark_answers';
/** With the refusals that come by ICMP: unmarked, the client would get them, and nobody the other end of the flow. */
const protocols = ['tcp', 'udp', 'icmp', 'ipv6-icmp'] as const;

/** Makes the table, or replaces the one there is: nft does all of it or nothing. */
export function markingScript({ interfaces }: Marking, names: TableNames): string {
  const { table } = names;
  return `add table inet ${table}
delete table inet ${table}
table inet ${table} {
	set ${setName} {
		type ifname
		elements = { ${interfaces.map((name) => `"${name}"`).join(', ')} }
	}

	chain ${chainName} {
		type filter hook prerouting priority mangle; policy accept;
		iifname @${setName} socket wildcard 1 return comment "${spareComment}"
		iifname @${setName} meta l4proto { ${protocols.join(', ')} } socket transparent 1 ${markWords(names.mark)} counter accept comment "${commentOf(names)}"
	}
}
`;
}

export function removalScript(table: string): string {
  return `delete table inet ${table}\n`;
}

/** Bits of the mask that are not in the value are cleared; `meta mark | 0x1000` when there are none. */
function markWords({ value, mask }: PacketMark): string {
  const cleared = mask & ~value;
  const kept = cleared === 0 ? 'meta mark' : `meta mark & ${hex(~cleared)}`;
  return `meta mark set ${kept} | ${hex(value)}`;
}

/** Rules are told by it; it changes with what they do. */
function commentOf({ mark }: TableNames): string {
  return `${commentStart} ${hex(mark.value)}/${hex(mark.mask)}`;
}

const commentStart = 'dualport transparent';
/**
 * A transparent proxy of somebody else has a wildcard socket, which would be found for whatever address is called; ours
 * are bound. A rule of its own: one that ends is neither, and `wildcard 0` would not be true of it.
 */
const spareComment = `${commentStart}, not for wildcard sockets`;

/** `nft -j list table`. */
export type NftObjects = readonly Readonly<Record<string, NftObject>>[];
type NftObject = Readonly<Record<string, unknown>>;

/** What in a table of our name is nobody's of ours; undefined when there is nothing. */
export function foreignPart(objects: NftObjects): string | undefined {
  for (const object of objects) {
    const [[kind, part]] = Object.entries(object) as [[string, NftObject]];
    if (kind === 'metainfo' || kind === 'table') continue;
    const name = String(part['name'] ?? part['comment'] ?? part['handle']);
    const ours =
      (kind === 'set' && name === setName) ||
      (kind === 'chain' && name === chainName) ||
      (kind === 'rule' && part['chain'] === chainName && name.startsWith(commentStart));
    if (!ours) return `${kind} ${JSON.stringify(name)}`;
  }
  return undefined;
}

/** Nothing has to be done to it. A table that another nft shows in another way is replaced, which hurts nobody. */
export function isSameMarking(objects: NftObjects, { interfaces }: Marking, names: TableNames): boolean {
  const parts = (kind: string) => objects.flatMap((object): NftObject[] => [object[kind] ?? []].flat());
  const [set, ...sets] = parts('set');
  const [chain, ...chains] = parts('chain');
  const rules = parts('rule');
  if (sets.length + chains.length > 0) return false;
  const elements = set?.['elem'];
  return (
    Array.isArray(elements) &&
    JSON.stringify([...elements].sort()) === JSON.stringify([...interfaces].sort()) &&
    chain?.['hook'] === 'prerouting' &&
    chain['prio'] === -150 &&
    chain['policy'] === 'accept' &&
    JSON.stringify(rules.map(shownRule)) === JSON.stringify(wantedRules(names))
  );
}

/** As nft shows it, without what has been counted; protocols come in any order. */
function shownRule({ comment, expr }: NftObject): unknown {
  if (!Array.isArray(expr)) return [comment, expr];
  const shown = expr
    .filter((part) => !('counter' in part))
    .map((part) => {
      const { set } = part.match?.right ?? {};
      return Array.isArray(set) ? { match: { ...part.match, right: { set: [...set].sort() } } } : part;
    });
  return [comment, shown];
}

function wantedRules(names: TableNames): readonly unknown[] {
  const { value, mask } = names.mark;
  const mark = { meta: { key: 'mark' } };
  const cleared = mask & ~value;
  const kept = cleared === 0 ? mark : { '&': [mark, ~cleared >>> 0] };
  const match = (left: unknown, right: unknown) => ({ match: { op: '==', left, right } });
  const answers = match({ meta: { key: 'iifname' } }, `@${setName}`);
  return [
    [spareComment, [answers, match({ socket: { key: 'wildcard' } }, 1), { return: null }]],
    [
      commentOf(names),
      [
        answers,
        match({ meta: { key: 'l4proto' } }, { set: [...protocols].sort() }),
        match({ socket: { key: 'transparent' } }, 1),
        { mangle: { key: mark, value: { '|': [kept, value] } } },
        { accept: null },
      ],
    ],
  ];
}
