/**
 * The labels of a container: which ports it asks for, and how it wants to be told of its clients. Texts in,
 * values out; whether it gets them is bounds.ts.
 *
 *   io.dualport.ports     ports in Docker's grammar
 *   io.dualport.source    .family   .network   .allow
 *   io.dualport.port.NAME.target   .published   .protocol   .host-ip   .source
 *
 * A label that is not known, or a value that is not allowed, withdraws every port of the container: a mistyped
 * `allow` must not publish to everybody. A port that is wrong in itself leaves the others alone.
 */
import { suggestion } from '../config/nearest.ts';
import { choice, type Option, splitList } from '../config/option-kinds.ts';
import { type RuleOptionValues, ruleOptions } from '../config/options.ts';
import { type Place, refusedAt } from '../config/place.ts';
import { type PublishedPort, parsePortSpec } from '../config/port-spec.ts';
import { DualportError } from '../errors.ts';

/** What a container asks for. */
export interface Exposure {
  readonly ports: readonly WantedPort[];
  /** For all of its ports. */
  readonly values: LabelValues;
  readonly network: string | undefined;
  /** What is wrong. When it is the labels as a whole, there are no ports. */
  readonly complaints: readonly string[];
}

export interface WantedPort {
  readonly port: PublishedPort;
  readonly askedBy: Place;
  /** Its own, before that of all. */
  readonly source: LabelSource | undefined;
}

/** What is asked for a port, and the label that says it. */
export function sourceOf(
  port: WantedPort | undefined,
  { source }: LabelValues,
): { readonly source: LabelSource | undefined; readonly label: string } {
  if (port?.source !== undefined) return { source: port.source, label: `${port.askedBy.text}.source` };
  return { source, label: `${prefix}.source` };
}

export interface LabelValues {
  readonly source: LabelSource | undefined;
  readonly family: RuleOptionValues['family'] | undefined;
  readonly allow: RuleOptionValues['allow'] | undefined;
}

/** What a container may ask for; whether it gets it is label-source.ts. */
export type LabelSource = Exclude<RuleOptionValues['source'], 'pseudo'>;

const prefix = 'io.dualport';
const containerKeys = ['ports', 'source', 'family', 'network', 'allow'] as const;
const portKeys = ['target', 'published', 'protocol', 'host-ip', 'source'] as const;

/** Every label there is, as the documentation writes it. */
export const labelNames: readonly string[] = [
  ...containerKeys.map((key) => `${prefix}.${key}`),
  ...portKeys.map((key) => `${prefix}.port.<name>.${key}`),
];

/** In characters; a value that is longer is not read. */
export const longestValue = 16_384;
const longestKey = 128;
const mostLabels = 512;

const { group, help } = ruleOptions.source;
const sourceOption: Option<LabelSource> = choice(['none', 'proxy-v1', 'proxy-v2', 'transparent'], 'none', {
  group,
  help,
});
const protocolOption = choice(['tcp', 'udp'], 'tcp', { group, help });

/** In any case, so that a label written in capitals is reported and not passed over. */
export function isOwnLabel(key: string): boolean {
  const folded = key.slice(0, prefix.length + 1).toLowerCase();
  return folded === prefix || folded === `${prefix}.`;
}

/** @param maxPorts the most a container may ask for */
export function readLabels(labels: ReadonlyMap<string, string>, maxPorts: number): Exposure {
  try {
    const sorted = sortLabels(labels);
    const values = readValues(sorted.container);
    const network = readNetwork(sorted.container);
    const { ports, complaints } = readPorts(sorted, maxPorts);
    return { ports, values, network, complaints };
  } catch (error) {
    return { ...nothing, complaints: [messageOfRefusal(error)] };
  }
}

const noValues: LabelValues = { source: undefined, family: undefined, allow: undefined };
const nothing = { ports: [], values: noValues, network: undefined };

/** By what they are for; keyed by names that others chose, so in maps. */
interface SortedLabels {
  readonly container: Map<string, string>;
  readonly named: Map<string, Map<string, string>>;
}

function sortLabels(labels: ReadonlyMap<string, string>): SortedLabels {
  const sorted: SortedLabels = { container: new Map(), named: new Map() };
  if (labels.size > mostLabels)
    throw refused(`${prefix}.*`, `found ${labels.size} labels; allowed: ${mostLabels}`);
  for (const [key, value] of labels) {
    refuseLong(key, value);
    const word = containerKeys.find((known) => key === `${prefix}.${known}`);
    if (word === undefined) sortPortLabel(sorted, key, value.trim());
    else sorted.container.set(word, value.trim());
  }
  return sorted;
}

function sortPortLabel({ named }: SortedLabels, key: string, value: string): void {
  const [, name = '', part = ''] = /^io\.dualport\.port\.([^.]+)\.([^.]+)$/.exec(key) ?? [];
  if (!portKeys.some((known) => known === part)) throw unknownLabel(key);
  if (!/^[a-z0-9][a-z0-9_-]*$/.test(name)) {
    throw refused(
      key,
      `found the port name ${JSON.stringify(name)}; allowed: lower-case letters, digits, - and _`,
    );
  }
  const parts = named.get(name) ?? new Map<string, string>();
  named.set(name, parts.set(part, value));
}

function readValues(container: ReadonlyMap<string, string>): LabelValues {
  const value = <T>(key: string, option: Option<T>) =>
    readOption(`${prefix}.${key}`, container.get(key), option);
  return {
    source: value('source', sourceOption),
    family: value('family', ruleOptions.family),
    allow: value('allow', ruleOptions.allow),
  };
}

function readNetwork(container: ReadonlyMap<string, string>): string | undefined {
  const network = container.get('network');
  if (network === '') throw refused(`${prefix}.network`, 'found nothing; allowed: the name of a network');
  return network;
}

interface Ports {
  readonly ports: readonly WantedPort[];
  readonly complaints: readonly string[];
}

function readPorts({ container, named }: SortedLabels, maxPorts: number): Ports {
  const listed = listedPorts(container.get('ports'), maxPorts);
  const all = [...named].reduce((before, [name, parts]) => withNamed(before, name, parts), listed);
  if (all.ports.length <= maxPorts) return all;
  const tooMany =
    `found ${all.ports.length} ports, of which the first ${maxPorts} count; allowed: at most ${maxPorts} of one ` +
    'container (--docker-max-ports)';
  return { ports: all.ports.slice(0, maxPorts), complaints: [...all.complaints, tooMany] };
}

const portsPlace: Place = { origin: 'label', text: `${prefix}.ports` };

function listedPorts(text: string | undefined, maxPorts: number): Ports {
  const ports: WantedPort[] = [];
  const complaints: string[] = [];
  for (const item of text === undefined ? [] : splitList(text)) {
    try {
      refuseLongRange(item, maxPorts);
      ports.push(...parsePortSpec(item).map((port) => ({ port, askedBy: portsPlace, source: undefined })));
    } catch (error) {
      complaints.push(messageOfRefusal(error, portsPlace));
    }
    // One more than allowed says that there are too many; how many more is not worth finding out.
    if (ports.length > maxPorts || complaints.length > maxPorts) break;
  }
  return { ports, complaints };
}

/** Before it is made a port each: a few characters can ask for 65535. */
function refuseLongRange(item: string, maxPorts: number): void {
  const [, first, last] = /(\d{1,5})-(\d{1,5})(?:\/[^:]*)?$/.exec(item) ?? [];
  const count = Number(last ?? 0) - Number(first ?? 0) + 1;
  if (count <= maxPorts) return;
  throw new DualportError(
    'PORT_SPEC',
    `${JSON.stringify(item)} asks for ${count} ports; allowed: at most ${maxPorts} of one container ` +
      '(--docker-max-ports)',
  );
}

/**
 * A port with a name describes those of the list that go to the same port of the container; when there is none
 * it is one of its own. When it is wrong, those it describes go with it: they were not meant as they stand.
 */
function withNamed({ ports, complaints }: Ports, name: string, parts: ReadonlyMap<string, string>): Ports {
  const key = `${prefix}.port.${name}`;
  const target = readTarget(key, name, parts);
  const protocol = readOption(`${key}.protocol`, parts.get('protocol'), protocolOption) ?? 'tcp';
  const isMeant = ({ port }: WantedPort) => port.containerPort === target && port.protocol === protocol;
  const meant = ports.filter(isMeant);
  try {
    const described = describe(key, parts, `${target}/${protocol}`, meant);
    const [only] = described;
    if (meant.length === 0 && only !== undefined) return { ports: [...ports, only], complaints };
    const replaced = new Map(meant.map((port, i) => [port, described[i] ?? port]));
    return { ports: ports.map((port) => replaced.get(port) ?? port), complaints };
  } catch (error) {
    const others = ports.filter((port) => !isMeant(port));
    return { ports: others, complaints: [...complaints, messageOfRefusal(error)] };
  }
}

/** Without it nobody knows which port is meant, so it is an error of the whole. */
function readTarget(key: string, name: string, parts: ReadonlyMap<string, string>): number {
  const text = parts.get('target') ?? (/^\d+$/.test(name) ? name : undefined);
  if (text === undefined)
    throw refused(key, `found no target; add ${key}.target, the port the program listens on`);
  const target = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (target >= 1 && target <= 65535) return target;
  throw refused(`${key}.target`, `found ${JSON.stringify(text)}; allowed: one port from 1 to 65535`);
}

/** The named port itself, or what it makes of each it describes. */
function describe(
  key: string,
  parts: ReadonlyMap<string, string>,
  target: string,
  meant: readonly WantedPort[],
): readonly WantedPort[] {
  const [published, hostIp] = [parts.get('published'), parts.get('host-ip')];
  const source = readOption(`${key}.source`, parts.get('source'), sourceOption);
  const askedBy: Place = { origin: 'label', text: key };
  if (published !== undefined && !/^\d{1,5}(?:-\d{1,5})?$/.test(published)) {
    throw refused(
      `${key}.published`,
      `found ${JSON.stringify(published)}; allowed: a host port, or a range to choose from`,
    );
  }
  if (published !== undefined && meant.length > 1) {
    throw refused(
      `${key}.published`,
      `${meant.length} ports of ${portsPlace.text} go to ${target}; write it there`,
    );
  }
  const [port] = parsePortSpec(`${hostText(key, hostIp)}:${published ?? ''}:${target}`);
  if (port === undefined) return [];
  if (meant.length === 0) return [{ port, askedBy, source }];
  return meant.map((wanted) => ({
    port: {
      ...wanted.port,
      host: hostIp === undefined ? wanted.port.host : port.host,
      hostPorts: published === undefined ? wanted.port.hostPorts : port.hostPorts,
    },
    askedBy,
    source,
  }));
}

/** In brackets, as the grammar has it; empty is every address. */
function hostText(key: string, hostIp: string | undefined): string {
  if (hostIp === undefined) return '';
  const [, bare = ''] = /^\[?([\da-fA-F:.]+(?:%[\w.-]+)?)\]?$/.exec(hostIp) ?? [];
  if (bare === '')
    throw refused(`${key}.host-ip`, `found ${JSON.stringify(hostIp)}; allowed: an address to listen on`);
  return bare.includes(':') ? `[${bare}]` : bare;
}

function readOption<T>(key: string, text: string | undefined, option: Option<T>): T | undefined {
  if (text === undefined) return undefined;
  const at: Place = { origin: 'label', text: key };
  return option.read([{ text, at }], at);
}

function refuseLong(key: string, value: string): void {
  if (key.length > longestKey)
    throw refused(`${key.slice(0, 40)}…`, `found a name of more than ${longestKey} characters`);
  if (value.length > longestValue) throw refused(key, `found more than ${longestValue} characters`);
}

function unknownLabel(key: string): DualportError {
  const name = /^io\.dualport\.port\.([^.]*)/i.exec(key)?.[1] ?? '<name>';
  const known = labelNames.map((label) => label.replace('<name>', name));
  return refused(key, `found an unknown label${suggestion(key, known)}; allowed: ${labelNames.join(', ')}`);
}

function refused(key: string, why: string): DualportError {
  return new DualportError('USAGE', `${key}: ${why}`);
}

/** What a parser of labels has thrown on purpose; anything else is a fault of ours. */
function messageOfRefusal(error: unknown, at?: Place): string {
  if (!(error instanceof DualportError)) throw error;
  return at === undefined ? error.message : refusedAt(at, error).message;
}
