/**
 * Three hosts in one: network namespaces with a cable between each two, as in
 *
 *   client eth0 ──── client0 host container0 ──── eth0 container
 *
 * Nothing is forwarded and the client has no route to the container, so what arrives there came through
 * dualport. Nothing outside the three is touched, and nothing of them is left behind.
 */
import { spawnSync } from 'node:child_process';
import type { Place, Stage } from './dualport.ts';

export interface Namespace extends Place {
  readonly name: string;
}

export interface World {
  readonly client: Namespace;
  readonly host: Namespace;
  readonly container: Namespace;
}

/** Addresses for tests and documentation, and unique local ones; `linkLocal` is on the client's cable. */
export const addresses = {
  client: { v4: '198.18.1.2', v6: '2001:db8:1::2', linkLocal: 'fe80::2' },
  host: {
    v4: '198.18.1.1',
    v6: '2001:db8:1::1',
    linkLocal: 'fe80::1',
    more: ['198.18.1.11', '198.18.1.12', '2001:db8:1::11', '2001:db8:1::12'],
  },
  container: { v4: '198.18.2.2', v6: 'fd00:2::2' },
  /** The host's on the container's cable. */
  gateway: { v4: '198.18.2.1', v6: 'fd00:2::1' },
} as const;

let worlds = 0;

/** @param ipv6 false switches IPv6 off in the host, as an operator would by sysctl */
export function openWorld(stage: Stage, { ipv6 = true } = {}): World {
  removeAbandoned();
  worlds++;
  const make = (role: string) => makeNamespace(stage, `${ownPrefix}${worlds}-${role}`);
  const world = { client: make('client'), host: make('host'), container: make('container') };
  for (const { name } of Object.values(world)) switchIpv6(name, true);
  connect(world.client, 'client0', world.host);
  connect(world.container, 'container0', world.host);
  setAddresses(world);
  if (!ipv6) switchIpv6(world.host.name, false);
  return world;
}

/** Runs `ip` commands inside, one a line. */
export function ip({ name }: Namespace, commands: readonly string[]): void {
  mustRun(['-n', name, '-batch', '-'], commands.join('\n'));
}

/** The same as `ip -6`, where a command does not show its family. */
export function ip6({ name }: Namespace, commands: readonly string[]): void {
  mustRun(['-6', '-n', name, '-batch', '-'], commands.join('\n'));
}

/** A packet filter for what comes in, rules in nft's words. */
export function filterInput({ name }: Namespace, rules: readonly string[]): void {
  const chain = ['type filter hook input priority 0;', ...rules].join('\n');
  mustRun(['netns', 'exec', name, 'nft', '-f', '-'], `table inet filter {\nchain input {\n${chain}\n}\n}\n`);
}

/** A file of nft, as an operator would load it. */
export function nft({ name }: Namespace, text: string): void {
  mustRun(['netns', 'exec', name, 'nft', '-f', '-'], text);
}

/** Writes a setting of the network, such as `ipv4/ip_forward`. */
export function setSysctl({ name }: Namespace, key: string, value: number): void {
  mustRun(['netns', 'exec', name, 'sh', '-c', `echo ${value} > /proc/sys/net/${key}`]);
}

/** Namespaces that a process of these tests has made and not removed yet. */
export function namespacesOf(pid: number): readonly string[] {
  return allNames().filter((name) => name.startsWith(prefixOf(pid)));
}

const ownPrefix = prefixOf(process.pid);

function prefixOf(pid: number): string {
  return `dualport-test-${pid}-`;
}

function makeNamespace(stage: Stage, name: string): Namespace {
  mustRun(['netns', 'add', name]);
  stage.undo(() => removeNamespace(name));
  return { name, prefix: ['ip', 'netns', 'exec', name] };
}

/** Its interfaces and what was set in it go with it. */
function removeNamespace(name: string): void {
  mustRun(['netns', 'del', name]);
}

/** A process that was killed could not clean up. */
function removeAbandoned(): void {
  for (const name of allNames()) {
    const [, pid] = /^dualport-test-(\d+)-/.exec(name) ?? [];
    // Another process may be doing the same.
    if (pid !== undefined && !isAlive(Number(pid))) spawnSync('ip', ['netns', 'del', name]);
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

function allNames(): readonly string[] {
  const lines = mustRun(['netns', 'list']).split('\n');
  return lines.flatMap((line) => line.split(' ')[0] || []);
}

function connect(from: Namespace, hostSide: string, host: Namespace): void {
  const peer = ['peer', 'name', hostSide, 'netns', host.name];
  mustRun(['link', 'add', 'eth0', 'netns', from.name, 'type', 'veth', ...peer]);
}

function setAddresses({ client, host, container }: World): void {
  const { linkLocal, more } = addresses.host;
  ip(client, ['link set lo up', ...upWith('eth0', Object.values(addresses.client))]);
  ip(container, ['link set lo up', ...upWith('eth0', [...Object.values(addresses.container), 'fe80::22'])]);
  ip(host, [
    'link set lo up',
    ...upWith('client0', [addresses.host.v4, addresses.host.v6, linkLocal, ...more]),
    // A neighbour is asked for from a link-local address when the packet's own source is another host's.
    ...upWith('container0', [...Object.values(addresses.gateway), 'fe80::21']),
  ]);
}

/** Without duplicate address detection, so that the addresses can be used at once. */
function upWith(device: string, texts: readonly string[]): readonly string[] {
  return [
    `link set ${device} addrgenmode none`,
    `link set ${device} up`,
    ...texts.map((text) =>
      text.includes(':')
        ? `address add ${text}/64 dev ${device} nodad`
        : `address add ${text}/24 dev ${device}`,
    ),
  ];
}

function switchIpv6(name: string, on: boolean): void {
  const set = ['all', 'default'].map(
    (which) => `echo ${on ? 0 : 1} > /proc/sys/net/ipv6/conf/${which}/disable_ipv6`,
  );
  mustRun(['netns', 'exec', name, 'sh', '-c', set.join(' && ')]);
}

function mustRun(args: readonly string[], input = ''): string {
  const { status, stdout, stderr } = spawnSync('ip', args, { input, encoding: 'utf8' });
  if (status !== 0) throw new Error(`ip ${args.join(' ')} (${input}): ${stderr}`);
  return stdout;
}
