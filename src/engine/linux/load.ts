/**
 * Finds the native core: the one that this checkout has built, else the prebuilt one that the published package
 * carries for this machine. A core that cannot be had is a reason to be told, not an error: which engine runs then
 * is not decided here.
 */
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { messageOf } from '../../errors.ts';
import type { Native } from './native.ts';

export type Loaded = { readonly native: Native } | { readonly reason: string };

/** What a core has to fit. */
export interface Machine {
  readonly platform: string;
  readonly arch: string;
  readonly libc: 'glibc' | 'musl';
}

/** From dist/src/engine/linux/ to the package. */
const native = fileURLToPath(new URL('../../../../native', import.meta.url));

let loaded: Loaded | undefined;

/** The native core, or why there is none; asked for once. */
export function loadNative(): Loaded {
  loaded ??= loadFrom(native, thisMachine());
  return loaded;
}

/**
 * The libc is the one that this Node was compiled for: of the two only glibc has RTLD_DEEPBIND. That costs nothing,
 * where Node's own report costs 10 ms; and musl's loader may lie beside glibc's, and would take glibc's core too.
 */
export function thisMachine(): Machine {
  const libc = 'RTLD_DEEPBIND' in constants.dlopen ? 'glibc' : 'musl';
  return { platform: process.platform, arch: process.arch, libc };
}

/** @param folder native/ of a checkout or of a package */
export function loadFrom(folder: string, machine: Machine): Loaded {
  if (machine.platform !== 'linux') return { reason: `it runs on Linux, and this is ${machine.platform}` };
  const name = `linux-${machine.arch}-${machine.libc}`;
  const built = join(folder, 'build', 'dualport.node');
  const prebuilt = join(folder, 'prebuilds', name, 'dualport.node');
  const path = [built, prebuilt].find((candidate) => existsSync(candidate));
  if (path === undefined) return { reason: whyNone(folder, name) };
  try {
    return { native: createRequire(import.meta.url)(path) };
  } catch (error) {
    return { reason: `its native part ${path} cannot be loaded: ${messageOf(error)}` };
  }
}

function whyNone(folder: string, name: string): string {
  if (existsSync(join(folder, 'Makefile'))) return `its native part is not built (make -C ${folder})`;
  const others = existsSync(join(folder, 'prebuilds')) ? readdirSync(join(folder, 'prebuilds')).sort() : [];
  const only = others.length === 0 ? 'at all' : `for ${name}, only for ${others.join(', ')}`;
  return `this package has no native part ${only} (npm ci in a checkout builds one, with gcc and make)`;
}
