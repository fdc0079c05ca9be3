/**
 * Which engine runs. `auto` takes the best that is there; a name that cannot be had is an error, never a
 * silent second best.
 */
import type { Engine } from './engine.ts';
import { makePortableEngine } from './portable/portable.ts';

export type EngineName = 'auto' | 'portable';

/** @param maxFlows most flows at once, over all rules */
export function makeEngine(_name: EngineName, maxFlows: number): Engine {
  return makePortableEngine(maxFlows);
}
