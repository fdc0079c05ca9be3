import { spawnSync } from 'node:child_process';
import { type Config, loadConfig } from '../../src/config/load.ts';
import { endpointOf } from '../../src/net/address.ts';
import { applyPlan, removeAll } from '../../src/transparent/apply.ts';
import type { Plan } from '../../src/transparent/plan.ts';
import { planFor } from '../../src/transparent/setup.ts';
import type { Command, Run } from '../../src/transparent/system.ts';
import type { Stage } from './dualport.ts';
import { addresses, type Namespace } from './namespace.ts';
import { openRoutedWorld, quick } from './transparent.ts';

const { container, client, host } = addresses;

/** A namespace's tools, of which one change can be made to fail. */
export class Tools {
  readonly #place: Namespace;
  /** Counted from 1; 0 is none. */
  failAt = 0;
  changes = 0;

  constructor(place: Namespace) {
    this.#place = place;
  }

  readonly run: Run = async (command) => {
    if (isChange(command) && ++this.changes === this.failAt) {
      return { status: 2, stdout: '', stderr: 'this one is to fail\n' };
    }
    const [program = '', ...words] = [...quick(this.#place).prefix, command.tool, ...command.args];
    return spawnSync(program, words, { input: command.input ?? '', encoding: 'utf8' });
  };
}

export function isChange({ args }: Command): boolean {
  return ['add', 'del', 'replace', '-f'].some((word) => args.includes(word));
}

export interface Ready {
  readonly place: Namespace;
  readonly tools: Tools;
  readonly apply: (wanted: Wanted) => Promise<boolean>;
  readonly remove: () => Promise<boolean>;
}

export interface Wanted {
  readonly config: Config;
  readonly plan: Plan;
}

export function ready(stage: Stage): Ready {
  const place = openRoutedWorld(stage).host;
  const tools = new Tools(place);
  const { transparent } = loadConfig({ flags: { publish: ['80:80'], to: ['198.18.0.1'] }, env: {} });
  return {
    place,
    tools,
    apply: ({ plan }) => applyPlan(tools.run, plan, transparent),
    remove: async () => (await removeAll(tools.run, transparent)).changed,
  };
}

/** Upstreams, and the source that their rules have; of every recipe. */
export const states = {
  nothing: ['none', container.v4],
  'one interface': ['transparent', container.v4, container.v6],
  'two interfaces': ['transparent', container.v4, client.v6],
  'this host': ['transparent', '127.0.0.1', '::1', host.v4],
  'all of it': ['transparent', container.v4, '::1'],
  'pseudo addresses': ['pseudo', container.v4, container.v6],
  'pseudo addresses on this host': ['pseudo', '127.0.0.1', '::1'],
} as const;

export type State = keyof typeof states;

export async function wanted({ tools }: Ready, state: State): Promise<Wanted> {
  const [source, ...to] = states[state];
  const publish = ['8080:80', '5353:53/udp'];
  const config = loadConfig({ flags: { publish, to, source }, env: {} });
  const upstreams = to.map((host) => endpointOf(host, 0));
  const rules = config.rules.map((rule) => ({
    rule,
    upstreams: upstreams.map((at) => ({ ...at, port: rule.port.containerPort })),
  }));
  return { config, plan: await planFor(tools.run, rules, config) };
}
