/**
 * A question about the cost of a part, and the operations whose figures answer it. Nothing is measured before
 * it was seen to do what its name says: a fast wrong answer would be the best figure of all.
 *
 * An operation is called with the number of the call, to choose among prepared inputs: with one and the same
 * input the processor's branch prediction learns the answer, and the figure is that of a table look-up.
 */

export interface Operation {
  /** Says what is done to what; unique within its question. */
  readonly name: string;
  /** What it returns is kept by the caller, so that no compiler can leave the work out. */
  readonly run: (call: number) => unknown;
  /** Whether the call gives what it must. */
  readonly holds: (call: number) => boolean;
  /** How many operations one call is; 1 but for loops that are part of the subject. */
  readonly each: number;
}

export interface Question {
  /** The name of its file. */
  readonly name: string;
  readonly sentence: string;
  /** Prepares the inputs; or says why there is no answer on this machine. */
  readonly operations: () => readonly Operation[] | Unanswerable;
}

export interface Unanswerable {
  readonly because: string;
}

/** How many different inputs an operation is given in turn; a power of two. */
export const inputs = 64;

/** One of the prepared inputs, each in its turn. */
export function nth<T>(values: readonly T[], call: number): T {
  return values[call & (inputs - 1)] as T;
}

/** A list of as many inputs as there are turns. */
export function prepared<T>(make: (turn: number) => T): readonly T[] {
  return Array.from({ length: inputs }, (_, turn) => make(turn));
}

export function operation<R>(
  name: string,
  run: (call: number) => R,
  isRight: (result: R, call: number) => boolean,
  each = 1,
): Operation {
  return { name, run, holds: (call) => isRight(run(call), call), each };
}
