/**
 * How much of a relay may be TypeScript? An engine in C that is driven from JavaScript pays for every crossing
 * of Node-API: a transition out of V8's compiled code, a handle scope, and a further call back into Node for
 * each argument and each result. The figure to hold it against is the system call such a function is there to
 * make: the last two rows do the same recv() with and without JavaScript between.
 *
 * The addon is native-call.c. It is compiled when the question is asked, against the headers of the Node that
 * runs; where there is no compiler, or there are no headers, the question is left open and the reason given.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Operation, operation, type Question, type Unanswerable } from './question.ts';

/** What native-call.c exports. */
interface Addon {
  nothing(a: number, b: number, c: number): undefined;
  take(a: number, b: number, c: number): undefined;
  answer(): number;
  add(a: number, b: number, c: number): number;
  share(memory: Int32Array): undefined;
  addShared(): undefined;
  addGiven(memory: Int32Array): undefined;
  receive(fd: number): number;
  receiveTimes(fd: number, times: number): number;
  idleConnection(): number;
}

const folder = fileURLToPath(new URL('../../../bench/micro', import.meta.url));

export const nativeCall: Question = {
  name: 'native-call',
  sentence: 'What does one call from JavaScript into C through Node-API cost?',
  operations: () => {
    const built = build(nodeHeaders());
    if (typeof built !== 'string') return built;
    const addon: Addon = createRequire(import.meta.url)(built);
    return [...calls(addon), ...systemCalls(addon)];
  },
};

/**
 * Where node_api.h should be: beside this Node, or where a distribution puts it. Node-API is the same for all
 * versions, so the headers of another one do.
 */
export function nodeHeaders(): string {
  const own = join(dirname(process.execPath), '..', 'include', 'node');
  const shared = '/usr/include/node';
  return !existsSync(join(own, 'node_api.h')) && existsSync(join(shared, 'node_api.h')) ? shared : own;
}

/**
 * @param headers the folder of node_api.h
 * @returns the path of the addon
 * @throws Error when it does not compile
 */
export function build(headers: string): string | Unanswerable {
  if (!existsSync(join(headers, 'node_api.h'))) {
    return { because: `the headers of Node are not in ${headers}` };
  }
  const missing = ['make', 'cc'].find((program) => spawnSync(program, ['--version']).error !== undefined);
  if (missing !== undefined) return { because: `there is no ${missing} (apt-get install make gcc)` };
  const words = ['-s', '-C', folder, `NODE_INCLUDE=${headers}`];
  const { status, stderr } = spawnSync('make', words, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`make -C bench/micro: ${stderr.trim()}`);
  return join(folder, 'build', 'native-call.node');
}

/** What makes a call dear: nothing, arguments, a result, both; and memory instead of either. */
function calls(addon: Addon): readonly Operation[] {
  const shared = new Int32Array(1024);
  const given = new Int32Array(1024);
  const { nothing, take, answer, add, addShared, addGiven } = addon;
  addon.share(shared);
  const isNothing = (result: undefined) => result === undefined;
  const isSum = (result: number, call: number) => result === call + 3;
  return [
    operation(
      'JavaScript: 3 integers to their sum, for comparison',
      (call) => addInJavaScript(call, 1, 2),
      isSum,
    ),
    operation('C: 3 integers, not looked at', (call) => nothing(call, 1, 2), isNothing),
    operation('C: 3 integers, read', (call) => take(call, 1, 2), isNothing),
    operation(
      'C: an integer back',
      () => answer(),
      // What the calls of `take` have left there.
      (result) => Number.isInteger(result),
    ),
    operation('C: 3 integers, read, their sum back', (call) => add(call, 1, 2), isSum),
    operation(
      'C: 3 integers to their sum in memory known before',
      (call) => {
        fill(shared, call);
        addShared();
        return shared[3] ?? 0;
      },
      isSum,
    ),
    operation(
      'C: 3 integers to their sum in a typed array that is passed',
      (call) => {
        fill(given, call);
        addGiven(given);
        return given[3] ?? 0;
      },
      isSum,
    ),
  ];
}

function addInJavaScript(a: number, b: number, c: number): number {
  return (a + b + c) | 0;
}

function fill(memory: Int32Array, a: number): void {
  memory[0] = a;
  memory[1] = 1;
  memory[2] = 2;
}

const inARow = 100;

function systemCalls(addon: Addon): readonly Operation[] {
  const { receive, receiveTimes } = addon;
  const fd = addon.idleConnection();
  const isEmpty = (result: number) => result === -constants.errno.EAGAIN;
  return [
    operation('C: recv() on an empty socket', () => receive(fd), isEmpty),
    operation(`C: the same, ${inARow} in one call, each`, () => receiveTimes(fd, inARow), isEmpty, inARow),
  ];
}
