/**
 * How a figure is made. tinybench reads the clock around one call of its task; the clock costs more than the
 * cheapest operations here, so a task is a batch of calls that lasts about a millisecond, and a sample is the
 * mean of a batch. The median over the batches of all rounds leaves out those in which the machine did
 * something else; the spread is the median distance from it (MAD). Two processes differ by more than that: V8
 * has seen other things in a full run than when a question is asked alone.
 *
 * All operations are called from one loop that has seen many functions, so V8 cannot pull any of them into it,
 * where it would drop work whose result it can foresee. That call is in every figure, about 5 ns: the first row
 * of native-call is it and next to nothing else. Results go into `kept`, from which they could be read.
 */
import { Bench } from 'tinybench';
import { inputs, type Operation, type Question, type Unanswerable } from './question.ts';

/** How often each operation is measured and for how long, and run before that for the compilers' sake. */
export interface Effort {
  readonly rounds: number;
  readonly warmUpMs: number;
  readonly timeMs: number;
}

export const thorough: Effort = { rounds: 5, warmUpMs: 50, timeMs: 200 };

/** Enough to see that everything works; the figures are rough. */
export const quick: Effort = { rounds: 1, warmUpMs: 10, timeMs: 40 };

const batchMs = 1;

/** Nanoseconds for one operation. */
export interface Figure {
  readonly operation: string;
  readonly median: number;
  readonly spread: number;
}

/** Where results go. Exported, so that nobody can prove they are never read. */
export const kept: { last: unknown } = { last: undefined };

/** @throws Error when an operation does not do what its name says */
export function answer(question: Question, effort: Effort): readonly Figure[] | Unanswerable {
  const operations = question.operations();
  if ('because' in operations) return operations;
  for (const each of operations) prove(question, each);
  forgetTypes();
  return figuresOf(operations, effort);
}

function prove(question: Question, { name, holds }: Operation): void {
  for (let call = 0; call < inputs; call++) {
    if (!holds(call)) throw new Error(`${question.name}: "${name}" gives a wrong result at call ${call}`);
  }
}

/** Measures all of them in turn, round after round, so that what changes on the machine changes for all. */
function figuresOf(operations: readonly Operation[], effort: Effort): readonly Figure[] {
  const tasks = operations.map((each) => ({
    ...each,
    calls: callsIn(each.run, batchMs),
    samples: [] as number[],
  }));
  for (let round = 0; round < effort.rounds; round++) {
    for (const { name, run, calls, samples } of tasks) {
      samples.push(...sampled(name, () => batch(run, calls), effort));
    }
  }
  return tasks.map(({ name, calls, each, samples }) => {
    const nanoseconds = samples.map((milliseconds) => (milliseconds * 1e6) / (calls * each));
    const middle = median(nanoseconds);
    return {
      operation: name,
      median: middle,
      spread: median(nanoseconds.map((one) => Math.abs(one - middle))),
    };
  });
}

/** Milliseconds of each batch. */
function sampled(name: string, task: () => void, { warmUpMs, timeMs }: Effort): readonly number[] {
  const options = { warmupIterations: 1, iterations: 5, retainSamples: true, throws: true };
  const bench = new Bench({ ...options, warmupTime: warmUpMs, time: timeMs }).add(name, task);
  const [{ result } = { result: undefined }] = bench.runSync();
  if (result?.state !== 'completed') throw new Error(`${name}: ${result?.state}`);
  return result.latency.samples ?? [];
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return ((sorted[Math.floor(middle)] ?? 0) + (sorted[Math.ceil(middle)] ?? 0)) / 2;
}

/** How many calls take about that long, found by doubling; the doubling is a first warm-up. */
function callsIn(run: Operation['run'], milliseconds: number): number {
  let calls = inputs;
  while (elapsed(run, calls) < milliseconds) calls *= 2;
  return calls;
}

function elapsed(run: Operation['run'], calls: number): number {
  const start = performance.now();
  batch(run, calls);
  return performance.now() - start;
}

function batch(run: Operation['run'], calls: number): void {
  for (let call = 0; call < calls; call++) kept.last = run(call);
}

/** Shows the loop more functions than V8 keeps apart (four), long enough that it is compiled for any. */
function forgetTypes(): void {
  const functions: readonly Operation['run'][] = [
    (call) => call,
    (call) => -call,
    (call) => call + 1,
    (call) => call - 1,
    (call) => call * 2,
    (call) => String(call),
  ];
  for (let turn = 0; turn < 200; turn++) for (const each of functions) batch(each, inputs);
}
