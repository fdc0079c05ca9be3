/**
 * Random TCP scripts, and what an engine makes of them. A script says for each end of a flow what it writes and
 * in which pieces, when it does not read, and how it ends. Playing it gives an outcome that has nothing of timing
 * in it: those of two engines must be equal, and equal to what the script says.
 *
 *   both end       all bytes arrive, both hear the end, the record has every byte
 *   quiet reset    one resets when nothing is under way any more: the same, but the other hears the reset
 *   reset          in the middle of it: what arrived is the beginning of what was sent, and the record has no
 *                  less than that and no more than was sent
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net, { type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { RuleGroup } from '../../src/engine/admission.ts';
import { endedCleanly } from '../../src/engine/portable/reset.ts';
import { type CounterName, counterNames, readCounter } from '../../src/flow/counters.ts';
import type { FlowRecord } from '../../src/flow/flow.ts';
import { type Endpoint, formatHost } from '../../src/net/address.ts';
import { type Dice, pick } from '../unit/proxy-protocol/random.ts';
import { at, type Harness, type Path, paths, until } from './harness.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

/** Around nothing, one read by copying, a small pipe, and a large pipe or one turn. */
const sizes = [0, 64 * KiB, 256 * KiB, MiB].flatMap((edge) => [Math.abs(edge - 1), edge, edge + 1]);

type Ending = 'end' | 'quiet reset' | 'reset';

/** One end of a flow. */
interface Part {
  readonly bytes: number;
  readonly pieces: readonly { readonly afterMs: number; readonly bytes: number }[];
  /** Writes only once the other has ended. */
  readonly answers: boolean;
  readonly ending: Ending;
  /** Where it stops reading for a while. */
  readonly stops: readonly Stop[];
}

interface Stop {
  readonly at: number;
  /** Or until the other can send no more, so that every buffer on the way is full. */
  readonly forMs: number | 'full';
}

export interface TcpScript {
  readonly path: Path;
  /** Nobody begins before the flow is relayed. */
  readonly greeted: boolean;
  readonly announced: boolean;
  readonly client: Part;
  readonly upstream: Part;
}

interface Heard {
  readonly arrived: string;
  readonly endings: string;
}

export interface TcpOutcome {
  readonly client: Heard;
  readonly upstream: Heard;
  readonly reason: string;
  readonly bytes: string;
  /** But those that are 0. */
  readonly counters: Counted;
}

export type Counted = Partial<Record<CounterName, number>>;

/* Scripts */

export function tcpScript(roll: Dice): TcpScript {
  const [client, upstream] = endings(roll);
  const resets = client !== 'end' || upstream !== 'end';
  const answering = resets ? 0 : roll(6);
  const bytes = [size(roll), size(roll)] as const;
  return {
    path: pick(roll, paths as [Path, ...Path[]]),
    // A reset by the client has another reason where no upstream is there yet.
    greeted: resets || roll(2) === 0,
    announced: roll(4) === 0,
    client: part(roll, bytes[0], bytes[1], client, answering === 1),
    upstream: part(roll, bytes[1], bytes[0], upstream, answering === 2),
  };
}

function endings(roll: Dice): readonly [Ending, Ending] {
  const ending = pick<Ending>(roll, ['end', 'end', 'end', 'quiet reset', 'reset', 'reset']);
  return roll(2) === 0 ? ['end', ending] : [ending, 'end'];
}

/** Now and then more than a reader that stands still has buffers for. */
const size = (roll: Dice) => (roll(12) === 0 ? 4 * MiB + roll(MiB) : pick(roll, sizes as [number]));

function part(roll: Dice, most: number, others: number, ending: Ending, answers: boolean): Part {
  const bytes = ending === 'reset' ? roll(most + 1) : most;
  const long: Stop = { at: roll(64 * KiB), forMs: others > 4 * MiB ? 'full' : 60 };
  const first = others > 4 * MiB || roll(3) === 0 ? [long] : [];
  const stops = places(roll, pick(roll, [0, 0, 1, 3]), others).map(
    (at): Stop => ({ at, forMs: 1 + roll(25) }),
  );
  const ordered = [...first.filter(({ at }) => at <= others), ...stops].sort((a, b) => a.at - b.at);
  return { bytes, pieces: pieces(roll, bytes), answers, ending, stops: ordered };
}

function pieces(roll: Dice, bytes: number): Part['pieces'] {
  const trickles = bytes > 256 * KiB && roll(2) === 0;
  const count = trickles ? Math.ceil(bytes / (32 * KiB)) : pick(roll, [0, 1, 4, 24]);
  const cuts = [...places(roll, count, bytes), bytes];
  return cuts.map((cut, i) => ({
    afterMs: trickles ? 1 : roll(4) === 0 ? roll(8) : 0,
    bytes: cut - (cuts[i - 1] ?? 0),
  }));
}

const places = (roll: Dice, count: number, length: number) =>
  Array.from({ length: count }, () => roll(length + 1)).sort((a, b) => a - b);

/* Playing */

const mostBytes = 5 * MiB;
/** What both send is taken from here, so that no part of it is like another. */
const pool = randomBytes(2 * mostBytes);

export async function playTcp(harness: Harness, script: TcpScript): Promise<TcpOutcome> {
  const group = new RuleGroup();
  const records: FlowRecord[] = [];
  const answer = pool.subarray(mostBytes, mostBytes + script.upstream.bytes);
  // At once: the end may be there already.
  let accepted: Player | undefined;
  const to = await harness.server(script.path.upstream, (socket) => {
    accepted = new Player(socket, script.upstream, answer);
  });
  const plan = harness.plan([to], { group, ...(script.announced ? { announce: {} } : {}) });
  const listener = await harness.engine.listen('tcp', at(script.path.listen, 0), {
    ...plan,
    ended: (record) => records.push(record),
    acceptFailed: () => {},
    replies: undefined,
  });
  const socket = connecting(harness, listener.local);
  const client = new Player(socket, script.client, pool.subarray(0, script.client.bytes));
  const begun = script.greeted ? undefined : client.play(() => accepted);
  await until(() => accepted !== undefined, 'the upstream connection');
  const upstream = accepted as unknown as Player;
  if (script.announced) upstream.passOver(headerLength(script.path));
  if (script.greeted) await greet(upstream, client);
  await Promise.all([begun ?? client.play(() => upstream), upstream.play(() => client)]);
  await until(() => records.length > 0, 'the record');
  await listener.close();
  if (records.length > 1) throw new Error(`${records.length} records of one flow`);
  return outcome(script, records[0] as FlowRecord, group, client, upstream);
}

/** What is written at once is there before the relay. */
function connecting(harness: Harness, to: Endpoint): Socket {
  const socket = net.connect({ host: formatHost(to), port: to.port, allowHalfOpen: true, noDelay: true });
  harness.defer(() => socket.destroy());
  return socket;
}

/** One byte through the relay. */
async function greet(upstream: Player, client: Player): Promise<void> {
  client.passOver(1);
  upstream.socket.write('!');
  await once(client.socket, 'readable');
}

/** PROXY v2: the addresses are the client's and the one it dialled. */
const headerLength = ({ listen }: Path) => (listen.includes(':') ? 16 + 36 : 16 + 12);

/** Longer than anybody who goes on takes for the next read. */
const standsStillMs = 100;

class Player {
  readonly socket: Socket;
  readonly sent: Buffer;
  readonly endings: string[] = [];
  readonly part: Part;
  readonly #closed: Promise<unknown>;
  readonly #chunks: Buffer[] = [];
  #received = 0;
  #passedOver = 0;
  #stop = 0;
  #other: () => Player | undefined = () => undefined;
  #written = false;
  /** Since when nothing more of what it writes is taken. */
  #heldUpMs: number | undefined;

  constructor(socket: Socket, part: Part, sent: Buffer) {
    this.socket = socket;
    this.part = part;
    this.sent = sent;
    this.#closed = new Promise((resolve) => socket.on('close', resolve));
    socket.on('end', () => this.#ended(endedCleanly(socket) ? 'end' : 'ECONNRESET'));
    socket.on('error', (error: NodeJS.ErrnoException) => this.#ended(error.code ?? 'error'));
  }

  /** The first bytes that come are no part of the script. */
  passOver(bytes: number): void {
    this.#passedOver += bytes;
  }

  /** What came of the script. */
  get arrived(): Buffer {
    return Buffer.concat(this.#chunks).subarray(this.#passedOver);
  }

  /** Everything has come that the other had to say. */
  heardAllOf(other: Player): boolean {
    const ended = other.part.ending !== 'end' || this.endings.length > 0;
    return ended && this.#received >= this.#passedOver + other.sent.length;
  }

  /** It has written everything, or as much as all buffers on the way take. */
  get standsStill(): boolean {
    const heldUp = this.#heldUpMs !== undefined && performance.now() - this.#heldUpMs > standsStillMs;
    return this.#written || heldUp || this.socket.destroyed;
  }

  /** Until the socket is closed. @param other undefined until it is there */
  async play(other: () => Player | undefined): Promise<void> {
    this.#other = other;
    this.#read();
    if (this.part.answers) await until(() => this.endings.length > 0, 'the end');
    await this.#write();
    this.#written = true;
    if (this.part.ending === 'end') this.socket.end();
    else if (this.part.ending === 'quiet reset') {
      await until(() => this.#isQuietWith(other()), 'quiet');
    }
    if (this.part.ending !== 'end') this.socket.resetAndDestroy();
    await this.#closed;
  }

  #isQuietWith(other: Player | undefined): boolean {
    return other !== undefined && this.heardAllOf(other) && other.heardAllOf(this);
  }

  #read(): void {
    this.socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#received += chunk.length;
      this.#pauseWhereDue();
    });
    this.#pauseWhereDue();
  }

  #pauseWhereDue(): void {
    const stop = this.part.stops[this.#stop];
    if (stop === undefined || this.#received - this.#passedOver < stop.at) return;
    this.#stop++;
    this.socket.pause();
    const over = stop.forMs === 'full' ? this.#full() : sleep(stop.forMs);
    over.then(() => {
      this.socket.resume();
      this.#pauseWhereDue();
    });
  }

  async #full(): Promise<void> {
    while (this.#other()?.standsStill !== true) await sleep(10);
  }

  async #write(): Promise<void> {
    let from = 0;
    for (const { afterMs, bytes } of this.part.pieces) {
      if (afterMs > 0) await sleep(afterMs);
      if (this.socket.destroyed) return;
      const piece = this.sent.subarray(from, from + bytes);
      from += bytes;
      if (bytes === 0 || this.socket.write(piece)) continue;
      this.#heldUpMs = performance.now();
      await Promise.race([new Promise((resolve) => this.socket.once('drain', resolve)), this.#closed]);
      this.#heldUpMs = undefined;
    }
  }

  #ended(how: string): void {
    this.endings.push(how);
    if (how !== 'end') this.socket.destroy();
  }
}

/* Outcomes */

function outcome(
  script: TcpScript,
  record: FlowRecord,
  group: RuleGroup,
  client: Player,
  upstream: Player,
): TcpOutcome {
  const cut = isCut(script);
  const greeting = script.greeted ? 1 : 0;
  const bytes = [
    told(record.bytes[0], upstream.arrived.length, client.sent.length, cut),
    told(record.bytes[1] - greeting, client.arrived.length, upstream.sent.length, cut),
  ];
  const { bytesFromClient, bytesFromUpstream, ...counters } = counted(group);
  const same = (bytesFromClient ?? 0) === record.bytes[0] && (bytesFromUpstream ?? 0) === record.bytes[1];
  return {
    client: heard(client, upstream, cut),
    upstream: heard(upstream, client, cut),
    reason: record.reason,
    bytes: `${bytes.join(' ')}, ${same ? 'as counted' : `counted ${bytesFromClient} ${bytesFromUpstream}`}`,
    counters,
  };
}

/** What the script says of it. */
export function expectedTcp(script: TcpScript): TcpOutcome {
  const { client, upstream } = script;
  const cut = isCut(script);
  const resetter = [client, upstream].findIndex(({ ending }) => ending !== 'end');
  const heardOf = (other: Part, from: number, self: Part): Heard => ({
    arrived: cut ? beginning : fingerprint(pool.subarray(from, from + other.bytes)),
    endings: self.ending === 'end' ? (other.ending === 'end' ? 'end' : 'ECONNRESET') : resets,
  });
  return {
    client: heardOf(upstream, mostBytes, client),
    upstream: heardOf(client, 0, upstream),
    reason: ['client-reset', 'upstream-reset'][resetter] ?? 'done',
    bytes: `${cut ? `${between} ${between}` : `${client.bytes} ${upstream.bytes}`}, as counted`,
    counters: { tcpFlows: 1, ...(resetter < 0 ? {} : { resets: 1 }) },
  };
}

const beginning = 'the beginning';
const between = 'between';
const resets = 'resets';

const isCut = ({ client, upstream }: TcpScript) => client.ending === 'reset' || upstream.ending === 'reset';

function heard(self: Player, other: Player, cut: boolean): Heard {
  const { arrived } = self;
  const isBeginning = arrived.equals(other.sent.subarray(0, arrived.length));
  return {
    arrived: cut && isBeginning ? beginning : fingerprint(arrived),
    endings: self.part.ending === 'end' ? self.endings.join(' ') : resets,
  };
}

function told(bytes: number, arrived: number, sent: number, cut: boolean): string {
  return cut && arrived <= bytes && bytes <= sent ? between : String(bytes);
}

const fingerprint = (bytes: Buffer) =>
  `${bytes.length} bytes, ${createHash('sha256').update(bytes).digest('hex')}`;

/** Those that are not 0. */
export function counted({ counters }: RuleGroup): Counted {
  const pairs = counterNames.map((name) => [name, readCounter(counters, name)] as const);
  return Object.fromEntries(pairs.filter(([, value]) => value !== 0));
}
