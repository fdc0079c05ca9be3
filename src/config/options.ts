/**
 * Every option dualport has, once. Types, parsers, defaults, bounds, flags, environment variables, file keys,
 * `--help` and the documentation all come from this table; a new option is a new row.
 */
import { type Cidr, parseCidr } from '../net/cidr.ts';
import { adminForms, parseAdminAddress } from './admin-address.ts';
import {
  bindForms,
  defaultBind,
  defaultMaxPorts,
  defaultPorts,
  type EngineAddress,
  engineForms,
  parseBindHost,
  parseEngineAddress,
  parsePortRange,
  rangeForms,
} from './docker-options.ts';
import { launcherSocketForms, parseLauncherSocket } from './launcher-socket.ts';
import {
  choice,
  count,
  duration,
  limit,
  list,
  type Option,
  prefix,
  text,
  textOr,
  toggle,
  whole,
} from './option-kinds.ts';
import { notAllowed } from './place.ts';
import { type BindHost, type PortRange, type PublishedPort, parsePortSpec } from './port-spec.ts';
import { parseTarget, type Target, targetForms } from './target.ts';
import {
  firstRouteTable,
  interfaceForms,
  lastPriority,
  lastRouteTable,
  markForms,
  parseInterface,
  parseMark,
  parseTable,
  tableForms,
} from './transparent-options.ts';

const rules = { group: 'What to publish, and where to' };
const identity = { group: "The client's address" };
const access = { group: 'Who may connect' };
const kernel = { group: 'The way back of transparent and pseudo connections' };
const timeouts = { group: 'Timeouts' };
const limits = { group: 'Limits' };
const docker = { group: 'Docker' };
const running = { group: 'The process' };

/** Long enough for any service, short enough for a timer of 31 bits. */
const week = '168h';
const anyLength = { min: '10ms', max: week };
const mostFlows = 10_000_000;
const mostThreads = 64;

const prefixes = {
  placeholder: '<cidr,...>',
  allowed: 'address prefixes, such as 10.0.0.0/8, 2001:db8::/32 or a single address',
  parse: (prefix: string): readonly Cidr[] => [parseCidr(prefix)],
  default: [] as readonly Cidr[],
};

/** For every rule, or in the file for one entry of `publish`. */
export const ruleOptions = {
  to: list<Target, undefined>(
    {
      placeholder: '<host>',
      allowed: targetForms,
      empty: `at least one host: ${targetForms}`,
      unset: '127.0.0.1 and ::1',
      parse: (host) => [parseTarget(host)],
      default: undefined,
    },
    { ...rules, short: 't', help: 'upstream address or name, best one of each family; repeatable' },
  ),
  family: choice(['same', 'v4', 'v6', 'prefer-v4', 'prefer-v6'], 'same', {
    ...rules,
    help: "family of the upstream tried first: the client's own, IPv4 or IPv6; v4 and v6 try no other",
  }),
  source: choice(['none', 'proxy-v1', 'proxy-v2', 'transparent', 'pseudo'], 'none', {
    ...identity,
    help:
      "how the upstream learns the client's address: not at all, by a PROXY protocol header, as its peer's address, " +
      'or as a peer address that stands for it',
  }),
  mismatch: choice(['auto', 'pseudo', 'proxy-v2', 'plain', 'refuse'], 'auto', {
    ...identity,
    help:
      'what source transparent does where client and upstream differ in family; ' +
      'auto is pseudo where that is set up, else refuse',
  }),
  sourcePort: choice(['any', 'keep'], 'any', {
    ...identity,
    help: "source transparent and pseudo: the peer's port is any, or the client's own unless that is taken",
  }),
  udpHeader: choice(['every', 'first'], 'every', {
    ...identity,
    help: 'PROXY header before every UDP datagram, or before the first to an upstream only',
  }),
  proxyCrc32c: toggle({ ...identity, help: 'checksum in the PROXY v2 header that is sent' }),
  proxyUniqueId: toggle({ ...identity, help: 'unique connection id in the PROXY v2 header that is sent' }),
  acceptProxy: list<Cidr, readonly Cidr[]>(
    { ...prefixes, unset: 'nobody' },
    { ...identity, help: 'peers that must send a PROXY header; everybody else is then refused' },
  ),
  allow: list<Cidr, readonly Cidr[]>(
    {
      ...prefixes,
      // An empty list could be read as nobody or as everybody; neither guess is safe.
      empty: 'at least one prefix; for everybody write 0.0.0.0/0, ::/0',
      unset: 'everybody',
    },
    { ...access, help: 'only clients in these prefixes are served' },
  ),
  deny: list<Cidr, readonly Cidr[]>(
    { ...prefixes, unset: 'nobody' },
    { ...access, help: 'clients in these prefixes are refused, even when --allow has them' },
  ),
  connectTimeout: duration(
    '5s',
    { min: '10ms', max: '5m' },
    { ...timeouts, help: 'until an upstream has answered' },
  ),
  idleTimeout: duration(
    '0',
    { ...anyLength, zero: 'off' },
    { ...timeouts, help: 'TCP connection without a byte in either direction' },
  ),
  halfCloseTimeout: duration('120s', anyLength, {
    ...timeouts,
    help: 'the same, once one side has said all it had to say',
  }),
  udpTimeout: duration('30s', anyLength, {
    ...timeouts,
    help: 'UDP flow without a datagram, before its first answer',
  }),
  udpStreamTimeout: duration('180s', anyLength, {
    ...timeouts,
    help: 'UDP flow without a datagram, after its first answer',
  }),
  headerTimeout: duration(
    '5s',
    { min: '10ms', max: '5m' },
    { ...timeouts, help: 'until the whole PROXY header has arrived' },
  ),
  udpReplies: choice(['limited', 'strict', 'unlimited'], 'limited', {
    ...limits,
    help:
      'what a UDP client gets before it has shown that it hears: 64 KiB and 64 datagrams for each of its own and 1 ' +
      'MiB/s for its network, or (strict) 3 times what it sent, or all',
  }),
  maxFlowsPerRule: limit(
    'half of all when there are several rules; UDP: half, or a quarter when there are several UDP rules',
    mostFlows,
    {
      ...limits,
      help: 'most flows at once for one rule',
    },
  ),
  maxFlowsPerSource: limit('a quarter of all; UDP: an eighth', mostFlows, {
    ...limits,
    help: 'most flows at once for one client (IPv4 address or IPv6 /64) of a rule',
  }),
};

/** Once for the process; at the top level of the file. */
export const processOptions = {
  docker: toggle({
    ...docker,
    help: 'publish what the labels of containers ask for, such as io.dualport.ports',
  }),
  dockerMirror: toggle({
    ...docker,
    help: 'publish on IPv6 too what Docker publishes on IPv4 only; includes --docker',
  }),
  dockerEngine: text<EngineAddress>(
    {
      placeholder: '<address>',
      allowed: engineForms,
      unset: 'DOCKER_HOST, else unix:///var/run/docker.sock',
      parse: parseEngineAddress,
    },
    { ...docker, help: 'where the Docker Engine answers' },
  ),
  dockerPorts: list<PortRange, readonly PortRange[]>(
    {
      placeholder: '<port,...>',
      allowed: rangeForms,
      empty: `at least one: ${rangeForms}`,
      unset: '1024-32767 without 2375-2377',
      parse: (range) => [parsePortRange(range)],
      default: defaultPorts,
    },
    { ...docker, help: 'host ports that labels may name' },
  ),
  dockerBind: list<BindHost, readonly BindHost[]>(
    {
      placeholder: '<address,...>',
      allowed: bindForms,
      empty: `at least one: ${bindForms}`,
      unset: '0.0.0.0, [::], 127.0.0.1 and [::1]',
      parse: (address) => [parseBindHost(address)],
      default: defaultBind,
    },
    {
      ...docker,
      help: 'addresses of this host that labels may name; a port without one gets 0.0.0.0 and [::], or all if neither is here',
    },
  ),
  dockerMaxPorts: limit(String(defaultMaxPorts), 1024, {
    ...docker,
    help: 'most ports that the labels of one container may publish',
  }),
  dockerProxySocket: text<string>(
    { placeholder: '[path]', allowed: launcherSocketForms, unset: 'off', parse: parseLauncherSocket },
    {
      ...docker,
      help: "serve the ports of dockerd's launchers, which hand them over through this unix socket",
    },
  ),
  maxFlows: limit('a third of the open file limit, at most 65536', mostFlows, {
    ...limits,
    help: 'most flows at once in all',
  }),
  engine: choice(['auto', 'linux', 'portable'], 'auto', { ...running, help: 'what relays the bytes' }),
  threads: count(1, mostThreads, {
    ...running,
    help: 'threads that relay, among which the kernel spreads the clients; more than 1 only with the linux engine',
  }),
  drainTimeout: duration(
    '8s',
    { min: '10ms', max: '1h', zero: 'at once' },
    { ...running, help: 'after SIGTERM, how long flows may take to end by themselves' },
  ),
  admin: text(
    { placeholder: '<address>', allowed: adminForms, unset: 'off', parse: parseAdminAddress },
    { ...running, help: 'serve metrics, health and status on a unix socket or [host:]port' },
  ),
  accessLog: toggle({ ...running, help: 'a log line for every flow that ended' }),
  logLevel: choice(['error', 'warn', 'info', 'debug'], 'info', { ...running, help: 'least level logged' }),
  logFormat: choice(['auto', 'json', 'pretty'], 'auto', {
    ...running,
    help: 'how log lines look; auto is pretty on a terminal and json elsewhere',
  }),
  pseudoV4: prefix(
    '240.0.0.0/4',
    { family: 4, shortest: 4, longest: 24 },
    { ...identity, help: 'where the pseudo addresses are that clients have before IPv4 upstreams' },
  ),
  pseudoV6: prefix(
    'fd5f:bf90:309::/96',
    { family: 6, shortest: 96, longest: 96 },
    { ...identity, help: 'the same before IPv6 upstreams; its last 32 bits are an IPv4 address' },
  ),
  pseudoUnit: choice(['/56', '/64', '/128'], '/64', {
    ...identity,
    help: 'how much of an IPv6 address is one client, with one pseudo address',
  }),
  stateDir: text(
    {
      placeholder: '<directory>',
      allowed: 'an absolute path',
      unset: '$STATE_DIRECTORY, which systemd sets, or /var/lib/dualport',
      parse: parseDirectory,
    },
    { ...identity, help: 'where pseudo addresses are kept over restarts' },
  ),
  transparentNetworks: list<string, readonly string[]>(
    {
      placeholder: '<name,...>',
      allowed: 'names of Docker networks, or * for all of them',
      unset: 'none',
      parse: parseNetwork,
      default: [],
    },
    { ...identity, help: 'Docker networks whose containers may ask for source transparent by their label' },
  ),
  transparentSetup: toggle({
    ...kernel,
    help: 'make the rules and routes that source transparent and pseudo need at start, and remove them at exit',
  }),
  transparentInterface: list<string, readonly string[]>(
    {
      placeholder: '<name,...>',
      allowed: interfaceForms,
      unset: 'those that lead to the upstreams',
      parse: parseInterface,
      default: [],
    },
    { ...kernel, help: 'interfaces that answers of upstreams come from, beside those found; repeatable' },
  ),
  transparentTable: textOr({ placeholder: '<name>', allowed: tableForms, parse: parseTable }, 'dualport', {
    ...kernel,
    help: "the nft table that is dualport's own",
  }),
  // Of the bits of a mark Tailscale has 16-23, Calico 16-31, kube-proxy 14 and 15, CNI portmap 13 and the AWS CNI 7.
  transparentMark: textOr({ placeholder: '<mark>', allowed: markForms, parse: parseMark }, '0x1000', {
    ...kernel,
    help: 'the mark on answers of upstreams, as value or value/mask',
  }),
  // Before everybody who routes addresses of clients: strongSwan is at 220, the AWS CNI at 512, Tailscale at 5210.
  transparentPriority: whole(60, 1, lastPriority, {
    ...kernel,
    help: 'the first of five priorities of ip rules',
  }),
  transparentRouteTable: whole(24_000, firstRouteTable, lastRouteTable, {
    ...kernel,
    help: 'the first of 16 numbers of route tables',
  }),
};

/** As many as both protocols have. A short text can ask for 65 535, and each is a rule of its own. */
export const mostPorts: number = 2 * 65_535;

export const options = {
  publish: list<PublishedPort, readonly PublishedPort[]>(
    {
      placeholder: '<port>',
      allowed: '[host-ip:][host-port:]container-port[/tcp|/udp], ranges included, as for docker run',
      empty: 'at least one port, such as 8080:80',
      unset: 'none',
      most: mostPorts,
      parse: parsePortSpec,
      default: [],
    },
    {
      ...rules,
      short: 'p',
      help: 'publish a port: [host-ip:][host-port:]container-port[/tcp|/udp], as for docker run; repeatable',
    },
  ),
  ...ruleOptions,
  ...processOptions,
  // What the file itself cannot say.
  config: text(
    { placeholder: '<file>', allowed: 'the path of a YAML file', unset: 'none', parse: parsePath },
    { ...running, short: 'c', help: 'read rules and options from a YAML file' },
  ),
};

export type OptionKey = keyof typeof options;
type ValuesOf<Table> = { readonly [K in keyof Table]: Table[K] extends Option<infer T> ? T : never };
export type OptionValues = ValuesOf<typeof options>;
export type RuleOptionValues = ValuesOf<typeof ruleOptions>;

export const optionKeys = Object.keys(options) as readonly OptionKey[];
export const ruleKeys = Object.keys(ruleOptions) as readonly (keyof typeof ruleOptions)[];
export const processKeys = Object.keys(processOptions) as readonly (keyof typeof processOptions)[];

/** The value of every option nobody wrote. */
export const optionDefaults = Object.fromEntries(
  optionKeys.map((key) => [key, options[key].default]),
) as unknown as OptionValues;

/** `--connect-timeout`. */
export function flagOf(key: OptionKey): string {
  return `--${kebab(key)}`;
}

/** `DUALPORT_CONNECT_TIMEOUT`. */
export function environmentOf(key: OptionKey): string {
  return `DUALPORT_${kebab(key).replaceAll('-', '_').toUpperCase()}`;
}

function kebab(key: OptionKey): string {
  return key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function parseDirectory(path: string): string {
  if (!path.startsWith('/') || path.includes('\0')) throw notAllowed(path, 'an absolute path');
  return path;
}

/** As Docker names them (`[a-zA-Z0-9][a-zA-Z0-9_.-]*`). */
function parseNetwork(name: string): readonly string[] {
  if (name === '*' || /^[a-z\d][\w.-]*$/i.test(name)) return [name];
  throw notAllowed(name, 'names of Docker networks, or * for all of them');
}

function parsePath(path: string): string {
  if (path === '' || path.includes('\0')) throw notAllowed(path, 'the path of a YAML file');
  return path;
}
