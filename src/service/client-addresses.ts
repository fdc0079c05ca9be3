/**
 * What rules need whose upstreams see the client's address, or one that stands for it: the privilege, this host's
 * networks, the table of pseudo addresses and the routes that keep their packets here. Networks and routes come and
 * go; they are looked at again every ten seconds while a rule depends on them, and the rules are compiled anew when
 * they are others.
 */
import type { PseudoConfig } from '../config/load.ts';
import type { Rule } from '../config/rules.ts';
import type { Engine, Plan } from '../engine/engine.ts';
import { DualportError } from '../errors.ts';
import type { FlowRecord, LateUpstreams, PlainReason } from '../flow/flow.ts';
import type { Log } from '../log.ts';
import { type Endpoint, type Family, familyOf, formatHost } from '../net/address.ts';
import { compileApproach } from '../policy/approach.ts';
import { compileDecide } from '../policy/decide.ts';
import type { HostNetworks, Surroundings } from '../policy/surroundings.ts';
import { Pseudonyms } from '../pseudo/pseudonyms.ts';
import { readHostNetworks } from './host.ts';
import { nowhere } from './plan.ts';
import { keepsPseudo, pseudoRouteCommand } from './pseudo-routes.ts';

const refreshMs = 10_000;
/** Of a host with very many routes, looking through them takes this part of the time at most. */
const leastPause = 100;

type Showing = Pick<Plan, 'decide' | 'approach'>;
type AnyEngine = Pick<Engine, 'name' | 'transparentObstacle'>;

export class ClientAddresses {
  readonly #engine: AnyEngine;
  readonly #settings: PseudoConfig;
  readonly #log: Log;
  readonly #changed: () => void;
  #around: Surroundings = nowhere;
  #pseudonyms: Pseudonyms | undefined;
  /** Rule and family of upstreams whose clients were said to have no route for their pseudo addresses. */
  readonly #routeless = new Set<string>();
  /** Rule and reason of clients that were said to go without their address. */
  readonly #plain = new Set<string>();
  /** Rules that were said to get no answers. */
  readonly #silent = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  /** @param changed called when plans have to be made again */
  constructor(engine: AnyEngine, settings: PseudoConfig, log: Log, changed: () => void) {
    this.#engine = engine;
    this.#settings = settings;
    this.#log = log;
    this.#changed = changed;
  }

  /** Undefined until a rule has needed it. */
  get pseudonyms(): Pseudonyms | undefined {
    return this.#pseudonyms;
  }

  /**
   * Gets what these rules need.
   *
   * @throws DualportError ENGINE or PRIVILEGE, when one of them cannot run here
   */
  async follow(rules: readonly Rule[]): Promise<void> {
    const transparent = rules.find(({ source }) => source === 'transparent');
    if (transparent !== undefined) refuseTransparent(transparent, this.#engine);
    if (!rules.some(showsClients)) return;
    if (this.#pseudonyms === undefined && rules.some(mayUsePseudo)) {
      this.#pseudonyms = await Pseudonyms.open(this.#settings, (text) => this.#log.warn(text));
    }
    this.#around = await this.#look();
    this.#schedule(0);
  }

  /** Forgets what only other rules need. */
  retain(rules: readonly Rule[]): void {
    const names = new Set(rules.map(({ name }) => name));
    for (const said of [this.#routeless, this.#plain, this.#silent]) {
      for (const key of said) if (!names.has(ruleOfKey(key))) said.delete(key);
    }
    if (rules.some(showsClients)) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** What is decided of a rule's flows. */
  compile(rule: Rule, upstreams: readonly Endpoint[], late?: LateUpstreams): Showing {
    if (!showsClients(rule)) {
      return { decide: compileDecide(rule, upstreams, undefined, late), approach: undefined };
    }
    for (const family of mayUsePseudo(rule) ? familiesOf(upstreams) : []) this.#sayRoute(rule, family);
    return {
      decide: compileDecide(rule, upstreams, this.#around, late),
      approach: compileApproach(rule, upstreams, this.#around),
    };
  }

  /**
   * What this rule's flows are decided by, where that is all there is to it. Undefined for a rule that may use pseudo
   * addresses: who has which is known to this thread alone.
   */
  aroundFor(rule: Rule): HostNetworks | undefined {
    if (mayUsePseudo(rule)) return undefined;
    const { own, networks } = showsClients(rule) ? this.#around : nowhere;
    return { own, networks };
  }

  /** Of a flow that has ended. */
  hear(record: FlowRecord): void {
    if (record.plain !== undefined) this.#sayPlain(record);
    if (record.reason === 'connect-timeout' && record.source !== undefined) this.#saySilent(record);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#pseudonyms?.close();
  }

  async #look(): Promise<Surroundings> {
    const { name } = this.#engine;
    const pseudo = this.#pseudonyms === undefined ? nowhere.pseudo : await keepsPseudo(this.#settings, name);
    return { ...readHostNetworks(), pseudo, pseudonyms: this.#pseudonyms ?? nowhere.pseudonyms };
  }

  #schedule(tookMs: number): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    this.#timer = setTimeout(() => void this.refresh(), Math.max(refreshMs, leastPause * tookMs));
    this.#timer.unref();
  }

  /** Looks whether networks or routes are others; by itself that is done every ten seconds. */
  async refresh(): Promise<void> {
    const startedMs = performance.now();
    const before = this.#around;
    const now = await this.#look();
    if (this.#closed || this.#timer === undefined) return;
    // A reload may have looked meanwhile.
    if (this.#around === before && !isSame(before, now)) {
      this.#around = now;
      this.#changed();
    }
    this.#schedule(performance.now() - startedMs);
  }

  /** Of each kind of client once. */
  #sayPlain({ rule, flow, upstream, plain }: FlowRecord): void {
    if (plain === undefined || upstream === undefined || !isNew(this.#plain, keyOf(rule, plain))) return;
    this.#log.info(
      { rule, reason: plain, client: formatHost(flow.client), upstream: formatHost(upstream) },
      `the upstream saw dualport and not this client, and so with all like it: ${plainTexts[plain]}`,
    );
  }

  /** Of each rule once: nothing else tells a program that does not run from answers that go elsewhere. */
  #saySilent({ rule, source }: FlowRecord): void {
    if (source === undefined || !isNew(this.#silent, keyOf(rule, 'silent'))) return;
    this.#log.warn(
      { rule, source: formatHost(source), command: 'dualport transparent check' },
      'no answer has come to a connection from another address than this host’s own; the command says why, with the ' +
        'options of this dualport',
    );
  }

  #sayRoute(rule: Rule, upstream: Family): void {
    const key = keyOf(rule.name, upstream);
    const command = pseudoRouteCommand(upstream, this.#settings, this.#engine.name);
    if (this.#around.pseudo[upstream]) {
      if (this.#routeless.delete(key)) {
        this.#log.info({ rule: rule.name }, `packets to pseudo addresses of IPv${upstream} come here now`);
      }
    } else if (isNew(this.#routeless, key)) {
      this.#log.warn({ rule: rule.name, command }, `${routelessText(rule, upstream)}; see the command`);
    }
  }
}

const plainTexts: Readonly<Record<PlainReason, string>> = {
  'same-subnet': 'it is in the same subnet as the upstream, which would answer it directly',
  'upstream-itself': 'it is the upstream itself',
  'link-local': 'its address is link-local, and means nothing to the upstream',
  'own-address': 'it is on this host',
};

export function showsClients({ source }: Rule): boolean {
  return source === 'transparent' || source === 'pseudo';
}

function mayUsePseudo({ source, mismatch }: Rule): boolean {
  return source === 'pseudo' || (source === 'transparent' && (mismatch === 'pseudo' || mismatch === 'auto'));
}

function routelessText({ source, mismatch }: Rule, upstream: Family): string {
  const missing = `packets to pseudo addresses of IPv${upstream} do not come here`;
  const clients = source === 'pseudo' ? 'clients' : `IPv${upstream === 4 ? 6 : 4} clients`;
  return mismatch === 'auto' && source === 'transparent'
    ? `${missing}, so ${clients} are not sent to IPv${upstream} upstreams`
    : `${missing}, so ${clients} cannot reach IPv${upstream} upstreams`;
}

function refuseTransparent(rule: Rule, engine: AnyEngine): void {
  const obstacle = engine.transparentObstacle();
  if (obstacle === undefined) return;
  const { code, needs } = obstacles[obstacle];
  throw new DualportError(
    code,
    `${rule.name}: source transparent needs ${needs}, or use source pseudo, which needs neither`,
  );
}

const obstacles = {
  engine: { code: 'ENGINE', needs: 'the linux engine, and this is the portable one; use engine linux' },
  privilege: {
    code: 'PRIVILEGE',
    needs:
      'the capability CAP_NET_RAW or CAP_NET_ADMIN; grant one of them (systemd: AmbientCapabilities=CAP_NET_RAW, ' +
      'docker run --cap-add NET_RAW with a user that is root)',
  },
} as const;

function familiesOf(upstreams: readonly Endpoint[]): readonly Family[] {
  return [...new Set(upstreams.map(({ address }) => familyOf(address)))];
}

function isSame(a: Surroundings, b: Surroundings): boolean {
  const text = ({ own, networks, pseudo }: Surroundings) => JSON.stringify([own, networks, pseudo]);
  return text(a) === text(b);
}

function keyOf(rule: string, what: string | number): string {
  return `${what} ${rule}`;
}

function ruleOfKey(key: string): string {
  return key.slice(key.indexOf(' ') + 1);
}

function isNew(said: Set<string>, key: string): boolean {
  if (said.has(key)) return false;
  said.add(key);
  return true;
}
