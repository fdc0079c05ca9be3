/** Rules that need each thing there is to set up, as a command line has them, and a host to set it up on. */
import type { Stage } from './dualport.ts';
import { addresses, type Namespace } from './namespace.ts';
import { openRoutedWorld } from './transparent.ts';

const { container, host } = addresses;

/** Upstreams behind an interface. */
export const containerRules = [
  '-p',
  '8080:80',
  '-p',
  '5353:53/udp',
  '--to',
  container.v4,
  '--to',
  container.v6,
];
/** Upstreams on this host: loopback with UDP, and another address. */
const localRules = [
  '-p',
  '8080:80',
  '-p',
  '5353-5355:53-55/udp',
  '--to',
  '127.0.0.1',
  '--to',
  '::1',
  '--to',
  host.v4,
];
/** The same rules with a source. */
export const as = (source: string, args: readonly string[]) => [...args, '--source', source];
export const first = as('transparent', containerRules);
export const second = as('transparent', localRules);

export const openHost = (stage: Stage): Namespace => openRoutedWorld(stage).host;

/** Another place in the kernel than the usual one. */
export const elsewhere: readonly string[] = [
  ...['--transparent-priority', '90', '--transparent-route-table', '900'],
  ...['--transparent-table', 'mine'],
];

/** Rules of one priority are listed in the order in which they were made. */
export function sorted(text: string): string {
  return text.split('\n').sort().join('\n');
}
