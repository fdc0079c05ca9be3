/** Socket files outlive the process that made them when it is killed, and keep the next one from binding. */
import { lstatSync } from 'node:fs';
import { connect } from 'node:net';
import { errnoOf } from '../errors.ts';

/**
 * Refused by the kernel: it is a socket, and nobody has it open any more. One that is open refuses in other words,
 * also when it is of another type.
 */
export function isStaleSocket(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    if (!lstatSync(path).isSocket()) return resolve(false);
    const probe = connect(path);
    probe.once('connect', () => resolve(false));
    probe.once('error', (error) => resolve(errnoOf(error) === 'ECONNREFUSED'));
    probe.once('close', () => probe.destroy());
    probe.once('connect', () => probe.destroy());
  });
}
