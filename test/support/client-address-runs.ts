/**
 * What docs/client-address.md says in its table, found out: the same questions for each way a program can learn of its
 * clients, answered by running dualport in namespaces. A cell of the table is the answer, word for word.
 */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { SourceMode } from '../../src/config/rules.ts';
import type { Protocol } from '../../src/flow/flow.ts';
import { formatAddress } from '../../src/net/address.ts';
import { decode } from '../../src/proxy-protocol/codec.ts';
import type { Dualport, Stage } from './dualport.ts';
import { addresses, ip, openWorld, type World } from './namespace.ts';
import type { ProgramArguments, Seen } from './namespace-programs.ts';
import { client as clientProgram, serve } from './namespace-traffic.ts';
import { routeThroughHost } from './source-rules.ts';
import {
  containerAddress,
  type Family,
  hostAddress,
  openSourceWorld,
  startDualport,
  stopDualport,
  wildcard,
} from './source-world.ts';

/** By the first words of the rows. */
export type Answers = ReadonlyMap<string, string>;

const { gateway } = addresses;
const neighbour = '198.18.2.3';
const families = [4, 6] as const;

/** Where the program of each family is published. */
const tcpPort = { 4: 8004, 6: 8006 } as const;
const udpPort = { 4: 5304, 6: 5306 } as const;

/** All that is asked of one source. */
export async function answersFor(stage: Stage, source: SourceMode): Promise<Answers> {
  const world = openSourceWorld(stage);
  await startPrograms(stage, world);
  const run = new Run(stage, world, source);
  return new Map([
    ...(await run.seen()),
    ['the port of the client', await run.port()],
    ['privilege of dualport', await run.privilege()],
    ['engine', await run.engine()],
    ...(await run.withoutRoute()),
    ...(await withoutSetUp(stage, source)),
  ]);
}

/** How long a client waits for what does not come. */
const soon = ['--connect-timeout', '1s'];

const outcomes: Readonly<Record<string, string>> = {
  done: 'served',
  'connect-timeout': 'a reset after `--connect-timeout`',
  'source-unavailable': 'a reset at once',
};

/** On both families and protocols; they say what they were told first. */
async function startPrograms(stage: Stage, world: World): Promise<void> {
  for (const host of Object.values(wildcard)) {
    await serve(stage, world.container, 'whoSaysWhat', { host, port: 80 });
    await serve(stage, world.container, 'udpWhoSaysWhat', { host, port: 53 });
  }
}

/** On a host where nobody has set up anything. */
async function withoutSetUp(stage: Stage, source: SourceMode): Promise<Answers> {
  const world = openWorld(stage);
  routeThroughHost(world);
  await serve(stage, world.container, 'whoSaysWhat', { host: wildcard[4], port: 80 });
  const run = new Run(stage, world, source);
  const dualport = await run.start(soon);
  const outcome = await run.outcome(dualport);
  // Of source transparent these are for the clients of one family only.
  const isPseudo = outcome === outcomes['source-unavailable'];
  const commands = dualport.complaints.flatMap(({ command }) =>
    isPseudo && typeof command === 'string' ? `\`${command}\`` : [],
  );
  const handMade = isPseudo ? [[...new Set(commands)].join(' and ')] : ['`dualport transparent up`'];
  await stopDualport(dualport);
  const served = outcomes['done'] ?? '';
  const setUp = outcome === served ? 'nothing' : ['`--transparent-setup`', ...handMade].join(', or ');
  if (outcome !== served) {
    const again = await run.start(['--transparent-setup']);
    if ((await run.outcome(again)) !== served) throw new Error('--transparent-setup is not enough');
    await stopDualport(again);
  }
  return new Map([
    ['before the host is set up', outcome],
    ['set up on the host', setUp],
  ]);
}

/** The client's address and port in the PROXY header that the program was sent. */
function headerOf(
  { told }: Pick<Seen, 'told'>,
  protocol: Protocol,
): { address: string; port: number; length: number } | undefined {
  const decoded = decode(Buffer.from(told, 'hex'), protocol);
  if (decoded.state !== 'done' || decoded.header.source === undefined) return undefined;
  const { address, port } = decoded.header.source;
  return { address: formatAddress(address), port, length: decoded.length };
}

/** With a key of its own each host has other pseudo addresses; these are to be the same in every run. */
export function makeState(directory: string): void {
  mkdirSync(directory);
  writeFileSync(join(directory, 'pseudo.key'), `${'5a'.repeat(32)}\n`, { mode: 0o600 });
}

class Run {
  readonly #stage: Stage;
  readonly #world: World;
  readonly #source: SourceMode;
  readonly #state: string;
  #nextPort = 40_001;

  constructor(stage: Stage, world: World, source: SourceMode) {
    this.#stage = stage;
    this.#world = world;
    this.#source = source;
    this.#state = join(stage.directory(), 'state');
    makeState(this.#state);
  }

  /** Whom the program has for its peer, and what it is told beside that. */
  async seen(): Promise<Answers> {
    ip(this.#world.container, [`address add ${neighbour}/24 dev eth0`]);
    const dualport = await this.start();
    const answers = new Map<string, string>();
    const overUdp = new Set<string>();
    const headers = new Set<number>();
    for (const to of families) {
      for (const from of families) {
        const seen = await this.ask('tcp', from, to);
        const tcp = this.told(seen, 'tcp');
        const header = headerOf(seen, 'tcp');
        if (header !== undefined) headers.add(header.length);
        answers.set(`an IPv${from} client, program on IPv${to}`, tcp);
        const udp = this.told(await this.ask('udp', from, to), 'udp');
        overUdp.add(udp === tcp ? 'the same' : udp);
      }
    }
    answers.set('of the program', headers.size === 0 ? 'nothing' : 'that it reads the header');
    answers.set('bytes before the first one', headers.size === 0 ? 'none' : [...headers].join(' or '));
    answers.set('over UDP', [...overUdp].join(', '));
    const beside = { host: gateway.v4, port: tcpPort[4], from: neighbour };
    const neighbourSeen = await clientProgram<Seen>(this.#stage, this.#world.container, 'whoAmI', beside);
    answers.set('a neighbour of the program', this.told(neighbourSeen, 'tcp'));
    await stopDualport(dualport);
    return answers;
  }

  /** Is the port of the peer the client's? */
  async port(): Promise<string> {
    const dualport = await this.start(['--source-port', 'keep']);
    const seen = await this.ask('tcp', 4, 4);
    await stopDualport(dualport);
    if (seen.port === seen.clientPort) return '`--source-port keep`';
    return headerOf(seen, 'tcp')?.port === seen.clientPort ? 'in the header' : 'not at all';
  }

  async privilege(): Promise<string> {
    const all = ['--reuid', '65534', '--regid', '65534', '--clear-groups', '--bounding-set', '-all'];
    const refusal = await this.#refusal([], ['setpriv', ...all, '--inh-caps', '-all']);
    if (refusal === undefined) return 'none';
    return /needs the capability (CAP_\w+ or CAP_\w+);/.exec(refusal)?.[1] ?? refusal;
  }

  async engine(): Promise<string> {
    const refusal = await this.#refusal(['--engine', 'portable'], []);
    if (refusal === undefined) return 'any';
    return /use engine (\w+),/.exec(refusal)?.[1] ?? refusal;
  }

  /** Why it does not start. */
  async #refusal(more: readonly string[], prefix: readonly string[]): Promise<string | undefined> {
    try {
      const dualport = await this.start(more, prefix);
      await stopDualport(dualport);
      return undefined;
    } catch (error) {
      return String(error);
    }
  }

  /** A program that answers clients elsewhere, or nowhere. */
  async withoutRoute(): Promise<Answers> {
    const dualport = await this.start(soon);
    const defaults = [`default via ${gateway.v4}`];
    const change = (what: 'add' | 'del', routes: readonly string[]) =>
      ip(
        this.#world.container,
        routes.map((route) => `route ${what} ${route}`),
      );
    change('del', defaults);
    const without = await this.outcome(dualport);
    const pseudo = [`240.0.0.0/4 via ${gateway.v4}`];
    change('add', pseudo);
    const withPseudo = await this.outcome(dualport);
    change('del', pseudo);
    change('add', defaults);
    await stopDualport(dualport);
    return new Map([
      ['a program whose answers go elsewhere', without],
      ['… but for those to 240.0.0.0/4', withPseudo],
    ]);
  }

  async outcome(dualport: Dualport): Promise<string> {
    // Of a connection that was reset at once the client cannot tell its own port any more.
    const fromPort = this.#nextPort++;
    await this.ask('tcp', 4, 4, { fromPort });
    const line = await dualport.flow((flow) => flow['client.port'] === fromPort);
    return outcomes[String(line['dualport.close_reason'])] ?? JSON.stringify(line);
  }

  start(more: readonly string[] = [], prefix: readonly string[] = []): Promise<Dualport> {
    return startDualport(this.#stage, this.#world, [...this.#arguments(), ...more], prefix);
  }

  ask(protocol: Protocol, from: Family, to: Family, change: Partial<ProgramArguments> = {}): Promise<Seen> {
    const asked = { host: hostAddress[from], ...change };
    return protocol === 'tcp'
      ? clientProgram(this.#stage, this.#world.client, 'whoAmI', { port: tcpPort[to], ...asked })
      : clientProgram(this.#stage, this.#world.client, 'udpWhoAmI', { port: udpPort[to], ...asked });
  }

  told(seen: Seen, protocol: Protocol): string {
    const header = headerOf(seen, protocol);
    return header === undefined ? `\`${seen.peer}\`` : `\`${seen.peer}\`, header: \`${header.address}\``;
  }

  #arguments(): readonly string[] {
    const file = join(this.#stage.directory(), 'dualport.yaml');
    const entries = families.map(
      (to) =>
        `  - { ports: ["${tcpPort[to]}:80", "${udpPort[to]}:53/udp"], to: "${containerAddress[to]}", source: ${this.#source} }\n`,
    );
    chmodSync(dirname(file), 0o755);
    writeFileSync(file, `publish:\n${entries.join('')}`);
    return ['-c', file, '--state-dir', this.#state];
  }
}
