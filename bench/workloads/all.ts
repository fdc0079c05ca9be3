/** Every workload, in the order in which reports show them. */
import { bulk } from './bulk.ts';
import { datagrams, trains } from './datagrams.ts';
import { idle } from './idle.ts';
import { openLoop } from './open-loop.ts';
import { startUp } from './start-up.ts';
import type { Workload } from './workload.ts';
import { connections, requests } from './wrk.ts';

export const allWorkloads: readonly Workload[] = [
  bulk(1, 'down'),
  bulk(1, 'up'),
  bulk(8, 'down'),
  bulk(8, 'up'),
  requests(1),
  requests(64),
  requests(256),
  openLoop,
  connections,
  datagrams(64, 1),
  datagrams(64, 64),
  datagrams(512, 1),
  datagrams(512, 64),
  datagrams(1200, 1),
  datagrams(1200, 64),
  trains,
  idle,
  startUp(1),
  startUp(10),
  startUp(100),
];
