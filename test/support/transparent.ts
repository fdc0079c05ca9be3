/**
 * Rules and routes for transparent connections, in the network namespaces of a test: `dualport transparent …`, a
 * connection by somebody else (spoof.c), and all that the kernel has, as one text to compare.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from '../engine/harness.ts';
import type { Place, Stage } from './dualport.ts';
import { type Namespace, openWorld, setSysctl, type World } from './namespace.ts';
import { type Exit, main } from './process.ts';
import { routeThroughHost } from './source-rules.ts';

/** Clients that are nowhere near. */
export const strangers = { v4: '203.0.113.77', v6: '2001:db8:77::77' } as const;
export const families = ['v4', 'v6'] as const;
export type FamilyName = (typeof families)[number];

/** Programs built once for a file of tests. */
export interface Tools {
  readonly spoof: string;
  readonly program: string;
}

export function buildTools(stage: Stage): Tools {
  const directory = stage.directory();
  const build = (name: string, source: string) => {
    const path = join(directory, name);
    const file = fileURLToPath(new URL(`../../../test/support/${source}`, import.meta.url));
    const { status, stderr } = spawnSync('gcc', ['-O1', '-Wall', '-Wextra', '-Werror', '-o', path, file]);
    assert.equal(status, 0, String(stderr));
    return path;
  };
  return { spoof: build('spoof', 'spoof.c'), program: build('program', 'container-program.c') };
}

/** Three hosts, whose container sends what is not for its own network to the host. */
export function openRoutedWorld(stage: Stage): World {
  const world = openWorld(stage);
  ipEach(world.client, ['-6 address add fe80::4/64 dev eth0 nodad']);
  ipEach(world.container, ['-6 address add fe80::3/64 dev eth0 nodad']);
  routeThroughHost(world);
  // A cable is up a moment after both its ends are, and only then are its addresses among the routes.
  const routes = 'ip -6 route show table local';
  const wait = (device: string) =>
    `until ${routes} | grep -q 'fe80::[1-9][0-9]* dev ${device}'; do sleep 0.01; done`;
  inside(quick(world.host), ['timeout', '10', 'sh', '-c', `${wait('container0')}; ${wait('client0')}`]);
  return world;
}

/** Starts the program of container-program.c, and waits until it listens. */
export async function listenOn(
  stage: Stage,
  tools: Tools,
  place: Place,
  listeners: readonly string[],
): Promise<void> {
  const program = stage.start(
    place,
    tools.program,
    listeners.flatMap((words) => words.split(' ')),
  );
  const comm = `/proc/${program.child.pid}/comm`;
  await until(
    () => existsSync(comm) && readFileSync(comm, 'utf8') === 'listening\n',
    `${listeners}: ${program.stderr}`,
  );
}

export interface Call {
  readonly protocol: 'tcp' | 'udp';
  readonly client: string;
  readonly to: string;
  readonly port: number;
  readonly milliseconds?: number;
}

/** Whom the program takes the caller for, or what became of the call. */
export async function call(stage: Stage, tools: Tools, place: Place, one: Call): Promise<string> {
  const { protocol, client, to, port, milliseconds = 3000 } = one;
  const words = [protocol, client, '0', to, String(port), String(milliseconds)];
  const { stdout } = await stage.run(place, tools.spoof, words);
  return / was asked by (\S+)/.exec(stdout)?.[1] ?? stdout.trim();
}

export function transparent(
  stage: Stage,
  place: Place,
  command: string,
  args: readonly string[] = [],
): Promise<Exit> {
  return stage.run(place, process.execPath, [main, 'transparent', command, ...args]);
}

/** The same where it must succeed. */
export async function transparently(
  stage: Stage,
  place: Place,
  command: string,
  args: readonly string[] = [],
): Promise<string> {
  const { code, stdout, stderr } = await transparent(stage, place, command, args);
  assert.equal(code, 0, `${command}: ${stdout}${stderr}`);
  return stdout;
}

/** Everything that a set-up could leave: nft, rules and routes, of both families. */
export function dump(place: Namespace): string {
  const lists = ['nft -s list ruleset'];
  for (const family of ['-4', '-6'])
    lists.push(`ip ${family} -d rule`, `ip ${family} -d route show table all`);
  return inside(quick(place), ['sh', '-exc', `exec 2>&1\n${lists.join('\n')}`]);
}

/** Addresses of bridges appear among the routes when nobody else turns out to have them. */
export async function settleAddresses(place: Namespace): Promise<void> {
  const tentative = () => inside(quick(place), ['ip', '-6', 'address', 'show', 'tentative']);
  await until(() => tentative() === '', 'addresses to be found unique');
}

/** `ip netns exec` mounts a namespace of its own, which costs more than what is run in it. */
export function quick({ name }: Namespace): Place {
  return { prefix: ['nsenter', `--net=/run/netns/${name}`] };
}

/** Runs a command there and gives what it printed. */
export function inside({ prefix }: Place, command: readonly string[], input = ''): string {
  const [program = '', ...args] = [...prefix, ...command];
  const { status, stdout, stderr } = spawnSync(program, args, { input, encoding: 'utf8' });
  assert.equal(status, 0, `${command.join(' ')}: ${stderr}`);
  return stdout;
}

/** Runs `ip` commands, which may name a family, one after the other. */
export function ipEach(place: Namespace, commands: readonly string[]): void {
  for (const command of commands) inside(quick(place), ['ip', ...command.split(' ')]);
}

/** Switches below /proc/sys/net, as `ipv4/ip_forward`. */
export function sysctl(place: Namespace, values: Readonly<Record<string, number>>): void {
  for (const [key, value] of Object.entries(values)) setSysctl(place, key, value);
}
