/**
 * The portable engine: node:net and node:dgram, nothing native, wherever Node runs.
 */
import type { Protocol } from '../../flow/flow.ts';
import type { Endpoint } from '../../net/address.ts';
import { EngineContext } from '../context.ts';
import type { Engine, Listener, Plan } from '../engine.ts';
import { listenTcp } from './tcp-listener.ts';
import { listenUdp } from './udp-listener.ts';

export interface PortableEngine extends Engine {
  readonly name: 'portable';
}

/**
 * @param maxFlows most flows at once, over all rules; choose it so that descriptors cannot run out
 * @param mostWaiting how many clients may wait for a place beyond that, a descriptor each
 */
export function makePortableEngine(maxFlows: number, mostWaiting = 0): PortableEngine {
  const context = new EngineContext(maxFlows, mostWaiting, () => performance.now());
  return {
    name: 'portable',
    listen: (protocol: Protocol, at: Endpoint, plan: Plan): Promise<Listener> =>
      (protocol === 'tcp' ? listenTcp : listenUdp)(context, at, plan),
    transparentObstacle: () => 'engine',
    busyFlows: () => context.busyFlows(),
    close: () => context.close(),
  };
}
