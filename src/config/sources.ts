/**
 * Options from the command line and the environment. Each is a set of values with only those that were
 * written; what wins over what is load.ts.
 */
import { DualportError } from '../errors.ts';
import { suggestion } from './nearest.ts';
import { environmentOf, flagOf, type OptionKey, type OptionValues, optionKeys, options } from './options.ts';
import type { Place } from './place.ts';

/** By option key, as the command line parser gives them; keys that are no options are not looked at. */
export type Flags = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

/** Such as `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

export function flagPlace(key: OptionKey): Place {
  return { origin: 'flag', text: flagOf(key) };
}

export function environmentPlace(key: OptionKey): Place {
  return { origin: 'environment', text: environmentOf(key) };
}

/** @throws DualportError USAGE, PORT_SPEC or ADDRESS, naming the flag */
export function readFlags(flags: Flags): Partial<OptionValues> {
  return readOptions(flagPlace, (key) => {
    const value = Object.hasOwn(flags, key) ? flags[key] : undefined;
    return value === undefined ? undefined : [value].flat().map(String);
  });
}

/**
 * An empty variable is one that was not set: `DUALPORT_TO=${TO:-}` in a Compose file shall not be an error.
 *
 * @throws DualportError USAGE, PORT_SPEC or ADDRESS, naming the variable
 */
export function readEnvironment(env: Environment): Partial<OptionValues> {
  refuseUnknown(env);
  return readOptions(environmentPlace, (key) => {
    const value = env[environmentOf(key)] ?? '';
    return value === '' ? undefined : [value];
  });
}

function readOptions(
  placeOf: (key: OptionKey) => Place,
  textsOf: (key: OptionKey) => readonly string[] | undefined,
): Partial<OptionValues> {
  const values: Partial<Record<OptionKey, unknown>> = {};
  for (const key of optionKeys) {
    const at = placeOf(key);
    const written = textsOf(key)?.map((text) => ({ text, at }));
    if (written !== undefined) values[key] = options[key].read(written, at);
  }
  return values as Partial<OptionValues>;
}

function refuseUnknown(env: Environment): void {
  const known = optionKeys.map(environmentOf);
  for (const [name, value = ''] of Object.entries(env)) {
    if (!name.startsWith('DUALPORT_') || known.includes(name) || isServiceLink(name, value)) continue;
    throw new DualportError(
      'USAGE',
      `the environment variable ${name} is not known${suggestion(name, known)}; remove it, or see dualport --help`,
    );
  }
}

/**
 * Kubernetes and Docker links set variables for each service they know; one that is named dualport, or
 * dualport-something, gives names in our space (kubernetes.io, "Discovering services"). DUALPORT_PORT alone
 * may also be a mistake of a user's, who is to hear of it, so there the value decides.
 */
function isServiceLink(name: string, value: string): boolean {
  if (/_SERVICE_(?:HOST|PORT(?:_\w+)?)$/.test(name)) return true;
  if (/_PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?$/.test(name)) return true;
  return name.endsWith('_PORT') && /^(?:tcp|udp|sctp):\/\//.test(value);
}
