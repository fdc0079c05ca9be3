/**
 * The words that policy and the engines share. A flow is one TCP connection, or one UDP association of a
 * client with an upstream. It has two sides, and per-direction values are pairs indexed by the side the bytes
 * came from.
 */
import type { Address, Endpoint } from '../net/address.ts';

export type Protocol = 'tcp' | 'udp';

/** Side 0 is the client, side 1 the upstream. */
export type Side = 0 | 1;
export const CLIENT: Side = 0;
export const UPSTREAM: Side = 1;

/** What an engine knows of a flow before it asks what to do with it. */
export interface NewFlow {
  readonly protocol: Protocol;
  /** The remote address of the client's socket: the real client, or the proxy in front that sent a header. */
  readonly peer: Endpoint;
  /** The address the client's packets were sent to. */
  readonly local: Endpoint;
  /** The client: the PROXY header's source when one was accepted that names it, else the peer. */
  readonly client: Endpoint;
  /** What the client dialled: the header's destination when there is one, else `local`. */
  readonly dialled: Endpoint;
}

/** The PROXY header an upstream is to receive before any payload. */
export interface Announcement {
  readonly version: 1 | 2;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly crc32c: boolean;
  readonly uniqueId: boolean;
  /** UDP: in front of every datagram, or of the first to each upstream only. */
  readonly datagrams: 'every' | 'first';
}

/** From which address an upstream is connected, where that is not the kernel's choice; port 0 is. */
export interface Source extends Endpoint {
  /** An address of another host, which takes a privilege; any other is one whose packets this host keeps. */
  readonly transparent: boolean;
}

/** Held by each flow that uses what is leased, from its first connect to its end. */
export interface Lease {
  begin(): void;
  end(): void;
}

/** Why a client goes without its own address, though the rule would show it: answers would not come back. */
export type PlainReason = 'same-subnet' | 'upstream-itself' | 'link-local' | 'own-address';

/** How one upstream is connected and told of the client. */
export interface Approach {
  readonly source: Source | undefined;
  readonly announce: Announcement | undefined;
  readonly lease: Lease | undefined;
  readonly plain: PlainReason | undefined;
}

/**
 * Asked for each upstream that is tried, and only then: what it gives away is not given for nothing. Asked again
 * while its lease is held it says the same.
 */
export type ApproachTo = (flow: NewFlow, upstream: Endpoint) => Approach;

/** What is done with a flow: connect to one of these upstreams in this order, or refuse it. */
export type Verdict =
  | {
      readonly upstreams: readonly Endpoint[];
      readonly announce: Announcement | undefined;
      readonly late?: LateUpstreams | undefined;
    }
  | { readonly refuse: RefuseReason };

/**
 * Upstreams that nobody knows yet: asked for when all that are known have failed, once for a TCP flow. Resolves in
 * about a second at most, and always.
 */
export type LateUpstreams = () => Promise<readonly Endpoint[]>;

/** Asked once per flow; pure and fast. */
export type Decide = (flow: NewFlow) => Verdict;

/** Why policy turns a flow away. */
export type RefuseReason =
  | 'denied'
  | 'not-allowed'
  | 'client-not-unicast'
  | 'no-upstream'
  // every upstream is of the other family, whose programs could not be shown this client
  | 'family-mismatch'
  | 'no-pseudo-address';

/** Why a flow ended: a closed set, the same in logs, metrics and both engines. */
export type CloseReason =
  | RefuseReason
  // both sides said all they had to say
  | 'done'
  | 'client-reset'
  | 'upstream-reset'
  // the client left before an upstream was reached
  | 'client-gone'
  | 'connect-refused'
  | 'connect-timeout'
  | 'connect-unreachable'
  | 'connect-failed'
  // the address that an upstream was to see cannot be used
  | 'source-unavailable'
  | 'idle'
  | 'half-close-idle'
  | 'header-untrusted'
  | 'header-invalid'
  | 'header-missing'
  | 'header-timeout'
  | 'limit-flows'
  | 'limit-rule'
  | 'limit-source'
  // it came from us, through this rule already
  | 'loop'
  // a UDP flow that never had an answer made room for a new one
  | 'evicted'
  // the rules changed: this UDP flow's upstream is no longer in them, or TCP was still connecting for one that is gone
  | 'rule-changed'
  | 'shutdown';

/** Everything that is worth saying of a flow when it has ended. */
export interface FlowRecord {
  readonly rule: string;
  readonly flow: NewFlow;
  readonly upstream: Endpoint | undefined;
  /** Whom the upstream sees, or saw last, where that is not this host; port 0 is not known. */
  readonly source: Endpoint | undefined;
  /** Why it does not see the client, though the rule would have it so. */
  readonly plain: PlainReason | undefined;
  /** True when an upstream of another place in the order than the first answered. */
  readonly fallback: boolean;
  /** The UNIQUE_ID that was sent to the upstream, to find its log line by. */
  readonly uniqueId: string | undefined;
  /** Payload bytes by the side they came from, PROXY headers not counted. */
  readonly bytes: readonly [number, number];
  readonly durationMs: number;
  readonly reason: CloseReason;
}

/** Accepts a header from this peer? Matched on the socket's own peer, before anything else is believed. */
export type TrustsPeer = (peer: Address) => boolean;
