/**
 * Which engine runs. `auto` takes the best that is there and says why it is not the Linux engine; a name that
 * cannot be had is an error, never a silent second best.
 */
import { DualportError } from '../errors.ts';
import type { Engine, Notice } from './engine.ts';
import { makeLinuxEngine } from './linux/linux.ts';
import { type Loaded, loadNative } from './linux/load.ts';
import { makePortableEngine } from './portable/portable.ts';

export type EngineName = 'auto' | 'linux' | 'portable';

/**
 * @param loaded the native core, or why there is none
 * @throws DualportError when this engine cannot run here
 */
export function refuseEngine(name: EngineName, loaded: Loaded = loadNative()): void {
  if (name !== 'linux' || 'native' in loaded) return;
  throw new DualportError(
    'ENGINE',
    `the linux engine cannot run here: ${loaded.reason}; --engine portable runs everywhere, --engine auto takes what there is`,
  );
}

/**
 * @param maxFlows most flows at once, over all rules
 * @param notice hears of what works less well here than it could
 * @param loaded the native core, or why there is none
 * @throws DualportError when this engine cannot run here
 */
export function makeEngine(
  name: EngineName,
  maxFlows: number,
  notice: Notice,
  loaded: Loaded = loadNative(),
): Engine {
  refuseEngine(name, loaded);
  if (name === 'portable') return makePortableEngine(maxFlows);
  if ('native' in loaded) return makeLinuxEngine(loaded.native, maxFlows, notice);
  notice({ fallback: 'engine', text: `the linux engine is not here: ${loaded.reason}` });
  return makePortableEngine(maxFlows);
}
