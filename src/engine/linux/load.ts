/**
 * Finds the native core that this checkout has built. A core that cannot be had is a reason to be told, not an
 * error: which engine runs then is not decided here.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { messageOf } from '../../errors.ts';
import type { Native } from './native.ts';

export type Loaded = { readonly native: Native } | { readonly reason: string };

/** From dist/src/engine/linux/ to the package. */
const folder = fileURLToPath(new URL('../../../../native/', import.meta.url));

let loaded: Loaded | undefined;

/** The native core, or why there is none; asked for once. */
export function loadNative(): Loaded {
  loaded ??= load();
  return loaded;
}

function load(): Loaded {
  if (process.platform !== 'linux') return { reason: `it runs on Linux, and this is ${process.platform}` };
  const path = `${folder}build/dualport.node`;
  if (!existsSync(path)) return { reason: `its native part is not built (make -C ${folder})` };
  try {
    return { native: createRequire(import.meta.url)(path) };
  } catch (error) {
    return { reason: `its native part cannot be loaded: ${messageOf(error)}` };
  }
}
