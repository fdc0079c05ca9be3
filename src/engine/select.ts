/**
 * Which engine runs. `auto` takes the best that is there and says why it is not the Linux engine; a name that
 * cannot be had is an error, never a silent second best.
 */
import { DualportError } from '../errors.ts';
import type { Giver, Handover, Notice } from './engine.ts';
import { openHandover } from './linux/handover.ts';
import { type LinuxEngine, makeLinuxEngine } from './linux/linux.ts';
import { type Loaded, loadNative } from './linux/load.ts';
import { makePortableEngine, type PortableEngine } from './portable/portable.ts';

export type EngineName = 'auto' | 'linux' | 'portable';
export type AnyEngine = LinuxEngine | PortableEngine;

/**
 * @param threads how many it is to run on; only the Linux engine runs on more than one
 * @param loaded the native core, or why there is none
 * @throws DualportError when this engine cannot run here, or not on so many threads
 */
export function refuseEngine(name: EngineName, threads: number, loaded: Loaded = loadNative()): void {
  if (threads > 1 && name === 'portable') {
    throw refused(
      `the portable engine runs on one thread, and ${threads} are asked for: use --threads 1, or --engine auto`,
    );
  }
  if ('native' in loaded) return;
  if (threads > 1) {
    throw refused(
      `only the linux engine runs on ${threads} threads, and it cannot run here: ${loaded.reason}; use --threads 1`,
    );
  }
  if (name !== 'linux') return;
  throw refused(
    `the linux engine cannot run here: ${loaded.reason}; --engine portable runs everywhere, --engine auto takes what there is`,
  );
}

function refused(why: string): DualportError {
  return new DualportError('ENGINE', why);
}

/**
 * @param maxFlows most flows at once, over all rules
 * @param notice hears of what works less well here than it could
 * @param mostWaiting how many clients beyond the flows may hold a descriptor, where they cannot wait in the backlog
 * @param loaded the native core, or why there is none
 * @throws DualportError when this engine cannot run here
 */
export function makeEngine(
  name: EngineName,
  maxFlows: number,
  notice: Notice,
  mostWaiting = 0,
  loaded: Loaded = loadNative(),
): AnyEngine {
  refuseEngine(name, 1, loaded);
  if (name === 'portable') return makePortableEngine(maxFlows, mostWaiting);
  if ('native' in loaded) return makeLinuxEngine(loaded.native, maxFlows, notice);
  notice({ fallback: 'engine', text: `the linux engine is not here: ${loaded.reason}` });
  return makePortableEngine(maxFlows, mostWaiting);
}

/**
 * Takes sockets that other processes hand over to the engine of this name.
 *
 * @throws DualportError ENGINE when that engine cannot take them; else the system's error
 */
export function makeHandover(
  name: EngineName,
  path: string,
  most: number,
  heard: (giver: Giver) => void,
  loaded: Loaded = loadNative(),
): Handover {
  refuseHandover(name, loaded);
  if ('native' in loaded) return openHandover(loaded.native, path, most, heard);
  throw new Error('a core that is not there was not refused');
}

/** @throws DualportError when the engine of this name cannot take sockets from other processes */
export function refuseHandover(name: EngineName, loaded: Loaded = loadNative()): void {
  if (name !== 'portable' && 'native' in loaded) return;
  const why = 'native' in loaded ? 'the portable engine cannot take them' : loaded.reason;
  throw new DualportError(
    'ENGINE',
    `--docker-proxy-socket takes sockets that dockerd's launchers have bound, which needs the linux engine: ${why}; ` +
      'use --engine linux, or leave --docker-proxy-socket out',
  );
}
