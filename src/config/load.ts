/**
 * Flags, environment and file to the one frozen configuration that runs: a flag wins over a variable, a
 * variable over the file, an entry of `publish` in the file over its `defaults`, and all over what is built
 * in. Nothing else in dualport reads any of the three.
 */
import { resolve } from 'node:path';
import { DualportError } from '../errors.ts';
import type { Cidr } from '../net/cidr.ts';
import { defaultMaxPorts, type EngineAddress, engineAddress, type LabelPolicy } from './docker-options.ts';
import { type FileConfig, type FileEntry, parseFile } from './file.ts';
import { type ReadFile, readFileText } from './file-text.ts';
import { deepFreeze } from './freeze.ts';
import { hidesClients } from './hidden-clients.ts';
import {
  type OptionKey,
  type OptionValues,
  optionDefaults,
  optionKeys,
  type RuleOptionValues,
  ruleKeys,
} from './options.ts';
import type { Origin, Place } from './place.ts';
import { refuseAdminPath, refuseAdminPort } from './port-conflicts.ts';
import type { PublishedPort } from './port-spec.ts';
import { buildRules, type Rule, type RuleInput } from './rules.ts';
import {
  type Environment,
  environmentPlace,
  type Flags,
  flagPlace,
  readEnvironment,
  readFlags,
} from './sources.ts';
import type { PacketMark } from './transparent-options.ts';

/** Deeply frozen. */
export interface Config {
  /** In the order they were written; at least one, unless containers or launchers bring theirs. */
  readonly rules: readonly Rule[];
  /** What holds for a rule that is not written in the configuration. */
  readonly ruleDefaults: RuleOptionValues;
  /** The rules, and perhaps the ports of containers, whose programs see everybody under one address unasked. */
  readonly hidesClients: readonly string[];
  /** The engine whose containers are followed; undefined: none are. */
  readonly docker: EngineAddress | undefined;
  readonly labels: LabelPolicy;
  /** Where launchers hand their sockets over, and the engine that starts them; undefined: none are served. */
  readonly launchers: { readonly socket: string; readonly engine: EngineAddress } | undefined;
  readonly engine: OptionValues['engine'];
  /** At most as many as there may be flows. */
  readonly threads: number;
  /** Undefined: to be found from the limit of open files. */
  readonly maxFlows: number | undefined;
  readonly drainTimeoutMs: number;
  readonly accessLog: boolean;
  readonly logLevel: OptionValues['logLevel'];
  readonly logFormat: OptionValues['logFormat'];
  readonly admin: OptionValues['admin'];
  /** The addresses that stand for clients whose own cannot be shown. */
  readonly pseudo: PseudoConfig;
  /** Docker networks whose containers may ask for source transparent; `*` is all of them. */
  readonly transparentNetworks: readonly string[];
  readonly transparent: TransparentConfig;
  /** The path of the configuration file as it was written. */
  readonly file: string | undefined;
  /** Who had the last word on each option. */
  readonly origins: Readonly<Record<OptionKey, Origin>>;
}

export interface PseudoConfig {
  readonly v4: Cidr;
  /** A /96, whose last 32 bits are an IPv4 address. */
  readonly v6: Cidr;
  /** How many bits of an IPv6 address are one client. */
  readonly unitBits: number;
  /** An absolute path of a directory, which need not exist. */
  readonly stateDir: string;
}

/** What is made in the kernel for source transparent and pseudo, and by which names. */
export interface TransparentConfig {
  /** At start, and removed at exit. */
  readonly setup: boolean;
  /** Beside those that lead to the upstreams. */
  readonly interfaces: readonly string[];
  /** Of nft, in the family inet. */
  readonly table: string;
  readonly mark: PacketMark;
  /** The first of several. */
  readonly priority: number;
  /** The first of several. */
  readonly routeTable: number;
}

export interface Sources {
  readonly flags: Flags;
  readonly env: Environment;
  readonly readFile?: ReadFile;
  /** What a relative path of the file starts from; the working directory when it is not given. */
  readonly cwd?: string;
}

/**
 * Reads and checks everything, or refuses with the first thing that is wrong.
 *
 * @throws DualportError whose message starts with the flag, the variable, or file:line:column
 */
export function loadConfig(sources: Sources): Config {
  const layers = readLayers(sources);
  const path = layers.flags.config ?? layers.environment.config;
  const inputs = ruleInputs(layers);
  const rules = buildRules(inputs);
  const fromDocker = dockerValues(layers, sources.env['DOCKER_HOST']);
  const { docker, launchers } = fromDocker;
  if (rules.length === 0 && docker === undefined && launchers === undefined) throw nothingToPublish(path);
  const values = processValues(layers);
  refuseAdminPort(rules, values.admin);
  refuseAdminPath(values.admin, launchers?.socket, sources.cwd);
  refuseTransparent(rules, values.engine);
  const ruleDefaults = ruleDefaultsOf(layers);
  const pseudo = pseudoValues(layers, sources.env);
  const transparent = transparentValues(layers);
  const origins = originsOf(layers);
  const hiding = rules.filter(({ port, allow }, i) =>
    hidesClients(port.host, allow, inputs[i]?.saysSource === true),
  );
  const names = [...hiding.map(({ name }) => name), ...hidingContainers(layers, fromDocker, ruleDefaults)];
  const ofRules = { rules, ruleDefaults, hidesClients: names };
  return deepFreeze({ ...ofRules, ...fromDocker, ...values, pseudo, transparent, file: path, origins });
}

/**
 * The part of the configuration that says what pseudo addresses are, for a command that publishes nothing.
 *
 * @throws DualportError as {@link loadConfig} does
 */
export function loadPseudoConfig(sources: Sources): PseudoConfig {
  return deepFreeze(pseudoValues(readLayers(sources), sources.env));
}

/**
 * The part of the configuration that names what is made in the kernel, for a command that needs no rules.
 *
 * @throws DualportError as {@link loadConfig} does
 */
export function loadTransparentConfig(sources: Sources): TransparentConfig {
  return deepFreeze(transparentValues(readLayers(sources)));
}

/** May the label of a container in this Docker network say `transparent`? */
export function allowsTransparent(config: Pick<Config, 'transparentNetworks'>, network: string): boolean {
  return config.transparentNetworks.includes('*') || config.transparentNetworks.includes(network);
}

interface Layers {
  readonly flags: Partial<OptionValues>;
  readonly environment: Partial<OptionValues>;
  readonly file: FileConfig;
}

function readLayers(sources: Sources): Layers {
  const flags = readFlags(sources.flags);
  const environment = readEnvironment(sources.env);
  const path = flags.config ?? environment.config;
  const file = path === undefined ? emptyFile : readConfigFile(path, sources);
  return { flags, environment, file };
}

const emptyFile: FileConfig = { process: {}, defaults: {}, entries: [] };

function readConfigFile(path: string, { readFile, cwd = '.' }: Sources): FileConfig {
  return parseFile(path, readFileText(path, resolve(cwd, path), readFile));
}

interface WrittenInput extends RuleInput {
  /** Its source is not the default because nobody said anything. */
  readonly saysSource: boolean;
}

/** Every port that is published, with the values in force for it. */
function ruleInputs(layers: Layers): readonly WrittenInput[] {
  const { flags, environment, file } = layers;
  return entriesInForce(layers).flatMap((entry) => {
    const written = { ...file.defaults, ...entry.values, ...environment, ...flags };
    const input = { values: { ...optionDefaults, ...written }, saysSource: Object.hasOwn(written, 'source') };
    return entry.published.flatMap(({ ports, at }) => ports.map((port) => ({ port, at, ...input })));
  });
}

/** What labels say themselves is not known before there are containers. */
function hidingContainers(
  { flags, environment, file }: Layers,
  { docker, launchers, labels }: Pick<Config, 'docker' | 'launchers' | 'labels'>,
  { allow }: RuleOptionValues,
): readonly string[] {
  const saysSource = [file.defaults, environment, flags].some((values) => Object.hasOwn(values, 'source'));
  const hosts = [
    ...(docker === undefined ? [] : labels.bind),
    ...(launchers === undefined ? [] : [undefined]),
  ];
  const hides = hosts.some((host) => hidesClients(host, allow, saysSource));
  return hides ? ['ports of containers whose labels name no source'] : [];
}

/** Those of the strongest source that publishes anything: lists of ports replace each other, and never add up. */
function entriesInForce({ flags, environment, file }: Layers): readonly FileEntry[] {
  if (flags.publish !== undefined) return [bareEntry(flags.publish, flagPlace('publish'))];
  if (environment.publish === undefined) return file.entries;
  return [bareEntry(environment.publish, environmentPlace('publish'))];
}

function bareEntry(ports: readonly PublishedPort[], at: Place): FileEntry {
  return { published: [{ ports, at }], values: {} };
}

function processValues({ flags, environment, file }: Layers) {
  const values = { ...optionDefaults, ...file.process, ...environment, ...flags };
  const { engine, threads, maxFlows, drainTimeout, admin, transparentNetworks } = values;
  const { accessLog, logLevel, logFormat } = values;
  if (maxFlows !== undefined && maxFlows < threads) throw idleThreads(threads, maxFlows);
  const logging = { accessLog, logLevel, logFormat };
  return { engine, threads, maxFlows, drainTimeoutMs: drainTimeout, ...logging, admin, transparentNetworks };
}

function pseudoValues({ flags, environment, file }: Layers, env: Environment): PseudoConfig {
  const values = { ...optionDefaults, ...file.process, ...environment, ...flags };
  const { pseudoV4: v4, pseudoV6: v6, pseudoUnit, stateDir } = values;
  // systemd gives a list where a unit has several; ours is the first.
  const given = env['STATE_DIRECTORY']?.split(':')[0] || '/var/lib/dualport';
  return { v4, v6, unitBits: Number(pseudoUnit.slice(1)), stateDir: stateDir ?? given };
}

function transparentValues({ flags, environment, file }: Layers): TransparentConfig {
  const values = { ...optionDefaults, ...file.process, ...environment, ...flags };
  return {
    setup: values.transparentSetup,
    interfaces: [...new Set(values.transparentInterface)],
    table: values.transparentTable,
    mark: values.transparentMark,
    priority: values.transparentPriority,
    routeTable: values.transparentRouteTable,
  };
}

/** What the configuration alone shows; whether this process has the privilege is known once it starts. */
function refuseTransparent(rules: readonly Rule[], engine: Config['engine']): void {
  const rule = rules.find(({ source }) => source === 'transparent');
  if (rule === undefined || engine !== 'portable') return;
  throw new DualportError(
    'ENGINE',
    `${rule.name}: found source transparent and engine portable, whose sockets cannot have an address of another ` +
      'host; use engine linux, or source pseudo',
  );
}

function ruleDefaultsOf({ flags, environment, file }: Layers): RuleOptionValues {
  const values = { ...optionDefaults, ...file.defaults, ...environment, ...flags };
  return Object.fromEntries(ruleKeys.map((key) => [key, values[key]])) as unknown as RuleOptionValues;
}

function dockerValues({ flags, environment, file }: Layers, dockerHost: string | undefined) {
  const values = { ...optionDefaults, ...file.process, ...environment, ...flags };
  const { dockerMirror: mirror, dockerPorts: ports, dockerBind: bind, dockerMaxPorts } = values;
  const labels: LabelPolicy = { mirror, ports, bind, maxPorts: dockerMaxPorts ?? defaultMaxPorts };
  const { dockerProxySocket: socket, dockerEngine } = values;
  const on = values.docker || mirror;
  const engine = on || socket !== undefined ? engineAddress(dockerEngine, dockerHost) : undefined;
  const launchers = socket === undefined || engine === undefined ? undefined : { socket, engine };
  return { docker: on ? engine : undefined, labels, launchers };
}

function originsOf(layers: Layers): Record<OptionKey, Origin> {
  const { flags, environment, file } = layers;
  const entries = entriesInForce(layers).map((entry) => entry.values);
  const sections: readonly object[] = [file.process, file.defaults, ...entries];
  const inFile = (key: OptionKey) =>
    key === 'publish' || sections.some((values) => Object.hasOwn(values, key));
  const originOf = (key: OptionKey): Origin => {
    if (Object.hasOwn(flags, key)) return 'flag';
    if (Object.hasOwn(environment, key)) return 'environment';
    return inFile(key) ? 'file' : 'default';
  };
  return Object.fromEntries(optionKeys.map((key) => [key, originOf(key)])) as Record<OptionKey, Origin>;
}

function idleThreads(threads: number, maxFlows: number): DualportError {
  return new DualportError(
    'USAGE',
    `found ${threads} threads, and at most ${maxFlows} flows for all of them; use as many flows at least ` +
      '(--max-flows) or fewer threads (--threads)',
  );
}

/** A file that was named is where ports were to be. */
function nothingToPublish(path: string | undefined): DualportError {
  const where = path === undefined ? '' : `${path}: `;
  return new DualportError(
    path === undefined ? 'USAGE' : 'CONFIG_VALUE',
    `${where}there is no port to publish; give one with --publish, as in dualport -p '[::]:8080:80' --to 172.17.0.2, ` +
      'in DUALPORT_PUBLISH, or under publish in a configuration file; or follow containers with --docker, or serve dockerd with --docker-proxy-socket',
  );
}
