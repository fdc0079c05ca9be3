/**
 * Where a value was written. Parsers know nothing of places: they throw what is wrong with a text, and the
 * reader of a flag, a variable or a file adds the place here, so that every error leads to what to change.
 */
import { DualportError } from '../errors.ts';

/** Who had the last word on a value, in falling precedence. */
export type Origin = 'flag' | 'environment' | 'file' | 'default';

export interface Place {
  /** A label is another's word: what it says is bounded by all the others. */
  readonly origin: Exclude<Origin, 'default'> | 'label';
  /** `--to`, `DUALPORT_TO`, `dualport.yaml:3:7: publish[0].to`, or `io.dualport.source`. */
  readonly text: string;
}

/** A text as it was written, and where. */
export interface Written {
  readonly text: string;
  readonly at: Place;
}

/**
 * What is wrong, said with its place.
 *
 * @returns DualportError CONFIG_VALUE for a file (exit 78); else the error's own code (exit 2)
 */
export function refusedAt(at: Place, error: DualportError): DualportError {
  const code = at.origin === 'file' ? 'CONFIG_VALUE' : error.code;
  return new DualportError(code, `${at.text}: ${error.message}`, { cause: error });
}

/** Runs a parser on a written text; a refusal gets the place, a fault in the parser stays what it is. */
export function parseAt<T>(written: Written, parse: (text: string) => T): T {
  try {
    return parse(written.text);
  } catch (error) {
    throw error instanceof DualportError ? refusedAt(written.at, error) : error;
  }
}

/** The sentence every wrong value gets. */
export function notAllowed(found: string, allowed: string): DualportError {
  const what = found === '' ? 'nothing' : JSON.stringify(found);
  return new DualportError('USAGE', `found ${what}; allowed: ${allowed}`);
}
