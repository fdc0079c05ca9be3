/**
 * Where a run takes place.
 *
 *   T1  everything on one loopback, in a namespace of its own (without root: the machine's loopback)
 *   T2  client eth0 ── client0 host br0 ── ctr0 ── eth0 container, three namespaces; what Docker builds
 *
 * The host forwards, so the client can also reach the container without any relay: that is `direct`, the bound
 * of everything else. Addresses are those for tests and documentation; sysctls are set inside the namespaces
 * only, and end with them.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Place } from './processes.ts';
import type { Families, TopologyName, TopologyRecord } from './results.ts';

export interface World {
  readonly client: Place;
  readonly host: Place;
  readonly container: Place;
  readonly record: TopologyRecord;
  /** Where subjects listen, by family of the client. */
  readonly hostAddress: Dual;
  /** Where the program behind listens. */
  readonly containerAddress: Dual;
  readonly remarks: readonly string[];
  remove(): void;
}

export interface Dual {
  readonly v4: string;
  readonly v6: string;
}

export function clientFamily(families: Families): keyof Dual {
  return families === '4to4' ? 'v4' : 'v6';
}

export function upstreamFamily(families: Families): keyof Dual {
  return families === '6to6' ? 'v6' : 'v4';
}

/** Settings of every namespace, the same for all subjects: room for many short connections. */
const settings: Readonly<Record<string, string>> = {
  'net.ipv4.ip_local_port_range': '1024 65535',
  // No outgoing connection may take a port that a subject or a program is about to listen on.
  'net.ipv4.ip_local_reserved_ports': '20000-21999,50000-55999',
  'net.ipv4.tcp_tw_reuse': '1',
  'net.core.somaxconn': '4096',
  'net.ipv4.tcp_max_syn_backlog': '8192',
  'net.ipv4.tcp_slow_start_after_idle': '0',
};

const loopback: Dual = { v4: '127.0.0.1', v6: '::1' };
const onHost: Dual = { v4: '198.18.0.1', v6: '2001:db8::1' };
const onClient: Dual = { v4: '198.18.0.2', v6: '2001:db8::2' };
const onBridge: Dual = { v4: '198.18.1.1', v6: '2001:db8:1::1' };
const inContainer: Dual = { v4: '198.18.1.2', v6: '2001:db8:1::2' };

/** Whether this process may make namespaces; without, T1 on the machine's own loopback is all there is. */
export function mayMakeNamespaces(): boolean {
  return process.getuid?.() === 0 && spawnSync('unshare', ['--net', '--mount', 'true']).status === 0;
}

export function openWorld(name: TopologyName): World {
  removeAbandoned();
  if (name === 'T2') return threeNamespaces();
  return mayMakeNamespaces() ? oneNamespace() : ownLoopback();
}

function threeNamespaces(): World {
  const [client, host, container] = ['client', 'host', 'container'].map(namespaceName) as [
    string,
    string,
    string,
  ];
  const names = [client, host, container];
  try {
    for (const name of names) makeNamespace(name);
    cable(client, host, container);
    const congestionControl = setAll(names);
    write(host, { 'net.ipv4.ip_forward': '1', 'net.ipv6.conf.all.forwarding': '1' });
    return {
      client: placeOf(client),
      host: placeOf(host),
      container: placeOf(container),
      hostAddress: onHost,
      containerAddress: inContainer,
      remarks: remarksOn(congestionControl),
      record: {
        name: 'T2',
        title:
          'client, host and container in three network namespaces, joined by veth and a bridge, MTU 1500',
        congestionControl,
        settings,
        offloads: offloadsOf(host, 'client0'),
      },
      remove: () => remove(names),
    };
  } catch (error) {
    remove(names);
    throw error;
  }
}

function oneNamespace(): World {
  const name = namespaceName('all');
  try {
    makeNamespace(name);
    const congestionControl = setAll([name]);
    return onLoopback(placeOf(name), congestionControl, settings, remarksOn(congestionControl), () =>
      remove([name]),
    );
  } catch (error) {
    remove([name]);
    throw error;
  }
}

function ownLoopback(): World {
  const congestionControl = readFileSync('/proc/sys/net/ipv4/tcp_congestion_control', 'utf8').trim();
  return onLoopback({}, congestionControl, {}, [], () => {});
}

function onLoopback(
  place: Place,
  congestionControl: string,
  sysctls: Readonly<Record<string, string>>,
  remarks: readonly string[],
  remove: () => void,
): World {
  const title = `one loopback, ${place.netns === undefined ? "the machine's own" : 'in a namespace of its own'}`;
  return {
    client: place,
    host: place,
    container: place,
    hostAddress: loopback,
    containerAddress: loopback,
    remarks,
    record: { name: 'T1', title, congestionControl, settings: sysctls, offloads: [] },
    remove,
  };
}

/** A namespace may use only what the machine allows to everybody, which is never changed here. */
function remarksOn(congestionControl: string): readonly string[] {
  return congestionControl === 'cubic'
    ? []
    : [`Congestion control is ${congestionControl} for every subject: this machine allows no cubic here.`];
}

/** What this process makes begins with it, so that the next one knows what to remove if this one is killed. */
export const ownName: string = `dualport-bench-${process.pid}`;

function namespaceName(role: string): string {
  return `${ownName}-${role}`;
}

function placeOf(name: string): Place {
  return { netns: `/run/netns/${name}` };
}

function makeNamespace(name: string): void {
  mustRun('ip', ['netns', 'add', name]);
  mustRun('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
}

function cable(client: string, host: string, container: string): void {
  const peer = (name: string) => ['type', 'veth', 'peer', 'name', name, 'netns', host];
  mustRun('ip', ['link', 'add', 'eth0', 'netns', client, ...peer('client0')]);
  mustRun('ip', ['link', 'add', 'eth0', 'netns', container, ...peer('ctr0')]);
  batch(host, [
    'link add br0 type bridge',
    'link set ctr0 master br0 up',
    ...addressed('client0', onHost),
    ...addressed('br0', onBridge),
  ]);
  batch(client, [...addressed('eth0', onClient), ...routes(onHost)]);
  batch(container, [...addressed('eth0', inContainer), ...routes(onBridge)]);
}

/** Without duplicate address detection, so that the addresses can be used at once. */
function addressed(device: string, { v4, v6 }: Dual): readonly string[] {
  return [
    `link set ${device} up`,
    `address add ${v4}/24 dev ${device}`,
    `address add ${v6}/64 dev ${device} nodad`,
  ];
}

function routes({ v4, v6 }: Dual): readonly string[] {
  return [`route add default via ${v4}`, `route add default via ${v6}`];
}

function setAll(names: readonly string[]): string {
  for (const name of names) write(name, settings);
  const chosen = ['cubic', 'reno'].find((algorithm) =>
    names.every((name) => mayWrite(name, 'net.ipv4.tcp_congestion_control', algorithm)),
  );
  if (chosen === undefined) throw new Error('neither cubic nor reno may be used in a network namespace here');
  return chosen;
}

function write(name: string, values: Readonly<Record<string, string>>): void {
  for (const [key, value] of Object.entries(values)) {
    if (!mayWrite(name, key, value)) throw new Error(`sysctl ${key}=${value} is refused in ${name}`);
  }
}

function mayWrite(name: string, key: string, value: string): boolean {
  const path = `/proc/sys/${key.replaceAll('.', '/')}`;
  return inside(name, ['sh', '-c', 'echo "$1" > "$2"', 'sh', value, path]).status === 0;
}

function offloadsOf(name: string, device: string): readonly string[] {
  const { stdout } = inside(name, ['ethtool', '-k', device]);
  const wanted = /^(generic-(?:segmentation|receive)-offload|tcp-segmentation-offload|tx-udp-segmentation)/;
  return (stdout ?? '').split('\n').filter((line) => wanted.test(line));
}

function inside(name: string, command: readonly string[]) {
  return spawnSync('nsenter', [`--net=/run/netns/${name}`, ...command], { encoding: 'utf8' });
}

function batch(name: string, commands: readonly string[]): void {
  mustRun('ip', ['-n', name, '-batch', '-'], commands.join('\n'));
}

function mustRun(command: string, args: readonly string[], input = ''): void {
  const { status, stderr, error } = spawnSync(command, args, { input, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
}

/** Devices, addresses and rules go with the namespaces. */
function remove(names: readonly string[]): void {
  for (const name of names) spawnSync('ip', ['netns', 'del', name]);
}

/** A run that was killed could not clean up. Its processes are known by the namespace they are in. */
function removeAbandoned(): void {
  const left = namesIn('/run/netns').filter(isAbandoned);
  for (const name of left) {
    const { stdout } = spawnSync('ip', ['netns', 'pids', name], { encoding: 'utf8' });
    for (const pid of stdout.split('\n').filter(Boolean)) killIfThere(Number(pid));
  }
  remove(left);
  for (const name of namesIn(tmpdir()).filter(isAbandoned)) rmSync(join(tmpdir(), name), { recursive: true });
}

function isAbandoned(name: string): boolean {
  const [, pid] = /^dualport-bench-(\d+)-/.exec(name) ?? [];
  return pid !== undefined && !existsSync(`/proc/${pid}`);
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}
