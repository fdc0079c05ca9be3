/**
 * What the main thread and the others say to each other. Everything is data; numbers that both change are in
 * shared memory, and a socket is the number of its descriptor, which all threads of a process have in common.
 */
import type { Shortcoming } from '../engine/engine.ts';
import type { SourceTable } from '../engine/shared-flows.ts';
import type { Counters } from '../flow/counters.ts';
import type { FlowRecord, Protocol } from '../flow/flow.ts';
import type { HandOver } from '../log.ts';
import type { PlanData } from './plan.ts';

/** What a thread is given when it begins. */
export interface ThreadData {
  /** Most flows at once on this thread. */
  readonly maxFlows: number;
  readonly logLevel: string;
  readonly handOver: HandOver;
  /** Of the budget for failures in the log. */
  readonly lineCounts: Int32Array;
  readonly sources: SourceTable;
}

/** A rule's group as it goes to a thread. */
export interface GroupData {
  readonly number: number;
  /** The thread's own block. */
  readonly counters: Counters;
  /** How many flows the rule has on all threads. */
  readonly flows: Int32Array;
}

export type Order =
  | {
      readonly do: 'open';
      readonly listener: number;
      readonly protocol: Protocol;
      readonly socket: number;
      readonly group: GroupData;
      readonly plan: PlanData;
    }
  | { readonly do: 'replace'; readonly listener: number; readonly plan: PlanData }
  | { readonly do: 'stop' | 'close'; readonly listener: number }
  /** The answer is how many flows are busy. */
  | { readonly do: 'count' }
  | { readonly do: 'end' };

export interface NumberedOrder {
  readonly number: number;
  readonly order: Order;
}

export type Report =
  | { readonly done: number; readonly answer: number }
  | { readonly done: number; readonly failure: Failure }
  | { readonly lines: readonly string[] }
  /** A flow that has ended, of which the main thread is to hear. */
  | { readonly ended: FlowRecord }
  | { readonly notice: Shortcoming };

/** An error on its way: of an Error only some of what it has arrives. */
export interface Failure {
  readonly message: string;
  readonly code: string | undefined;
}
