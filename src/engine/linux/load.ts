/**
 * Finds the native core: what this checkout has built, else what came with the package for this platform. A
 * core that cannot be had is a reason to be told, not an error: which engine runs then is not decided here.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { messageOf } from '../../errors.ts';
import type { Native } from './native.ts';

export type Loaded = { readonly native: Native } | { readonly reason: string };

/** From dist/src/engine/linux/ to the package. */
const root = new URL('../../../../native/', import.meta.url);

let loaded: Loaded | undefined;

/** The native core, or why there is none; asked for once. */
export function loadNative(): Loaded {
  loaded ??= load();
  return loaded;
}

function load(): Loaded {
  if (process.platform !== 'linux') return { reason: `it runs on Linux, and this is ${process.platform}` };
  const path = [built, prebuilt].map((find) => find()).find(existsSync);
  if (path === undefined) return { reason: `its native part is not built (make -C ${fileURLToPath(root)})` };
  try {
    return { native: createRequire(import.meta.url)(path) };
  } catch (error) {
    return { reason: `its native part cannot be loaded: ${messageOf(error)}` };
  }
}

function built(): string {
  return fileURLToPath(new URL('build/dualport.node', root));
}

function prebuilt(): string {
  return fileURLToPath(new URL(`prebuilt/linux-${process.arch}-${libc()}.node`, root));
}

/** Node's report names its glibc; where there is none it is musl. */
function libc(): 'glibc' | 'musl' {
  const report: { header?: { glibcVersionRuntime?: string } } = Object(process.report.getReport());
  return report.header?.glibcVersionRuntime === undefined ? 'musl' : 'glibc';
}
