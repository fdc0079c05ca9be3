/**
 * The native core as TypeScript sees it (native/core.h has the meaning of every call). Numbers cross the
 * border; addresses and events lie in memory that both sides see. A negative result is -errno.
 */

/** Opaque: one core, with its table of sockets. */
export type CoreHandle = { readonly core: unique symbol };

export interface Native {
  /**
   * @param memory one block for everything shared, laid out by layout.ts
   * @param slots most sockets at once
   */
  open(memory: Uint8Array, slots: number): CoreHandle;
  shut(core: CoreHandle): void;
  /** Has the event loop of this thread wait for the core; `onEvents` is called only when there are some. */
  watch(core: CoreHandle, onEvents: (count: number) => void): void;
  unwatch(core: CoreHandle): void;
  /** For tests, and for a thread of its own: waits by itself. */
  poll(core: CoreHandle, timeoutMs: number): number;
  now(): number;
  /**
   * A descriptor that is bound and not connected; it needs no core.
   *
   * @param at an endpoint of layout.ts
   */
  socketFrom(at: Uint8Array, kind: number, isTcp: boolean): number;
  /** Where the C side has the parts of the memory, in the order of layout.ts with the total last; for tests. */
  layout(slots: number): readonly number[];

  tcpListen(core: CoreHandle, backlog: number): number; // endpoint 0: where
  udpListen(core: CoreHandle, counters: number): number; // endpoint 0: where
  bindGroup(core: CoreHandle, isUdp: boolean, backlog: number, fds: Int32Array): number; // endpoint 0: where
  adopt(core: CoreHandle, fd: number, isUdp: boolean, counters: number): number;
  handoverListen(core: CoreHandle, path: Uint8Array, most: number): number;
  handoverTake(core: CoreHandle, giver: number): number;
  handoverAnswer(core: CoreHandle, giver: number, record: Uint8Array): number;
  local(core: CoreHandle, slot: number): number; // writes endpoint 0
  accepting(core: CoreHandle, listener: number, on: boolean): number;
  close(core: CoreHandle, slot: number, reset: boolean): void;

  /** 0, or why a socket cannot have the address of another host. */
  allowsForeign(): number;

  connect(core: CoreHandle, source: number): number; // endpoints 0 to, 3 from
  read(core: CoreHandle, slot: number, to: Uint8Array): number;
  write(core: CoreHandle, slot: number, from: Uint8Array): number;
  relay(
    core: CoreHandle,
    client: number,
    upstream: number,
    early: Uint8Array | undefined,
    payload: number,
    clientEnded: boolean,
    counters: number,
  ): number;
  relayAbort(core: CoreHandle, client: number): number;
  keepAlive(core: CoreHandle, upstream: number): number;

  // endpoints 0 peer, 1 local, 2 upstream, 3 from
  udpFlow(core: CoreHandle, listener: number, counters: number, source: number): number;
  udpConnect(core: CoreHandle, flow: number, source: number): number; // endpoints 0 upstream, 3 from
  udpInspect(core: CoreHandle, slot: number, on: boolean): number;
  udpBudget(
    core: CoreHandle,
    listener: number,
    datagrams: number,
    bytes: number,
    factor: number,
    bytesPerSecond: number,
  ): number;
  udpPrefix(core: CoreHandle, flow: number, header: Uint8Array | undefined): number;
  udpSend(core: CoreHandle, flow: number, header: Uint8Array | undefined, payload: Uint8Array): number;

  /** Has the core add to this counter block (src/flow/counters.ts) under the number that comes back. */
  countInto(core: CoreHandle, block: Float64Array, places: Int32Array): number;
  forgetCounters(core: CoreHandle, counters: number): void;
  fallbacks(core: CoreHandle): number;
}
