/**
 * The contract between the service and whoever relays. An engine owns every socket and every flow; it asks
 * `decide` once per new flow and is never told how the answer was found. The portable engine (node:net,
 * node:dgram) and the Linux engine keep the same promises, and one test suite holds both to them:
 *
 * - A flow that cannot be connected is reset, never closed as if it were complete.
 * - The end of one direction is passed on in order behind its bytes; a reset is passed on as a reset.
 * - Each flow ends with exactly one record, given to `plan.ended` after its sockets were given up.
 * - `close` may be called twice. A closed listener has released its port when the promise resolves.
 */
import { count } from '../flow/counters.ts';
import type { ApproachTo, Decide, FlowRecord, Protocol, TrustsPeer } from '../flow/flow.ts';
import type { Endpoint } from '../net/address.ts';
import type { FlowLimits, RuleGroup } from './admission.ts';
import type { ReplyBudget } from './reply-budget.ts';

/** How long things may last, in milliseconds; 0 means without limit where that is allowed. */
export interface Timeouts {
  /** From the verdict until an upstream has answered. */
  readonly connectMs: number;
  /** Silence of one candidate before the next is tried beside it (RFC 8305 §5). */
  readonly raceMs: number;
  /** The whole PROXY header, from accept on. */
  readonly headerMs: number;
  /** TCP flow without a byte in either direction; 0 is no limit. */
  readonly idleMs: number;
  /** The same once one direction has ended. */
  readonly halfCloseMs: number;
  /** UDP flow without a datagram, before its first answer. */
  readonly udpMs: number;
  /** UDP flow without a datagram, after its first answer. */
  readonly udpStreamMs: number;
}

/** What may change while the socket stays open; flows that exist keep what was decided for them. */
export interface Plan {
  /** The rule as its user wrote it; names it in records. */
  readonly rule: string;
  readonly decide: Decide;
  /** Undefined: the kernel chooses the source address, and the verdict says which header is sent. */
  readonly approach: ApproachTo | undefined;
  /** Peers that must send a PROXY header; everybody else is refused. Undefined: nobody sends one. */
  readonly trusts: TrustsPeer | undefined;
  readonly timeouts: Timeouts;
  readonly limits: FlowLimits;
  /** What a UDP client gets before it has shown that it hears; undefined: anything. */
  readonly replies: ReplyBudget | undefined;
  /** Counters and places, shared by the listeners of one rule so that limits hold over both families. */
  readonly group: RuleGroup;
  readonly ended: (record: FlowRecord) => void;
  /** Somebody waits, and cannot be accepted; called as often as it happens. */
  readonly acceptFailed: (errno: string) => void;
}

export function countAcceptFailure({ group, acceptFailed }: Plan, errno: string): void {
  count(group.counters, 'acceptFailures');
  acceptFailed(errno);
}

/** @template P what a plan has to have for this listener */
export interface Listener<P extends Plan = Plan> {
  /** Where it is bound, with the port the kernel chose when 0 was asked for. */
  readonly local: Endpoint;
  /** New flows follow the new plan; a UDP flow whose upstream is gone from it ends at its next datagram. */
  replace(plan: P): void | Promise<void>;
  /** No new flows. TCP gives its port up at once; UDP keeps it until `close`, for the answers still due. */
  stop(): Promise<void>;
  /** Stops and gives the port up. TCP flows that are connected go on; UDP flows, which share the socket, end. */
  close(): Promise<void>;
}

/** A process that hands a socket over. It keeps its copy, and hears when nothing of the socket is left here. */
export interface Giver {
  /** What it says of the socket; not checked. */
  readonly text: string;
  /** Its process; 0 where it is not known here. */
  readonly pid: number;
  /** The socket, for {@link Engine.adopt}; once. */
  take(): number;
  answer(text: string): void;
  /** Answers, and closes, after a socket that nobody took: whoever is refused may bind another in its place. */
  refuse(text: string): void;
  /** `heard` is called once when the process has ended, or wants the socket for itself. */
  onBack(heard: () => void): void;
  close(): void;
}

/** Where such processes come. */
export interface Handover {
  /** Nobody new; those who are here stay. */
  stop(): void;
  /** Closes every giver, too. */
  close(): void;
}

/** Something that works less well than it could, because this machine or its limits refuse the better way. */
export interface Shortcoming {
  readonly fallback: 'engine' | 'splice' | 'pipes' | 'gso' | 'gro';
  readonly text: string;
}

/** Called once for each shortcoming. */
export type Notice = (shortcoming: Shortcoming) => void;

/** @template P what a plan has to have for this engine */
export interface Engine<P extends Plan = Plan> {
  readonly name: 'portable' | 'linux';
  /** Binds; IPv6 sockets are always V6ONLY. Rejects with the system's error, having bound nothing. */
  listen(protocol: Protocol, at: Endpoint, plan: P): Promise<Listener<P>>;
  /**
   * Takes over a socket that is bound and, for TCP, listens; it is closed when that cannot be. Other processes that
   * have it, too, keep it. Undefined in an engine that cannot.
   */
  readonly adopt?: ((protocol: Protocol, socket: number, plan: P) => Promise<Listener<P>>) | undefined;
  /** Why no upstream can be connected from another host's address here; undefined when it can. */
  transparentObstacle(): 'engine' | 'privilege' | undefined;
  /** Flows that would lose something if the engine closed now: TCP flows, and UDP flows of the last second. */
  busyFlows(): number | Promise<number>;
  /** Closes every listener and resets every flow. */
  close(): Promise<void>;
}
