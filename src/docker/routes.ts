/**
 * From what the engine lists to rules: whom a container's port leads to, and why, or why it is not published.
 * Pure: the same list gives the same answer, in the daemon and in `dualport check --docker`.
 *
 * A port leads to the container's own addresses and nowhere else. A container that has no network of its own
 * but another's has that one's; one on the host's network has none, for what is there is the host.
 */
import { ListenerIndex } from '../config/listener-index.ts';
import type { Config } from '../config/load.ts';
import { formatBindHost, formatPortSpec, type PublishedPort } from '../config/port-spec.ts';
import { admitRules, type Rule, type RuleInput } from '../config/rules.ts';
import { DualportError } from '../errors.ts';
import { type Address, equalAddress, formatAddress } from '../net/address.ts';
import { intersectCidrs } from '../net/cidr.ts';
import { withinBounds } from './bounds.ts';
import type { Attachment, Container } from './container.ts';
import { refusedSource } from './label-source.ts';
import { type Exposure, readLabels, sourceOf, type WantedPort } from './labels.ts';
import { mirroredPorts } from './mirror.ts';
import { chooseNetwork, compileReach, type Network, type Reaches } from './network.ts';

/** What the engine has listed. */
export interface Snapshot {
  readonly containers: readonly Container[];
  readonly networks: readonly Network[];
  /** Of which too much was said to read it. */
  readonly unread: readonly Container[];
}

/** What has to be known beside it. */
export interface Facts {
  readonly config: Pick<Config, 'rules' | 'ruleDefaults' | 'labels' | 'admin' | 'transparentNetworks'>;
  /** The addresses of the network namespace dualport runs in. */
  readonly own: readonly Address[];
  /** Most rules there may be of containers in all. */
  readonly mostRules: number;
  /** The container that has this rule now, if one has: it keeps it. */
  readonly holder: (rule: string) => string | undefined;
}

/** A rule and the container it leads to. */
export interface Route {
  readonly rule: Rule;
  readonly container: Container;
  /** Containers whose end is the end of the addresses. */
  readonly owners: readonly string[];
  /** The id of the network the addresses are on. */
  readonly network: string;
  readonly why: string;
  /** What Docker itself publishes on the same port, if it does. */
  readonly rival: string | undefined;
}

export interface Refusal {
  readonly container: Container;
  /** The port it is about; undefined: all of the container. */
  readonly port: string | undefined;
  readonly reason: string;
}

export interface Routes {
  readonly routes: readonly Route[];
  /** Somebody asked for what he does not get. */
  readonly refusals: readonly Refusal[];
  /** Published, but perhaps not as it was meant. */
  readonly warnings: readonly Refusal[];
  /** Not asked for, and not published; for who wonders why. */
  readonly left: readonly Refusal[];
}

/** A rule that is still to be admitted, with all that is said of it later. */
interface Candidate extends RuleInput {
  readonly container: Container;
  readonly owners: readonly string[];
  readonly network: string;
  readonly why: string;
}

export function planRoutes(snapshot: Snapshot, facts: Facts): Routes {
  const planner = new Planner(snapshot, facts);
  for (const container of snapshot.unread) planner.refuse(container, undefined, unreadable);
  for (const container of byAge(snapshot.containers)) if (container.running) planner.add(container);
  return planner.finish();
}

/** Who was there first has the better right to a port; ids part those of the same second. */
function byAge(containers: readonly Container[]): readonly Container[] {
  return [...containers].sort((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1));
}

const unreadable = 'what the engine lists of it is longer than 1 MiB; shorten its labels';

class Planner {
  readonly #facts: Facts;
  readonly #containers: readonly Container[];
  readonly #networks: ReadonlyMap<string, Network>;
  readonly #reaches: Reaches;
  readonly #candidates: Candidate[] = [];
  readonly #refusals: Refusal[] = [];
  readonly #warnings: Refusal[] = [];
  readonly #left: Refusal[] = [];

  constructor({ containers, networks }: Snapshot, facts: Facts) {
    this.#facts = facts;
    this.#containers = containers;
    this.#networks = new Map(networks.map((network) => [network.id, network]));
    this.#reaches = compileReach(facts.own, containers);
  }

  refuse(container: Container, port: PublishedPort | undefined, reason: string): void {
    this.#refusals.push({ container, port: port && formatPortSpec(port), reason });
  }

  add(container: Container): void {
    const { labels: policy } = this.#facts.config;
    const exposure = readLabels(container.labels, policy.maxPorts);
    for (const reason of exposure.complaints) this.refuse(container, undefined, reason);
    const isWrong = exposure.complaints.length > 0 && exposure.ports.length === 0;
    // Labels that are wrong may have been meant to hold for mirrored ports as well.
    const mirrored = policy.mirror && !isWrong ? mirroredPorts(container, exposure.ports) : noMirrored;
    for (const reason of mirrored.left) this.#left.push({ container, port: undefined, reason });
    const asked = exposure.ports.flatMap((wanted) => this.#bounded(container, wanted));
    const wanted = [...asked, ...mirrored.ports];
    if (wanted.length > 0) this.#lead(container, exposure, wanted);
    else if (container.labels.size > 0 && exposure.complaints.length === 0 && exposure.ports.length === 0) {
      const reason = 'its labels name no port; add io.dualport.ports, such as io.dualport.ports=8080:80';
      this.#warnings.push({ container, port: undefined, reason });
    }
  }

  finish(): Routes {
    const holds = ({ port, container }: Candidate) =>
      this.#facts.holder(formatPortSpec(port)) === container.id ? 0 : 1;
    const ordered = [...this.#candidates].sort((a, b) => holds(a) - holds(b));
    const routes = this.#admit(ordered.slice(0, this.#facts.mostRules));
    for (const { container, port } of ordered.slice(this.#facts.mostRules)) {
      const reason = `containers have ${this.#facts.mostRules} ports already; allowed: no more in all`;
      this.refuse(container, port, reason);
    }
    return { routes, refusals: this.#refusals, warnings: this.#warnings, left: this.#left };
  }

  #bounded(container: Container, wanted: WantedPort): readonly WantedPort[] {
    const { labels, admin } = this.#facts.config;
    const ports = withinBounds(wanted.port, labels, admin);
    if (typeof ports !== 'string') return ports.map((port) => ({ ...wanted, port }));
    const reason = `${wanted.askedBy.text}: ${ports}`;
    this.refuse(container, wanted.port, reason);
    return [];
  }

  #lead(container: Container, exposure: Exposure, wanted: readonly WantedPort[]): void {
    const end = this.#end(container, exposure.network);
    if ('refusal' in end) {
      this.refuse(container, undefined, end.refusal);
      return;
    }
    const { attachment, owners } = end;
    if (end.warning !== undefined) this.#warnings.push({ container, port: undefined, reason: end.warning });
    const allow = this.#allow(exposure);
    if (typeof allow === 'string') {
      this.refuse(container, undefined, allow);
      return;
    }
    const { ruleDefaults } = this.#facts.config;
    const family = exposure.values.family ?? ruleDefaults.family;
    const to = attachment.addresses.map((address) => ({ kind: 'address' as const, address, zone: '' }));
    for (const one of wanted) {
      const { port, askedBy } = one;
      const { source, label } = sourceOf(one, exposure.values);
      const refusal = refusedSource(source, label, attachment.name, this.#facts.config);
      if (refusal !== undefined) {
        this.refuse(container, port, refusal);
        continue;
      }
      const values = { ...ruleDefaults, family, allow, to, source: source ?? ruleDefaults.source };
      const why = `${askedBy.text}; ${end.why}`;
      const at = { ...askedBy, text: `container ${container.name}: ${askedBy.text}` };
      this.#candidates.push({ port, at, values, container, owners, network: attachment.id, why });
    }
  }

  /** Where the container's addresses are. */
  #end(
    container: Container,
    asked: string | undefined,
  ):
    | { attachment: Attachment; owners: readonly string[]; why: string; warning: string | undefined }
    | { refusal: string } {
    const owner = this.#networkOwner(container);
    if (typeof owner === 'string') return { refusal: owner };
    const choice = chooseNetwork(owner, asked, this.#networks, this.#reaches);
    if ('refusal' in choice) return choice;
    const own = choice.attachment.addresses.find((address) =>
      this.#facts.own.some((ours) => equalAddress(ours, address)),
    );
    if (own !== undefined) {
      return { refusal: `its address ${formatAddress(own)} is dualport's own: it would connect to itself` };
    }
    const shared = owner === container ? '' : ` of container ${owner.name}`;
    return { ...choice, owners: [...new Set([container.id, owner.id])], why: `${choice.why}${shared}` };
  }

  /** The container whose network it uses, mostly itself; or why there is none. */
  #networkOwner(container: Container): Container | string {
    const seen = new Set<Container>();
    let owner = container;
    for (;;) {
      const mode = owner.networkMode;
      if (mode === 'host') return hostMode;
      if (mode === 'none') return 'network mode none: it has no address to connect to';
      const [, other] = /^container:(.+)$/.exec(mode) ?? [];
      if (other === undefined) return owner;
      seen.add(owner);
      const next = this.#containers.find(({ id, name }) => id === other || name === other);
      if (next === undefined || !next.running || seen.has(next)) {
        return `network mode ${mode}: that container is not running`;
      }
      owner = next;
    }
  }

  /** A label may keep clients out that the operator lets in, and let nobody in whom he keeps out. */
  #allow({ values }: Exposure): Rule['allow'] | string {
    const { allow } = this.#facts.config.ruleDefaults;
    if (values.allow === undefined) return allow;
    if (allow.length === 0) return values.allow;
    const both = intersectCidrs(allow, values.allow);
    // An empty list would let everybody in.
    if (both.length > 0) return both;
    return 'io.dualport.allow: it has nothing in common with --allow, so that nobody could connect';
  }

  #admit(candidates: readonly Candidate[]): readonly Route[] {
    const rivals = dockerListeners(this.#containers);
    const admitted = admitRules(this.#facts.config.rules, candidates);
    return candidates.flatMap(({ port, container, owners, network, why }, i) => {
      const rule = admitted[i];
      if (rule instanceof DualportError) {
        this.refuse(container, port, rule.message);
      }
      if (rule === undefined || rule instanceof DualportError) return [];
      return [{ rule, container, owners, network, why, rival: rivalOf(port, rivals) }];
    });
  }
}

const noMirrored = { ports: [], left: [] };

const hostMode =
  "network mode host: its program listens on this host's own addresses, which no label may name; publish it with " +
  '--publish, or give the container a network';

function dockerListeners(containers: readonly Container[]): ListenerIndex<string> {
  const index = new ListenerIndex<string>();
  for (const { name, published } of containers) {
    for (const { address, hostPort, protocol } of published) {
      const host = { address, zone: '' };
      index.add(protocol, hostPort, host, `${formatBindHost(host)}:${hostPort} for container ${name}`);
    }
  }
  return index;
}

function rivalOf(
  { protocol, host, hostPorts }: PublishedPort,
  rivals: ListenerIndex<string>,
): string | undefined {
  if (hostPorts === undefined || hostPorts.first !== hostPorts.last) return undefined;
  return rivals.overlapping(protocol, hostPorts.first, host);
}
