/** Every gate, in the order of the report. */
import type { Gate } from '../gate.ts';
import { connections } from './connections.ts';
import { datagrams } from './datagrams.ts';
import { idle } from './idle.ts';
import { leaks } from './leaks.ts';
import { reloads } from './reloads.ts';
import { restarts } from './restarts.ts';
import { slowReaders } from './slow-readers.ts';
import { spoofedSources } from './spoofed-sources.ts';
import { syscalls } from './syscalls.ts';

export const allGates: readonly Gate[] = [
  connections,
  idle,
  slowReaders,
  datagrams,
  spoofedSources,
  reloads,
  restarts,
  leaks,
  syscalls,
];
