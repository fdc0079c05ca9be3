/**
 * Each flow ends with one record. Without `--access-log` an orderly end is not logged, and must cost nothing;
 * with it the record becomes attributes, and those a line. The line is made by the program's own logger and
 * taken from it before the system call that would write it.
 */
import type { FlowRecord } from '../../src/flow/flow.ts';
import { LogBudget, makeLog, readable } from '../../src/log.ts';
import { endpointOf, type Family } from '../../src/net/address.ts';
import { attributes, flowLog } from '../../src/service/flow-log.ts';
import { clients, clientTexts, flowOf } from './clients.ts';
import { nth, type Operation, operation, prepared, type Question } from './question.ts';

const log = makeLog({ level: 'info', format: 'json' });
const budget = new LogBudget(log);

export const flowRecord: Question = {
  name: 'flow-record',
  sentence: 'What does the end of a flow cost, from its record to its log line?',
  operations: () => [unlogged(), listed(4), listed(6), logged(4), logged(6), madeReadable()],
};

/** Ended flows of these clients, as a TCP relay reports them. */
export function records(family: Family): readonly FlowRecord[] {
  const upstream = endpointOf(family === 4 ? '172.17.0.2' : 'fd00::2', 80);
  const ends = clients[family];
  return prepared((turn) => ({
    rule: '8080:80/tcp',
    flow: flowOf(nth(ends, turn), family),
    upstream,
    source: undefined,
    plain: undefined,
    fallback: false,
    uniqueId: undefined,
    bytes: [512 + turn, 16_384 + turn],
    durationMs: 12.345 + turn,
    reason: 'done',
  }));
}

function unlogged(): Operation {
  const ended = records(4);
  const hear = flowLog(log, budget, false);
  const said = (call: number) => linesOf(() => hear(nth(ended, call)));
  return operation('a record that is not logged', said, (text) => text === '');
}

function listed(family: Family): Operation {
  const ended = records(family);
  return operation(
    `record to attributes, IPv${family}`,
    (call) => attributes(nth(ended, call)),
    (found, call) => found['client.address'] === nth(clientTexts[family], call),
  );
}

function logged(family: Family): Operation {
  const ended = records(family);
  const hear = flowLog(log, budget, true);
  const said = (call: number) => linesOf(() => hear(nth(ended, call)));
  return operation(`record to line of JSON, IPv${family}`, said, (text, call) => {
    const line = JSON.parse(text) as Record<string, unknown>;
    return line['msg'] === 'flow ended' && line['client.address'] === nth(clientTexts[family], call);
  });
}

function madeReadable(): Operation {
  const lines = records(4).map((record) => linesOf(() => log.info(attributes(record), 'flow ended')));
  return operation(
    'line of JSON to readable line, IPv4',
    (call) => readable(nth(lines, call), false),
    (text, call) => text.includes(` client.address=${nth(clientTexts[4], call)} `),
  );
}

/** What a call would have written: log.ts writes to stdout and nowhere else, and nobody else does meanwhile. */
function linesOf(call: () => void): string {
  const { stdout } = process;
  const write = stdout.write;
  let text = '';
  stdout.write = (chunk: string | Uint8Array) => {
    text += chunk;
    return true;
  };
  try {
    call();
  } finally {
    stdout.write = write;
  }
  return text;
}
