/**
 * The Linux engine: the core in C relays what is established, and everything that has to be decided is decided
 * here. It runs on the thread that makes it, whose event loop waits for the core's epoll.
 */
import type { Protocol } from '../../flow/flow.ts';
import type { Endpoint } from '../../net/address.ts';
import type { Engine, Listener, Notice, Plan } from '../engine.ts';
import { LinuxContext } from './context.ts';
import type { Native } from './native.ts';
import { adoptTcp, listenTcp } from './tcp-listener.ts';
import { adoptUdp, listenUdp } from './udp-listener.ts';

export interface LinuxEngine extends Engine {
  readonly name: 'linux';
  /**
   * Binds an address for the engines of `count` threads, over which the kernel spreads the clients: a descriptor
   * for each of them to adopt. To everybody else the address is in use.
   *
   * @throws the system's error, having bound nothing
   */
  bindGroup(protocol: Protocol, at: Endpoint, count: number): readonly number[];
  readonly adopt: NonNullable<Engine['adopt']>;
}

/**
 * @param maxFlows most flows at once, over all rules; choose it so that descriptors cannot run out
 * @param notice hears of every fallback once
 */
export function makeLinuxEngine(native: Native, maxFlows: number, notice: Notice = () => {}): LinuxEngine {
  const context = new LinuxContext(native, maxFlows, notice);
  return {
    name: 'linux',
    listen: (protocol: Protocol, at: Endpoint, plan: Plan): Promise<Listener> =>
      (protocol === 'tcp' ? listenTcp : listenUdp)(context, at, plan),
    bindGroup: (protocol, at, count) => context.core.bindGroup(at, protocol === 'udp', count),
    adopt: (protocol, socket, plan) => (protocol === 'tcp' ? adoptTcp : adoptUdp)(context, socket, plan),
    transparentObstacle: () => (native.allowsForeign() === 0 ? undefined : 'privilege'),
    busyFlows: () => context.busyFlows(),
    close: () => context.close(),
  };
}
