/**
 * Random UDP scripts, and what an engine makes of them: several flows of one listener, rounds of datagrams both
 * ways, and now and then an upstream that is gone for a while. A round is over when all of it has arrived, and fits
 * into every buffer on its way, so no datagram may be lost and the outcome has nothing of timing in it.
 */
import { createHash, randomBytes } from 'node:crypto';
import type { RemoteInfo } from 'node:dgram';
import { RuleGroup } from '../../src/engine/admission.ts';
import { readCounter } from '../../src/flow/counters.ts';
import type { FlowRecord } from '../../src/flow/flow.ts';
import { type Dice, pick } from '../unit/proxy-protocol/random.ts';
import { at, type Harness, type Path, paths, type UdpPeer, until } from './harness.ts';
import { type Counted, counted } from './parity-tcp.ts';

const largest = 65_507;
const sizes = [0, 1, 1200, 1472, 9000, largest] as const;
/** A datagram in a socket's buffer, as the kernel counts it, at most; the default of a buffer is 208 KiB. */
const cost = (size: number) => 2 * size + 1024;
const roomInBuffers = 150 * 1024;

/** By flow, the sizes of its datagrams. */
type Burst = readonly (readonly number[])[];

interface Exchange {
  readonly kind: 'exchange';
  readonly up: Burst;
  readonly down: Burst;
  /** Both ways at once, else first up and then down. */
  readonly crossing: boolean;
}

/** The upstream's port is closed, and each flow learns it by one datagram. */
interface Absence {
  readonly kind: 'absence';
  readonly size: number;
}

type Round = Exchange | Absence;

export interface UdpScript {
  readonly path: Path;
  readonly announced: 'none' | 'every' | 'first';
  /** The size of each flow's first datagram. */
  readonly openings: readonly number[];
  readonly rounds: readonly Round[];
}

interface FlowOutcome {
  /** Length, hash, and whether a header was in front. */
  readonly up: readonly string[];
  readonly down: readonly string[];
  readonly reason: string;
  readonly bytes: readonly number[];
  readonly answered: boolean;
}

export interface UdpOutcome {
  readonly flows: readonly FlowOutcome[];
  readonly counters: Counted;
}

/* Scripts */

export function udpScript(roll: Dice): UdpScript {
  const openings = Array.from({ length: pick(roll, [1, 2, 5]) }, () => pick(roll, [0, 1, 1200, 9000]));
  const rounds: Round[] = Array.from({ length: 2 + roll(4) }, () => exchange(roll, openings.length));
  const absence: Absence = { kind: 'absence', size: pick(roll, [0, 1, 1472]) };
  return {
    path: pick(roll, paths as [Path, ...Path[]]),
    announced: pick(roll, ['none', 'none', 'every', 'first']),
    openings,
    rounds: roll(3) === 0 ? rounds.toSpliced(roll(rounds.length), 0, absence) : rounds,
  };
}

const exchange = (roll: Dice, flows: number): Exchange => ({
  kind: 'exchange',
  up: burst(roll, flows),
  down: burst(roll, flows),
  crossing: roll(2) === 0,
});

function burst(roll: Dice, flows: number): Burst {
  let room = roomInBuffers;
  return Array.from({ length: flows }, () => {
    const only = roll(2) === 0 ? pick(roll, sizes) : undefined;
    const wanted = Array.from(
      { length: pick(roll, [0, 1, 3, 20, 70]) },
      () => only ?? pick(roll, [0, 1, 1200, 1200, 1472, 9000]),
    );
    return wanted.filter((size) => {
      const fits = cost(size) <= room;
      if (fits) room -= cost(size);
      return fits;
    });
  });
}

/* Playing */

interface PlayedFlow {
  readonly client: UdpPeer;
  /** Where the upstream sees it come from. */
  from: RemoteInfo | undefined;
  readonly up: string[];
  readonly sent: { up: number; down: number };
}

const pool = randomBytes(4 * largest);

/** The nth datagram that one side of a flow sends. */
function datagram(flow: number, nth: number, up: boolean, size: number): Buffer {
  const start = (flow * 7919 + nth * 104_729 + (up ? 0 : 50_021)) % (pool.length - largest);
  return pool.subarray(start, start + size);
}

export async function playUdp(harness: Harness, script: UdpScript): Promise<UdpOutcome> {
  const play = new Play(harness, script);
  await play.begin();
  for (const round of script.rounds) await play.round(round);
  return play.end();
}

class Play {
  readonly #harness: Harness;
  readonly #script: UdpScript;
  readonly #group = new RuleGroup();
  readonly #records: FlowRecord[] = [];
  readonly #flows: PlayedFlow[] = [];
  #upstream!: UdpPeer;
  #close!: () => Promise<void>;

  constructor(harness: Harness, script: UdpScript) {
    this.#harness = harness;
    this.#script = script;
  }

  /** One flow after the other, so that the upstream knows which is which. */
  async begin(): Promise<void> {
    const { path, announced, openings } = this.#script;
    await this.#openUpstream(0);
    const announce = announced === 'none' ? {} : { announce: { datagrams: announced } };
    const plan = this.#harness.plan([this.#upstream.local], { group: this.#group, ...announce });
    const listener = await this.#harness.engine.listen('udp', at(path.listen, 0), {
      ...plan,
      ended: (record) => this.#records.push(record),
      acceptFailed: () => {},
      replies: undefined,
    });
    this.#close = () => listener.close();
    for (const size of openings) {
      const client = await this.#harness.udp(path.listen, listener.local);
      const flow = { client, from: undefined, up: [], sent: { up: 0, down: 0 } };
      this.#flows.push(flow);
      this.#sendUp(flow, size);
      await until(() => flow.up.length === 1, `the first datagram of flow ${this.#flows.length}`);
    }
  }

  async round(round: Round): Promise<void> {
    if (round.kind === 'absence') return this.#absence(round);
    const { up, down, crossing } = round;
    this.#each(up, this.#sendUp);
    if (!crossing) await this.#allUp();
    this.#each(down, this.#sendDown);
    await this.#allUp();
    await this.#allDown();
  }

  async end(): Promise<UdpOutcome> {
    await this.#close();
    await until(() => this.#records.length === this.#flows.length, 'the records');
    const flows = this.#flows.map((flow): FlowOutcome => {
      const record = this.#records.find(({ flow: { peer } }) => peer.port === flow.client.local.port);
      return {
        up: flow.up,
        down: flow.client.received.map((data) => described(data)),
        reason: record?.reason ?? 'none',
        bytes: record?.bytes ?? [],
        answered: record?.upstream !== undefined,
      };
    });
    for (const { client } of this.#flows) client.close();
    this.#upstream.close();
    return { flows, counters: counted(this.#group) };
  }

  async #openUpstream(port: number): Promise<void> {
    this.#upstream = await this.#harness.udp(this.#script.path.upstream, undefined, port);
    this.#upstream.socket.on('message', (data, from) => this.#hear(data, from));
  }

  #hear(data: Buffer, from: RemoteInfo): void {
    const known = this.#flows.find((flow) => flow.from?.port === from.port);
    const flow = known ?? this.#flows.find((flow) => flow.from === undefined);
    if (flow === undefined) throw new Error(`a flow too many, from port ${from.port}`);
    flow.from = from;
    flow.up.push(described(data));
  }

  readonly #sendUp = (flow: PlayedFlow, size: number): void => {
    flow.client.send(datagram(this.#flows.indexOf(flow), flow.sent.up++, true, size));
  };

  readonly #sendDown = (flow: PlayedFlow, size: number): void => {
    const data = datagram(this.#flows.indexOf(flow), flow.sent.down++, false, size);
    if (flow.from !== undefined) this.#upstream.socket.send(data, flow.from.port, flow.from.address);
  };

  /** One of each flow in turn. */
  #each(burst: Burst, send: (flow: PlayedFlow, size: number) => void): void {
    const most = Math.max(...burst.map(({ length }) => length));
    for (let i = 0; i < most; i++) {
      for (const [n, flow] of this.#flows.entries()) {
        const size = burst[n]?.[i];
        if (size !== undefined) send(flow, size);
      }
    }
  }

  async #allUp(): Promise<void> {
    const sum = (of: (flow: PlayedFlow) => number) => this.#flows.reduce((all, flow) => all + of(flow), 0);
    const dropped = () => this.#count('droppedOversize') + this.#count('icmpRefusals');
    const arrived = () => sum(({ up }) => up.length) + dropped();
    const sent = sum(({ sent: { up } }) => up);
    await until(() => arrived() >= sent, `${sent} datagrams, ${this.#state()}`);
  }

  async #allDown(): Promise<void> {
    const done = () => this.#flows.every(({ client, sent }) => client.received.length >= sent.down);
    await until(done, `all answers, ${this.#state()}`);
  }

  async #absence({ size }: Absence): Promise<void> {
    const { port } = this.#upstream.local;
    this.#upstream.close();
    for (const flow of this.#flows) {
      const before = this.#count('icmpRefusals');
      this.#sendUp(flow, size);
      await until(() => this.#count('icmpRefusals') > before, 'the refusal');
    }
    await this.#openUpstream(port);
  }

  #count(name: 'droppedOversize' | 'icmpRefusals'): number {
    return readCounter(this.#group.counters, name);
  }

  #state(): string {
    const flows = this.#flows.map(({ client, sent, up }) => [
      sent.up,
      up.length,
      sent.down,
      client.received.length,
    ]);
    return JSON.stringify([flows, counted(this.#group)]);
  }
}

/* Outcomes */

const signature = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');

function described(data: Buffer): string {
  const announced = data.subarray(0, signature.length).equals(signature);
  const payload = announced ? data.subarray(16 + data.readUInt16BE(14)) : data;
  return fingerprint(payload, announced);
}

function fingerprint(payload: Buffer, announced: boolean): string {
  const hash = createHash('sha256').update(payload).digest('hex').slice(0, 16);
  return `${announced ? 'header + ' : ''}${payload.length} ${hash}`;
}

/** What the script says of it. */
export function expectedUdp(script: UdpScript): UdpOutcome {
  const flows = script.openings.map((_, n) => new Expected(script, n));
  const all: Counted = { udpFlows: flows.length };
  for (const { counters } of flows) {
    for (const name of Object.keys(counters) as (keyof typeof counters)[]) {
      if (counters[name] > 0) all[name] = (all[name] ?? 0) + counters[name];
    }
  }
  return { flows: flows.map(({ outcome }) => outcome), counters: all };
}

/** One flow as it must go. */
class Expected {
  readonly counters = {
    bytesFromClient: 0,
    bytesFromUpstream: 0,
    datagramsFromClient: 0,
    datagramsFromUpstream: 0,
    droppedOversize: 0,
    icmpRefusals: 0,
    connectRefused: 0,
  };
  readonly #script: UdpScript;
  readonly #number: number;
  readonly #up: string[] = [];
  readonly #down: string[] = [];
  #headerDue: boolean;
  #answered = false;

  constructor(script: UdpScript, number: number) {
    this.#script = script;
    this.#number = number;
    this.#headerDue = script.announced !== 'none';
    this.#send(script.openings[number] ?? 0);
    for (const round of script.rounds) {
      if (round.kind === 'absence') this.#meetNobody(round.size);
      else this.#exchange(round);
    }
  }

  get outcome(): FlowOutcome {
    const { bytesFromClient, bytesFromUpstream } = this.counters;
    return {
      up: this.#up,
      down: this.#down,
      reason: 'rule-changed',
      bytes: [bytesFromClient, bytesFromUpstream],
      answered: this.#down.length > 0,
    };
  }

  #exchange({ up, down }: Exchange): void {
    for (const size of up[this.#number] ?? []) this.#send(size);
    for (const size of down[this.#number] ?? []) {
      const data = datagram(this.#number, this.counters.datagramsFromUpstream++, false, size);
      this.counters.bytesFromUpstream += size;
      this.#down.push(fingerprint(data, false));
      this.#answered = true;
    }
  }

  #send(size: number): void {
    const data = this.#counted(size);
    if (this.#headerDue && size === largest) {
      this.counters.droppedOversize++;
      return;
    }
    this.#up.push(fingerprint(data, this.#headerDue));
    if (this.#script.announced === 'first') this.#headerDue = false;
  }

  /** Whoever comes to this port next has not read the header. */
  #meetNobody(size: number): void {
    this.#counted(size);
    this.counters.icmpRefusals++;
    if (!this.#answered) this.counters.connectRefused++;
    this.#answered = false;
    this.#headerDue = this.#script.announced !== 'none';
  }

  #counted(size: number): Buffer {
    this.counters.bytesFromClient += size;
    return datagram(this.#number, this.counters.datagramsFromClient++, true, size);
  }
}
