/**
 * Node hands addresses over as text and takes them as text; inside they are 16 bytes. A TCP flow reads two
 * (peer and local) when it is accepted and writes one for each upstream that is dialled; the rest are questions
 * that policy and admission ask of the bytes.
 */
import {
  type Endpoint,
  endpointKey,
  endpointOf,
  equalEndpoint,
  type Family,
  familyOf,
  formatHost,
  isUnicast,
  sourceKey,
} from '../../src/net/address.ts';
import { clients, clientTexts } from './clients.ts';
import { nth, type Operation, operation, type Question } from './question.ts';

export const address: Question = {
  name: 'address',
  sentence: 'What does reading, writing and comparing an address cost, as each flow does?',
  operations: () => ([4, 6] as const).flatMap(ofFamily),
};

function ofFamily(family: Family): readonly Operation[] {
  const texts = clientTexts[family];
  const ends = clients[family];
  const copies = texts.map((text, turn) => endpointOf(text, 40_000 + turn));
  /** No two clients of clients.ts are in one network, so equal keys are equal clients. */
  const isKey = (key: string, call: number, keyOf: (end: Endpoint) => string) =>
    key === keyOf(nth(copies, call)) && key !== keyOf(nth(copies, call + 1));
  const share = (end: Endpoint) => sourceKey(end.address);
  const on = <R>(name: string, run: (call: number) => R, isRight: (result: R, call: number) => boolean) =>
    operation(`IPv${family}: ${name}`, run, isRight);
  return [
    on(
      'text to endpoint (twice per flow)',
      (call) => endpointOf(nth(texts, call), 40_000),
      (end, call) => Buffer.compare(end.address, nth(ends, call).address) === 0,
    ),
    on(
      'endpoint to text (once per dial)',
      (call) => formatHost(nth(ends, call)),
      (text, call) => text === nth(texts, call),
    ),
    on(
      'family',
      (call) => familyOf(nth(ends, call).address),
      (result) => result === family,
    ),
    on(
      'is it unicast',
      (call) => isUnicast(nth(ends, call).address),
      (result) => result,
    ),
    on(
      'are two endpoints equal',
      (call) => equalEndpoint(nth(ends, call), nth(copies, call)),
      (result) => result,
    ),
    on(
      'key of a source (admission)',
      (call) => share(nth(ends, call)),
      (key, call) => isKey(key, call, share),
    ),
    on(
      'key of an endpoint (failed upstreams)',
      (call) => endpointKey(nth(ends, call)),
      (key, call) => isKey(key, call, endpointKey),
    ),
  ];
}
