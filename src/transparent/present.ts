/**
 * What of ours is in the kernel, and what of others is in our place. Rules and routes say by their protocol who
 * made them (as `proto kernel` and `proto dhcp` do); the nft table says it by what is in it.
 *
 * Found by these alone and not by what some plan would make, so that what an earlier configuration or a killed
 * process has left is found, too.
 */
import { prioritySpan, routeTableSpan } from '../config/transparent-options.ts';
import { DualportError } from '../errors.ts';
import type { Family } from '../net/address.ts';
import { type ListedRule, parseList, parseRoute, parseRule } from './listed.ts';
import { foreignPart, type NftObjects, type TableNames } from './marking.ts';
import type { Names, Plan } from './plan.ts';
import { isDenied, must, type Run } from './system.ts';

/** Below are those of the kernel and of known routing daemons (/etc/iproute2/rt_protos). */
export const ownProtocol = '240';

/** In the words of {@link import('./plan.ts').PolicyRule}. */
export interface PresentRule {
  readonly family: Family;
  readonly priority: number;
  readonly words: string;
}

export interface PresentRoute {
  readonly family: Family;
  readonly words: string;
}

export interface Present {
  readonly rules: readonly PresentRule[];
  readonly routes: readonly PresentRoute[];
  /** Our table as nft lists it and as a script that makes it again; undefined when there is none of ours. */
  readonly marking: { readonly objects: NftObjects; readonly text: string } | undefined;
  /** What is in our place and not ours, each in a sentence. */
  readonly foreign: readonly string[];
}

export type PlaceNames = TableNames & Names;

/**
 * Reads both families and nft.
 *
 * @param plan what is to be made there; for what is only to be removed nft may be missing, and no route of somebody
 *   else matters
 * @throws DualportError PRIVILEGE, SETUP or SETUP_TOOL
 */
export async function readPresent(start: Run, names: PlaceNames, plan: Plan): Promise<Present> {
  const rules = [...(await readRules(start, 4)), ...(await readRules(start, 6))];
  const inPlace = rules.filter(({ priority }) => isOurPlace(priority, names));
  const routes = [...(await readRoutes(start, 4, names, plan)), ...(await readRoutes(start, 6, names, plan))];
  const table = await readTable(start, names, plan.marking !== undefined);
  return {
    rules: inPlace.filter((rule) => isOurs(rule, names)),
    routes: routes.filter(({ own }) => own),
    marking: table.marking,
    foreign: [
      ...inPlace.filter((rule) => !isOurs(rule, names)).map(foreignRule),
      ...routes.filter(({ own }) => !own).map(foreignRoute),
      ...table.foreign,
    ],
  };
}

async function readRules(start: Run, family: Family): Promise<readonly ListedRule[]> {
  const command = { tool: 'ip', args: ['-N', '-j', '-d', `-${family}`, 'rule', 'show'] } as const;
  const { status, stdout } = await start(command);
  // A kernel without IPv6 has no rules for it.
  if (status !== 0 && family === 6) return [];
  const text = status === 0 ? stdout : await must(start, command);
  return parseList(text).map((rule) => parseRule(rule, family));
}

function isOurPlace(priority: number, names: Names): boolean {
  return priority >= names.priority && priority < names.priority + prioritySpan;
}

function isOurs({ protocol, table, plain }: ListedRule, names: Names): boolean {
  return protocol === ownProtocol && plain && (table === undefined || isOurTable(table, names));
}

function isOurTable(table: number, { routeTable }: Names): boolean {
  return table >= routeTable && table < routeTable + routeTableSpan;
}

function foreignRule({ family, priority, words, plain }: ListedRule): string {
  const more = plain ? '' : ' …';
  return `the priority ${priority} of ip -${family} rule belongs to somebody else, who has there: ${words}${more}`;
}

interface FoundRoute extends PresentRoute {
  readonly own: boolean;
}

/** All of ours, and in the tables that are to be used also those of others. */
async function readRoutes(
  start: Run,
  family: Family,
  names: Names,
  plan: Plan,
): Promise<readonly FoundRoute[]> {
  const list = ['-N', '-j', '-d', `-${family}`, 'route', 'show', 'table'];
  const ours = await start({ tool: 'ip', args: [...list, 'all', 'proto', ownProtocol] });
  const listed = ours.status === 0 ? parseList(ours.stdout).map((route) => parseRoute(route, family)) : [];
  const own = listed.filter(
    ({ words, table, metric }) =>
      isOurTable(table, names) || (/ table local /.test(words) && metric === names.priority),
  );
  const tables = new Set(plan.routes.flatMap((route) => (route.family === family ? tableOf(route) : [])));
  const others = [];
  for (const table of tables) {
    // A table without a route is one that does not exist, which is an error to it.
    const all = await start({ tool: 'ip', args: [...list, String(table)] });
    const foreign = all.status === 0 ? parseList(all.stdout) : [];
    others.push(
      ...foreign
        .filter(({ protocol }) => String(protocol) !== ownProtocol)
        .map((route) => parseRoute(route, family, table)),
    );
  }
  return [
    ...own.map((route) => ({ ...route, own: true })),
    ...others.map((route) => ({ ...route, own: false })),
  ];
}

/** The number of its table; pseudo addresses are in the host's own. */
function tableOf({ words }: PresentRoute): readonly number[] {
  const [, number] = / table (\d+)/.exec(words) ?? [];
  return number === undefined ? [] : [Number(number)];
}

function foreignRoute({ family, words }: PresentRoute): string {
  return `a route table of dualport's has a route of somebody else (ip -${family} route): ${words}`;
}

interface Table {
  readonly marking: Present['marking'];
  readonly foreign: readonly string[];
}

const noTable: Table = { marking: undefined, foreign: [] };

async function readTable(start: Run, { table }: TableNames, needsNft: boolean): Promise<Table> {
  const all = await listTables(start, needsNft);
  const isThere = all.some(({ table: found }) => found?.['family'] === 'inet' && found['name'] === table);
  if (!isThere) return noTable;
  const objects = nftObjects(
    await must(start, { tool: 'nft', args: ['-j', 'list', 'table', 'inet', table] }),
  );
  const part = foreignPart(objects);
  if (part !== undefined) {
    return {
      ...noTable,
      foreign: [`the nft table inet ${table} belongs to somebody else, who has there the ${part}`],
    };
  }
  const text = await must(start, { tool: 'nft', args: ['-s', 'list', 'table', 'inet', table] });
  return { marking: { objects, text }, foreign: [] };
}

/** @param needsNft false where its absence means that there are no tables */
export async function listTables(start: Run, needsNft: boolean): Promise<NftObjects> {
  const command = { tool: 'nft', args: ['-j', 'list', 'tables'] } as const;
  if (needsNft) return nftObjects(await must(start, command));
  const listed = await start(command).catch((error: unknown) => {
    if (error instanceof DualportError && error.code === 'SETUP_TOOL') return undefined;
    throw error;
  });
  // Without nft, or with a kernel that has none, there is no table; without the privilege there may be one.
  if (listed === undefined || (listed.status !== 0 && !isDenied(listed.stderr))) return [];
  return nftObjects(await must(() => Promise.resolve(listed), command));
}

/** What `nft -j` has written. */
export function nftObjects(text: string): NftObjects {
  const { nftables }: { nftables: NftObjects } = JSON.parse(text);
  return nftables;
}
