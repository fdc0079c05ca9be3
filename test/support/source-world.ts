/**
 * A world (namespace.ts) in which the program in the container may see its clients: programs that say who asks, the
 * rules of the kernel set by hand, and dualport in between.
 */
import { join } from 'node:path';
import { Dualport, type Stage } from './dualport.ts';
import { addresses, openWorld, type World } from './namespace.ts';
import type { ProgramArguments, Seen } from './namespace-programs.ts';
import { client as clientProgram, serve } from './namespace-traffic.ts';
import { main } from './process.ts';
import { divertAnswers, keepPseudo, routeThroughHost } from './source-rules.ts';

export type Family = 4 | 6;
export type Protocol = 'tcp' | 'udp';

const { client, host, container } = addresses;
export const wildcard = { 4: '0.0.0.0', 6: '::' } as const;
export const hostAddress = { 4: host.v4, 6: host.v6 } as const;
export const clientAddress = { 4: client.v4, 6: client.v6 } as const;
export const containerAddress = { 4: container.v4, 6: container.v6 } as const;

/** The client's IPv4 address as IPv6 upstreams see it. */
export const embeddedClient = 'fd5f:bf90:309::c612:102';
export const pseudoIpv4: RegExp = /^2[45]\d\.\d+\.\d+\.\d+$/;
export const pseudoIpv6: RegExp = /^fd5f:bf90:309::f[\da-f]{3}:[\da-f]{1,4}$/;

/** Where the program's two ports are published. */
export const ports: readonly string[] = ['-p', '8080:80', '-p', '5300:53/udp'];

/** Client, host and container, and every rule there may be. */
export function openSourceWorld(stage: Stage): World {
  const world = openWorld(stage);
  routeThroughHost(world);
  divertAnswers(world);
  keepPseudo(world);
  return world;
}

/** On both families and protocols of the container. */
export async function startPrograms(stage: Stage, world: World): Promise<void> {
  for (const address of Object.values(wildcard)) {
    await serve(stage, world.container, 'who', { host: address, port: 80 });
    await serve(stage, world.container, 'udpWho', { host: address, port: 53 });
  }
}

/** Whom the program has for its peer when somebody on this family asks. */
export function ask(
  stage: Stage,
  world: World,
  protocol: Protocol,
  family: Family,
  change: Partial<ProgramArguments> & { readonly at?: keyof World } = {},
): Promise<Seen> {
  const { at = 'client', ...rest } = change;
  const name = protocol === 'tcp' ? 'whoAmI' : 'udpWhoAmI';
  const port = protocol === 'tcp' ? 8080 : 5300;
  return clientProgram<Seen>(stage, world[at], name, { host: hostAddress[family], port, ...rest });
}

/** dualport, once it is ready; it may be ended before the test is. */
export async function startDualport(
  stage: Stage,
  world: World,
  args: readonly string[],
  prefix: readonly string[] = [],
): Promise<Dualport> {
  const state = args.includes('--state-dir') ? [] : ['--state-dir', join(stage.directory(), 'state')];
  const command = [...prefix, process.execPath];
  const all = [main, ...args, ...state, '--access-log'];
  const running = stage.background(world.host, command[0] ?? '', [...command.slice(1), ...all]);
  await running.says('ready');
  return new Dualport(running);
}

export async function stopDualport({ running }: Dualport): Promise<void> {
  running.signal('SIGTERM');
  const { code, stderr } = await running.exit;
  if (code !== 0) throw new Error(`it ended with ${code}: ${stderr}`);
}
