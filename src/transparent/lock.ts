/**
 * One dualport at a time has a place in the kernel: its nft table, its priorities, its route tables. The lock is an
 * abstract unix socket, which belongs to the network namespace, as rules and routes do, and ends with the process
 * that has it, however that ends; so what a killed process has left can be taken over at once.
 */
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { DualportError, errnoOf } from '../errors.ts';
import type { PlaceNames } from './present.ts';

export interface Lock {
  release(): void;
}

/** @throws DualportError SETUP_BUSY */
export function lockPlace(names: PlaceNames): Promise<Lock> {
  const { table, priority, routeTable } = names;
  return lockAll([`table-${table}`, `priority-${priority}`, `route-table-${routeTable}`], busy(names));
}

/**
 * For the table that a check counts in.
 *
 * @throws DualportError SETUP_BUSY
 */
export function lockCheck({ table }: PlaceNames): Promise<Lock> {
  const text = 'another dualport transparent check runs in this network namespace; wait for its end';
  return lockAll([`check-${table}`], new DualportError('SETUP_BUSY', text));
}

async function lockAll(names: readonly string[], taken: DualportError): Promise<Lock> {
  const servers: Server[] = [];
  const release = () => {
    for (const server of servers.splice(0)) server.close();
  };
  try {
    for (const name of names) servers.push(await hold(name));
  } catch (error) {
    release();
    throw errnoOf(error) === 'EADDRINUSE' ? taken : error;
  }
  return { release };
}

async function hold(name: string): Promise<Server> {
  // Nobody is to connect; who does is shown out.
  const server = createServer((socket) => socket.destroy());
  server.listen({ path: `\0dualport-transparent-${name}` });
  await once(server, 'listening');
  server.unref();
  return server;
}

function busy({ table, priority, routeTable }: PlaceNames): DualportError {
  return new DualportError(
    'SETUP_BUSY',
    `another dualport has set up this network namespace and keeps it so (nft table ${table}, priorities from ${priority}, route tables ` +
      `from ${routeTable}; see: ss -xlp | grep dualport-transparent); stop it, or give this one places of its own: ` +
      '--transparent-table, --transparent-priority, --transparent-route-table',
  );
}
