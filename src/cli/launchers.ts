/** dockerd's launchers, put together: what serves them and what knows containers do not see each other. */
import type { Config } from '../config/load.ts';
import { containersOf } from '../docker/client.ts';
import { ContainerLookup } from '../docker/lookup.ts';
import { refuseHandover } from '../engine/select.ts';
import type { Log } from '../log.ts';
import { Launchers } from '../service/launchers.ts';
import type { Service } from '../service/service.ts';

/**
 * @param now the configuration in force
 * @returns undefined when no launchers are to be served
 * @throws DualportError ENGINE when they cannot be
 */
export function makeLaunchers(service: Service, now: () => Config, log: Log): Launchers | undefined {
  const { launchers, engine } = now();
  if (launchers === undefined) return undefined;
  refuseHandover(engine);
  const lookup = new ContainerLookup(containersOf(launchers.engine), now, log);
  return new Launchers(service, log, lookup, () => now().ruleDefaults);
}
