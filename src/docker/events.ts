/**
 * What an event of the engine means for rules. It is believed in what has begun or ended; what there is now is
 * asked for, because events are lost, come twice, and are held up by proxies.
 */
import { numberOf, recordOf } from './json.ts';

export type DockerEvent =
  | {
      /** A container has started or stopped, or with a network, has joined or left it. */
      readonly kind: 'began' | 'ended';
      readonly container: string;
      readonly network: string | undefined;
      /** The engine's time, in nanoseconds. */
      readonly at: number;
    }
  /** Something else, or nothing that can be read: worth a look. */
  | { readonly kind: 'other' };

/** What the engine is asked to tell; health checks alone would be several events a second. */
export const eventFilters = {
  type: ['container', 'network'],
  event: ['start', 'die', 'stop', 'destroy', 'rename', 'connect', 'disconnect'],
} as const;

const containerKinds = new Map([
  ['start', 'began'],
  ['die', 'ended'],
  ['stop', 'ended'],
  ['destroy', 'ended'],
] as const);
const networkKinds = new Map([
  ['connect', 'began'],
  ['disconnect', 'ended'],
] as const);

/** @param line undefined: one that was too long to be read */
export function readEvent(line: string | undefined): DockerEvent {
  const { Type: type, Action: action, Actor: actor, timeNano } = parse(line ?? '');
  const { ID: id, Attributes: attributes } = recordOf(actor);
  const ofNetwork = type === 'network';
  const kinds: ReadonlyMap<unknown, 'began' | 'ended'> = ofNetwork ? networkKinds : containerKinds;
  const kind = type === 'container' || ofNetwork ? kinds.get(action) : undefined;
  const container = ofNetwork ? recordOf(attributes)['container'] : id;
  if (kind === undefined || typeof id !== 'string' || typeof container !== 'string') return { kind: 'other' };
  return { kind, container, network: ofNetwork ? id : undefined, at: numberOf(timeNano) };
}

function parse(line: string): Readonly<Record<string, unknown>> {
  try {
    return recordOf(JSON.parse(line));
  } catch {
    return {};
  }
}
