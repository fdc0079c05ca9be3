/**
 * Where the packets of an attempt get to, counted by an nft table that is there for as long as the check:
 *
 *   sent ─► left ─► (upstream) ─► back ─► kept (marked) ─┬─► reached ─► delivered
 *                                                        └─► passed on
 *
 * `back` is before every other chain of the host and `kept` behind them, so what is between was dropped by a
 * firewall's own chain; between `kept` and the two ends the kernel decides on the route.
 */
import { hex, type PacketMark } from '../../config/transparent-options.ts';
import { type Endpoint, formatAddress, isIpv4 } from '../../net/address.ts';
import type { NftObjects } from '../marking.ts';
import type { Upstream } from '../needs.ts';

/** Who asks whom. */
export interface Traced {
  readonly upstream: Upstream;
  readonly client: Pick<Endpoint, 'address' | 'port'>;
}

/** Packets counted. */
export interface Trace {
  readonly sent: number;
  readonly left: number;
  /** To the upstream from another address than the client's. */
  readonly rewritten: number;
  /** Of a program on this host, as it sends it. */
  readonly answered: number;
  readonly back: number;
  /** Sent here or come back, from another address than was asked. */
  readonly strayed: number;
  readonly kept: number;
  readonly marked: number;
  readonly passed: number;
  readonly reached: number;
  readonly delivered: number;
  /** Where they came back from. */
  readonly interfaces: readonly string[];
}

const counters = [
  'sent',
  'left',
  'rewritten',
  'answered',
  'strayed',
  'back',
  'kept',
  'marked',
  'passed',
  'reached',
  'delivered',
] as const;
type Counter = (typeof counters)[number];

/** A chain of each hook, before or behind everybody else's, and what it counts. */
const chains: readonly {
  readonly hook: string;
  readonly priority: number;
  readonly counts: readonly Counter[];
}[] = [
  { hook: 'output', priority: -350, counts: ['sent', 'answered', 'strayed'] },
  { hook: 'postrouting', priority: 350, counts: ['left', 'rewritten'] },
  { hook: 'prerouting', priority: -350, counts: ['back', 'strayed'] },
  { hook: 'prerouting', priority: 350, counts: ['kept', 'marked'] },
  { hook: 'forward', priority: -350, counts: ['passed'] },
  { hook: 'input', priority: -350, counts: ['reached'] },
  { hook: 'input', priority: 350, counts: ['delivered'] },
];

export function traceTable(table: string): string {
  return `${table}_check`;
}

/** Makes the table, or replaces one that a killed check has left. */
export function traceScript(table: string, traced: readonly Traced[], mark: PacketMark): string {
  const name = traceTable(table);
  const declared = traced.flatMap((_, i) => [
    ...counters.map((counter) => `\tcounter ${counter}_${i} { }`),
    `\tset from_${i} {\n\t\ttype ifname\n\t\tsize 64\n\t\tflags dynamic\n\t}`,
  ]);
  const defined = chains.map(({ hook, priority, counts }) => {
    const rules = traced.flatMap((one, i) => counts.flatMap((counter) => rulesOf(counter, one, i, mark)));
    const head = `\t\ttype filter hook ${hook} priority ${priority}; policy accept;`;
    return `\tchain ${hook}_${priority < 0 ? 'first' : 'last'} {\n${[head, ...rules].join('\n')}\n\t}`;
  });
  return `add table inet ${name}\ndelete table inet ${name}\ntable inet ${name} {\n${[...declared, ...defined].join('\n')}\n}\n`;
}

function rulesOf(counter: Counter, traced: Traced, index: number, mark: PacketMark): readonly string[] {
  const count = `counter name "${counter}_${index}"`;
  return packetsOf(counter, traced, mark).map(
    (packets) => `\t\t${packets} ${counter === 'back' ? `add @from_${index} { iifname } ` : ''}${count}`,
  );
}

function packetsOf(
  counter: Counter,
  { upstream, client }: Traced,
  { value, mask }: PacketMark,
): readonly string[] {
  const ip = isIpv4(client.address) ? 'ip' : 'ip6';
  const [theirs, ours] = [formatAddress(upstream.address), formatAddress(client.address)];
  const { protocol, port } = upstream;
  const answers = `${ip} daddr ${ours} ${protocol} sport ${port} ${protocol} dport ${client.port}`;
  const back = [
    `${ip} saddr ${theirs} ${answers}`,
    // A refusal is an answer, too.
    `${ip} saddr ${theirs} ${ip} daddr ${ours} meta l4proto { icmp, ipv6-icmp }`,
  ];
  const out = `${ip} daddr ${theirs} ${protocol} dport ${port}`;
  if (counter === 'sent' || counter === 'left')
    return [`${ip} saddr ${ours} ${out} ${protocol} sport ${client.port}`];
  if (counter === 'rewritten') return [`${ip} saddr != ${ours} ${out}`];
  if (counter === 'strayed') return [`${ip} saddr != ${theirs} ${answers}`];
  if (counter === 'marked')
    return back.map((packets) => `${packets} meta mark & ${hex(mask)} == ${hex(value)}`);
  return back;
}

/** From `nft -j list table`. */
export function readTrace(objects: NftObjects, index: number): Trace {
  const named = (kind: string, name: string) =>
    objects.map((object) => object[kind]).find((part) => part?.['name'] === `${name}_${index}`);
  const counted = counters.map((counter) => [counter, Number(named('counter', counter)?.['packets'] ?? 0)]);
  const elements = named('set', 'from')?.['elem'];
  const interfaces = Array.isArray(elements) ? elements.map(elementText) : [];
  return { ...(Object.fromEntries(counted) as Record<Counter, number>), interfaces };
}

/** An element of a dynamic set may be wrapped with what else is known of it. */
function elementText(element: unknown): string {
  if (typeof element === 'string') return element;
  const { elem } = element as { elem?: { val?: unknown } };
  return String(elem?.val ?? '');
}
