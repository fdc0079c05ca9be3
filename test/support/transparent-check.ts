/** `dualport transparent check` in a world whose container has programs on every address, and what it finds there. */
import assert from 'node:assert/strict';
import type { Place, Stage } from './dualport.ts';
import { addresses, type World } from './namespace.ts';
import { listenOn, openRoutedWorld, type Tools, transparent } from './transparent.ts';

const { container } = addresses;

const ports = ['-p', '8080:80', '-p', '5353:53/udp'];
export const toContainer = [...ports, '--to', container.v4, '--to', container.v6, '--source', 'transparent'];
export const toIpv4 = [...ports, '--to', container.v4, '--source', 'transparent', '--mismatch', 'plain'];
export const toLoopback = [
  ...ports,
  '--to',
  '127.0.0.1',
  '--to',
  '::1',
  '--source',
  'transparent',
  '--mismatch',
  'plain',
];
export const everywhere = ['tcp 0.0.0.0 80', 'tcp :: 80', 'udp 0.0.0.0 53', 'udp :: 53'];

export async function containerWorld(stage: Stage, tools: Tools): Promise<World> {
  const world = openRoutedWorld(stage);
  await listenOn(stage, tools, world.container, everywhere);
  return world;
}

export interface Found {
  readonly code: number | null;
  /** `198.18.2.2:80/tcp transparent` → works, untold, or the cause. */
  readonly results: Readonly<Record<string, string>>;
  readonly text: string;
}

export async function check(stage: Stage, place: Place, args: readonly string[]): Promise<Found> {
  const { code, stdout, stderr } = await transparent(stage, place, 'check', [...args, '--json']);
  assert.equal(stderr, '');
  const { works, findings } = JSON.parse(stdout);
  assert.equal(code, works ? 0 : 1);
  const results = findings.map(({ upstream, source, verdict }: Finding) => [
    `${upstream} ${source}`,
    verdict.cause ?? verdict.result,
  ]);
  return { code, results: Object.fromEntries(results), text: stdout };
}

interface Finding {
  readonly upstream: string;
  readonly source: string;
  readonly verdict: { readonly result: string; readonly cause?: string };
}

/** TCP and UDP of the container's IPv4 address. */
export function ipv4(tcp: string, udp: string = tcp): Readonly<Record<string, string>> {
  return { [`${container.v4}:80/tcp transparent`]: tcp, [`${container.v4}:53/udp transparent`]: udp };
}
