/** The nft table that a check counts in: made, read and removed again, also when an earlier check could not. */
import { messageOf } from '../../errors.ts';
import { lockCheck } from '../lock.ts';
import type { TableNames } from '../marking.ts';
import { listTables, nftObjects, type PlaceNames } from '../present.ts';
import { must, type Run } from '../system.ts';
import { readTrace, type Trace, type Traced, traceScript, traceTable } from './trace.ts';

export interface Counted<T> {
  readonly result: T;
  /** In the order of what was traced; none when there is an obstacle. */
  readonly traces: readonly Trace[];
  /** Why nothing could be counted. */
  readonly obstacle?: string;
}

/** Counts while something happens. */
export async function counting<T>(
  start: Run,
  { table, mark }: TableNames,
  traced: readonly Traced[],
  happen: () => Promise<T>,
): Promise<Counted<T>> {
  try {
    await must(start, { tool: 'nft', args: ['-f', '-'], input: traceScript(table, traced, mark) });
  } catch (error) {
    return { result: await happen(), traces: [], obstacle: messageOf(error) };
  }
  try {
    const result = await happen();
    const listed = await must(start, {
      tool: 'nft',
      args: ['-j', 'list', 'table', 'inet', traceTable(table)],
    });
    const objects = nftObjects(listed);
    return { result, traces: traced.map((_, i) => readTrace(objects, i)) };
  } finally {
    await removeTable(start, table);
  }
}

/** What a check has left that was killed; nothing while one runs. */
export async function removeLeftTrace(start: Run, names: PlaceNames): Promise<void> {
  const tables = await listTables(start, false);
  if (!tables.some(({ table }) => table?.['family'] === 'inet' && table['name'] === traceTable(names.table)))
    return;
  const lock = await lockCheck(names).catch(() => undefined);
  if (lock === undefined) return;
  await removeTable(start, names.table).finally(() => lock.release());
}

async function removeTable(start: Run, table: string): Promise<void> {
  await must(start, { tool: 'nft', args: ['delete', 'table', 'inet', traceTable(table)] });
}
